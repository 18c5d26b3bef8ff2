"""A twin in the layout of the study: its files, columns, codes and notation, and a study file that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit import calendar, layouts
from evalkit.analyses import all_settings
from evalkit.calendar import day_number
from evalkit.effects import generator
from evalkit.register.schema import Field, fields
from evalkit.register.sources import kind_of
from evalkit.simulate.aggregates import Layout
from evalkit.simulate.draw import Tables, dates
from evalkit.simulate.write import Style, text_of
from evalkit.study import Study, TableSpec, parse
from evalkit.study.editing import edited
from evalkit.study.lines import KeyPath
from evalkit.text import say

REST = "*"


def table_files(study: Study) -> dict[str, str]:
    """The file of each table of the twin, inside the data folder: the study's own where that is CSV, one a table."""
    assert study.data is not None
    names: dict[str, str] = {}
    for table, spec in study.data.tables.items():
        own = PurePosixPath(spec.file.replace("\\", "/"))
        stem = own.with_suffix("") if spec.file else PurePosixPath(table)
        for name in (str(own) if _stays(spec) else "", f"{stem}.csv", f"{stem}_{table}.csv", f"{table}.csv"):
            if name and name not in names.values():
                names[table] = name
                break
    return names


def _stays(spec: TableSpec) -> bool:
    return kind_of(spec) == "csv"


def table_contents(study: Study, tables: Tables, written: Mapping[str, Layout]) -> dict[str, bytes]:
    """The tables as files in the study's own layout, rows shuffled, by name inside the data folder."""
    assert study.data is not None
    names = table_files(study)
    rng = generator(tables.seed, "twin files")
    made = {}
    for table, spec in study.data.tables.items():
        kind, _, one = table.partition(".")
        frame = tables.changes[one] if one else getattr(tables, kind)
        if "month" in spec.columns:
            frame = _statements(frame, study)
        frame = frame.iloc[rng.permutation(len(frame))]
        columns: dict[str, Any] = {}
        for field in fields(study, table):
            if field.name in spec.columns:
                columns |= _own(field, frame)
        how = written.get(table, Layout())
        style = Style(how.delimiter, how.decimal, how.date, how.encoding, "\n")
        made[names[table]] = text_of(columns, style).encode(how.encoding, errors="replace")
    return made


def _own(field: Field, frame: pd.DataFrame) -> dict[str, Any]:
    """The column or columns of a file that stand for one fixed column."""
    if field.kind == "key":
        return _key(field, frame["person"])
    if field.name == "registered":
        values = frame["start"]
    elif field.name in frame:
        values = frame[field.name]
    else:  # nothing is told of it
        values = pd.Series(np.full(len(frame), None, object))
    if field.codes is not None:
        known = {fixed: own_code(fixed, field.codes) for fixed in pd.unique(values.dropna())}
        values = values.map(known)
    elif field.kind in ("number", "integer") and not (values.astype(float) % 1).any():
        values = values.astype(float).astype("Int64")
    return dict.fromkeys(field.parts or (field.own,), values)


def _key(field: Field, ids: pd.Series) -> dict[str, Any]:
    """A pseudonym; of a key that is composed of columns the last one holds it."""
    if not field.parts:
        return {field.own: ids}
    *fore, last = zip(field.parts, field.widths, strict=True)
    number = ids.str[1:] if not last[1] else ids.str[1:].str.zfill(last[1])
    return {part: np.full(len(ids), "T", object) for part, _ in fore} | {last[0]: number}


def own_code(fixed: str, codes: Mapping[str, str]) -> str:
    """One own code for a fixed code; a name of its own where only "all others" or nothing stands for it.

    ``codes``: own code to fixed code.
    """
    listed = [own for own, of in codes.items() if of == fixed and own not in (REST, "")]
    if listed:
        return listed[0]
    if "" in codes and codes[""] == fixed:
        return ""
    name = fixed
    while name in codes:
        name += "_"
    return name


def _statements(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """A row for every calendar month of the window in which a row holds; end and reason stand in the last one only."""
    assert study.data is not None
    first, last = (day_number(day) for day in (study.data.window.first, study.data.window.last))
    start, end = calendar.to_days(frame["start"]), calendar.to_days(frame["end"])
    begin, until = calendar.month_number(np.maximum(start, first)), calendar.month_number(np.minimum(end, last))
    number = np.maximum(until - begin + 1, 0)
    row = np.repeat(np.arange(len(frame)), number)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
    final = nth == number[row] - 1
    month: NDArray[Any] = dates(calendar.month_start(begin[row] + nth))
    made = frame.iloc[row].reset_index(drop=True)
    made["month"] = pd.DatetimeIndex(month).strftime("%Y-%m")
    made.loc[~final, "end"] = pd.NaT
    if "reason" in made:
        made.loc[~final, "reason"] = None
    return made


# -- the study file -------------------------------------------------------------------------------------------------


def study_text(study: Study) -> str:
    """The study file with the twin's files in it and titles that say what it is; all else stays as it is."""
    assert study.data is not None
    values: dict[KeyPath, str] = {
        ("title", lang): say("twin.title", lang, title=title)
        for lang, title in study.title.items()
        if not title.startswith(say("twin.title", lang, title="").strip())  # a twin of a twin
    }
    without: list[KeyPath] = []
    for table, name in table_files(study).items():
        spec, place = study.data.tables[table], ("data", *table.split("."))
        if name != spec.file.replace("\\", "/"):
            values[(*place, "file")] = name
            without += [(*place, key) for key in ("database", "table", "sheet") if getattr(spec, key)]
    text = edited(study.text, values, without)
    lang = study.languages[0]
    return f"# {say('twin.header', lang)}\n{text}"


def check_text(study: Study, text: str) -> None:
    """Make sure that the study of the twin is the same study but for its titles and files."""
    made = parse(text, study.path, all_settings())
    files = table_files(study)
    assert made.data is not None and study.data is not None
    same = made.protocol() | {"title": None, "data": None} == study.protocol() | {"title": None, "data": None}
    placed = {table: spec.file.replace("\\", "/") for table, spec in made.data.tables.items()}
    if not same or placed != files:
        raise AssertionError("the study file of the twin is another study")


def code_lists(study: Study) -> dict[str, bytes]:
    """The user's own code lists, which hold no data rows, by path inside the study folder."""
    if study.data is None or not study.data.codelists:
        return {}
    folder = study.path.parent / study.data.codelists
    known = layouts.list_names()
    return {
        f"{study.data.codelists}/{path.name}": path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".csv" and path.stem in known
    }
