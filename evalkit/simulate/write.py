"""Writes simulated tables as a municipality would deliver them: CSV in Dutch or in English export style."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit.effects import generator
from evalkit.simulate.draw import Tables
from evalkit.simulate.truth import TrueEffect, document

_MOVED = 1 / 3


@dataclass(frozen=True)
class _Style:
    """One export style: file names, headings in the order of the fixed columns, words for fixed codes."""

    files: tuple[str, str, str]
    headings: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    words: Mapping[str, Mapping[str, str]]
    delimiter: str
    decimal: str
    date: str
    encoding: str
    newline: str


_STYLES = {
    "nl": _Style(
        ("personen.csv", "uitkeringen.csv", "trajecten.csv"),
        (
            ("pseudoniem", "geslacht", "geboortejaar", "opleiding", "huishouden", "afstand"),
            ("pseudoniem", "ingang", "laatste_dag", "reden"),
            ("pseudoniem", "soort", "start", "einde", "gepland_einde", "aanmelding"),
        ),
        {
            "sex": {"man": "man", "woman": "vrouw"},
            "education": {"low": "laag", "middle": "midden", "high": "hoog"},
            "household": {"single": "alleenstaand", "couple": "paar", "single_parent": "alleenstaande ouder"},
            "reason": {"work": "werk", "education": "opleiding", "moved": "verhuizing", "other": "overig"},
            "type": {"training": "scholing", "coaching": "coaching"},
        },
        ";",
        ",",
        "%d-%m-%Y",
        "cp1252",
        "\r\n",
    ),
    "en": _Style(
        ("persons.csv", "benefits.csv", "episodes.csv"),
        (
            ("person", "sex", "birth_year", "education", "household", "distance"),
            ("person", "start", "end", "reason"),
            ("person", "type", "start", "end", "planned_end", "referral"),
        ),
        {},
        ",",
        ".",
        "%Y-%m-%d",
        "utf-8",
        "\n",
    ),
}


def write(
    folder: str | Path,
    tables: Tables,
    lang: str = "nl",
    truth: Mapping[str, TrueEffect] | Mapping[str, Mapping[str, TrueEffect]] | None = None,
    study_text: str | None = None,
) -> tuple[Path, ...]:
    """Write the tables as CSV files, their rows shuffled, and return the paths.

    ``nl``: personen.csv, uitkeringen.csv, trajecten.csv with semicolons, decimal comma, dd-mm-yyyy, cp1252 and CRLF,
    categories in Dutch. ``en``: persons.csv, benefits.csv, episodes.csv with commas, ISO dates and UTF-8. A third of
    the persons whose last spell ended for another reason moved away (``verhuizing``, ``moved``). ``truth`` is written
    as truth.json, ``study_text`` as study.toml.
    """
    style = _STYLES[lang]
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rng = generator(tables.seed, "write")
    frames = (tables.persons, _with_moves(tables.benefits, rng), tables.episodes)
    paths = []
    for name, headings, frame in zip(style.files, style.headings, frames, strict=True):
        shuffled = frame.iloc[rng.permutation(len(frame))]
        columns = [_cells(shuffled[column], style) for column in frame.columns]
        path = target / name
        pd.DataFrame(dict(zip(headings, columns, strict=True))).to_csv(
            path,
            index=False,
            sep=style.delimiter,
            decimal=style.decimal,
            encoding=style.encoding,
            lineterminator=style.newline,
        )
        paths.append(path)
    if truth is not None:
        paths.append(target / "truth.json")
        paths[-1].write_text(json.dumps(document(truth), indent=1) + "\n", encoding="utf-8")
    if study_text is not None:
        paths.append(target / "study.toml")
        paths[-1].write_text(study_text, encoding="utf-8")
    return tuple(paths)


def _with_moves(benefits: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    person = benefits["person"].to_numpy()
    final = np.append(person[1:] != person[:-1], True)
    moved = final & (benefits["reason"] == "other").to_numpy() & (rng.random(len(benefits)) < _MOVED)
    return benefits.assign(reason=benefits["reason"].mask(moved, "moved"))


def _cells(column: pd.Series, style: _Style) -> NDArray[Any]:
    """Values as they stand in the file: dates as text, codes in the words of the style."""
    if column.dtype.kind == "M":
        codes, days = pd.factorize(column)  # few distinct days, so that formatting costs nothing
        return np.append(pd.DatetimeIndex(days).strftime(style.date).to_numpy(object), "")[codes]
    words = style.words.get(str(column.name))
    return column.to_numpy() if words is None else column.map(words).to_numpy()
