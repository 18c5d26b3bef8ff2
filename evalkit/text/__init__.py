"""Words and numbers in the reader's language: the only place where either is formatted.

Catalogues are the TOML files in ``text/<lang>/``; their tables are flattened to dotted keys. A sentence takes
named parameters in braces. Format specs understood besides Python's own: ``int`` (thousands separated), ``pct``
(a fraction as percentage, one decimal unless whole), ``pt`` (a fraction as percentage points, one decimal, signed),
``num`` (two decimals), ``one`` (one decimal), ``euro``, ``date``.
"""

from __future__ import annotations

import datetime as dt
import math
import string
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES = ("nl", "en")

RARE = "rare#"
"""How a category is called whose value may not be shown; a number follows. Reports have words for it."""

_SEPARATORS = {"nl": (".", ","), "en": (",", ".")}
_MISSING = "–"


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(_flatten(value, name + "."))
        else:
            flat[name] = str(value)
    return flat


@cache
def catalogue(lang: str) -> dict[str, str]:
    """All sentences of one language by dotted key."""
    sentences: dict[str, str] = {}
    for entry in sorted(files("evalkit.text").joinpath(lang).iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            for key, value in _flatten(tomllib.loads(entry.read_text("utf-8"))).items():
                if key in sentences:
                    raise KeyError(f"{key} stands twice in the catalogue {lang}")
                sentences[key] = value
    return sentences


def number(value: float | int | None, lang: str, decimals: int = 0, signed: bool = False) -> str:
    """A number as the language writes it; a missing one is a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _MISSING
    thousands, point = _SEPARATORS.get(lang, _SEPARATORS["en"])
    text = format(value, f"{'+' if signed else ''},.{decimals}f")
    if float(text.replace(",", "")) == 0:  # no "-0.0"
        text = format(0.0, f",.{decimals}f")
    return text.replace(",", "\0").replace(".", point).replace("\0", thousands).replace("-", "−")


def share(value: float | None, lang: str, decimals: int = 1) -> str:
    """A fraction as a percentage, with its sign."""
    if value is None or not math.isfinite(value):
        return _MISSING
    return number(100 * value, lang, decimals) + ("\u00a0%" if lang == "nl" else "%")


def percentage(value: float | None, lang: str) -> str:
    """A fraction as a percentage in a sentence: one decimal, none where it is whole."""
    whole = value is not None and abs(100 * value - round(100 * value)) < 1e-9
    return share(value, lang, 0 if whole else 1)


def date(value: dt.date, lang: str) -> str:
    """A date: 31-12-2023 in Dutch, 2023-12-31 in English."""
    return value.strftime("%d-%m-%Y" if lang == "nl" else "%Y-%m-%d")


class _Formatter(string.Formatter):
    def __init__(self, lang: str):
        self.lang = lang

    def format_field(self, value: Any, spec: str) -> str:
        lang = self.lang
        match spec:
            case "int":
                return value if isinstance(value, str) else number(value, lang)  # "<10" where a count is hidden
            case "one":
                return number(value, lang, 1)
            case "num":
                return number(value, lang, 2)
            case "pct":
                return value if isinstance(value, str) else percentage(value, lang)  # "<1%" where a share is small
            case "pt":
                return number(None if value is None else 100 * value, lang, 1, signed=True)
            case "euro":
                return "€ " + number(value, lang)
            case "date":
                return date(value, lang)
            case "":
                if isinstance(value, bool) or not isinstance(value, int | float):
                    return date(value, lang) if isinstance(value, dt.date) else str(value)
                return number(value, lang, 0 if isinstance(value, int) else 2)
        return str(super().format_field(value, spec))


def say(key: str, lang: str = "en", /, **params: Any) -> str:
    """The sentence under a key, filled in.

    Raises
    ------
    KeyError
        When the catalogue has no such key or the sentence asks for a parameter that is not given.
    """
    return _Formatter(lang).format(catalogue(lang)[key], **params)


def known(key: str, lang: str = "en") -> bool:
    """Whether the catalogue has a sentence under the key."""
    return key in catalogue(lang)
