"""Writes simulated tables as a municipality would deliver them: CSV in Dutch or in English export style."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evalkit.effects import generator
from evalkit.simulate.draw import Tables
from evalkit.simulate.truth import TrueEffect, document

_MOVED = 1 / 3


@dataclass(frozen=True)
class Style:
    """How a CSV file is written."""

    delimiter: str
    decimal: str
    date: str
    encoding: str
    newline: str


@dataclass(frozen=True)
class _Export:
    """One export: file names, headings in the order of the fixed columns, words for fixed codes."""

    files: tuple[str, str, str]
    headings: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    words: Mapping[str, Mapping[str, str]]
    style: Style


_EXPORTS = {
    "nl": _Export(
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
        Style(";", ",", "%d-%m-%Y", "cp1252", "\r\n"),
    ),
    "en": _Export(
        ("persons.csv", "benefits.csv", "episodes.csv"),
        (
            ("person", "sex", "birth_year", "education", "household", "distance"),
            ("person", "start", "end", "reason"),
            ("person", "type", "start", "end", "planned_end", "referral"),
        ),
        {},
        Style(",", ".", "%Y-%m-%d", "utf-8", "\n"),
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
    export = _EXPORTS[lang]
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rng = generator(tables.seed, "write")
    frames = (tables.persons, _with_moves(tables.benefits, rng), tables.episodes)
    paths = []
    for name, headings, frame in zip(export.files, export.headings, frames, strict=True):
        shuffled = frame.iloc[rng.permutation(len(frame))]
        columns = [_worded(shuffled[column], export) for column in frame.columns]
        text = text_of(dict(zip(headings, columns, strict=True)), export.style)
        paths.append(target / name)
        paths[-1].write_bytes(text.encode(export.style.encoding))
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


def _worded(column: pd.Series, export: _Export) -> pd.Series:
    """Codes in the words of an export."""
    words = export.words.get(str(column.name))
    return column if words is None else column.map(words)


def text_of(columns: Mapping[str, Any], style: Style) -> str:
    """A CSV file with some columns under their headings, dates as text."""
    cells = {name: _cells(column, style.date) for name, column in columns.items()}
    text: str = pd.DataFrame(cells).to_csv(
        None, index=False, sep=style.delimiter, decimal=style.decimal, lineterminator=style.newline
    )
    return text


def _cells(column: Any, date: str) -> Any:
    if column.dtype.kind != "M":
        return np.asarray(column) if column.dtype == object else column.array
    codes, days = pd.factorize(column)  # few distinct days, so that formatting costs nothing
    return np.append(pd.DatetimeIndex(days).strftime(date).to_numpy(object), "")[codes]
