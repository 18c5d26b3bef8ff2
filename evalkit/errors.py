"""The exception tree: every fault has a stable code, a place and a remedy, in the reader's language.

A fault never carries a value from a data row: its parameters are names, counts, limits and positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from evalkit.text import say


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, as a message code with its parameters.

    Parameters
    ----------
    code:
        Stable code such as ``study.unknown_key``; the sentences stand in the text catalogues
        under ``fault.<code>.say`` (what is wrong) and ``fault.<code>.fix`` (what to do).
    params:
        Names, counts and limits that fill the sentences. Never a value from a data row.
    place:
        Where: ``study.toml line 14``, ``benefits.end``. Empty when there is no place.
    """

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def message(self, lang: str = "en") -> str:
        """What is wrong, in one sentence."""
        return say(f"fault.{self.code}.say", lang, **self.params)

    def remedy(self, lang: str = "en") -> str:
        """What to do about it."""
        return say(f"fault.{self.code}.fix", lang, **self.params)

    def text(self, lang: str = "en") -> str:
        """Place, message and remedy on one line, as the command line prints it."""
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.message(lang)} {self.remedy(lang)} [{self.code}]"


class EvalkitError(Exception):
    """Base of all errors of evalkit; ``exit_code`` is what the command line returns."""

    exit_code = 1

    def __init__(self, faults: Fault | Iterable[Fault]):
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__(self.text("en"))

    def text(self, lang: str = "en") -> str:
        """All faults, one a line."""
        return "\n".join(fault.text(lang) for fault in self.faults)


class UsageError(EvalkitError):
    """The command or the function was called in a way that cannot be answered."""

    exit_code = 2


class StudyError(EvalkitError):
    """The study file is wrong; all its faults together."""

    exit_code = 2


class DataError(EvalkitError):
    """The data cannot be read or contradict the study file."""

    exit_code = 3


class DesignError(EvalkitError):
    """The data do not support the design: nobody treated, nobody to compare with, no variation."""

    exit_code = 4


class DisclosureError(EvalkitError):
    """Something was about to leave that may not."""

    exit_code = 5
