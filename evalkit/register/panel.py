"""A ready panel file, one row a unit and period; and the days on which units adopted an instrument."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evalkit.errors import DataError, Fault
from evalkit.register import checks
from evalkit.register.dialect import AUTO, Notice, cell_texts, settle, unheard
from evalkit.register.engine import Engine
from evalkit.register.reader import Raw, check_columns
from evalkit.register.schema import Check, Field, Input, Kind, Quarantined
from evalkit.register.sources import read_source
from evalkit.register.table import yes_no

if TYPE_CHECKING:
    from pathlib import Path

    from evalkit.study import Format, Study
    from evalkit.study.model import PanelSpec, Source

_NAME = "panel"
_WHOLE = re.compile(r"[+-]?\d{1,4}([.,]0+)?")


@dataclass(frozen=True)
class PanelTable:
    """A ready panel, sorted by all its columns, unit and period first.

    Parameters
    ----------
    columns:
        By own name: unit, cluster, categorical columns as text (object, None when empty), period and first treated
        period as float64 or datetime64[D], the others as float64 with NaN.
    inputs, findings, quarantine:
        As in ``Register``.
    """

    columns: Mapping[str, np.ndarray] = field(repr=False)
    inputs: tuple[Input, ...]
    findings: tuple[Check, ...]
    quarantine: tuple[Quarantined, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))


def _kind_of_time(raw: Raw, own: str) -> Kind:
    """Whether a column of periods holds numbers of at most four digits, or dates."""
    if own not in raw.header:
        return "number"
    column = raw.table.column(f"c{raw.header.index(own)}")
    if not pa.types.is_string(column.type):
        return "date" if pa.types.is_temporal(column.type) else "number"
    texts = pc.unique(cell_texts(column)).to_pylist()
    return "number" if all(_WHOLE.fullmatch(text) for text in texts) else "date"


def _fields(study: Study, spec: PanelSpec, raw: Raw) -> tuple[Field, ...]:
    """The columns that the study uses; inside the engine they go by position, since own names may be anything."""
    cut = [group.name for group in study.subgroups if group.cuts]
    numbers = [*spec.outcomes.values(), spec.weight, spec.persons, *study.covariates.numeric, *cut]
    texts = [spec.treated, spec.cluster, *study.covariates.categorical, *(group.name for group in study.subgroups)]
    kinds: dict[str, Kind] = {spec.unit: "text", spec.period: _kind_of_time(raw, spec.period)}
    if spec.first_treated:
        kinds[spec.first_treated] = _kind_of_time(raw, spec.first_treated)
    kinds = {**dict.fromkeys(texts, "text"), **dict.fromkeys(numbers, "number"), **kinds}
    order = dict.fromkeys([spec.unit, spec.period, *kinds])
    return tuple(Field(f"x{i}", kinds[own], own) for i, own in enumerate(name for name in order if name))


def _read(
    source: Source,
    folder: Path,
    layout: Format,
    place: str,
    settings: str,
    notice: Notice,
    fields: Callable[[Raw], tuple[Field, ...]],
) -> tuple[dict[str, np.ndarray], Raw, tuple[Check, ...], tuple[Quarantined, ...]]:
    """A file with its columns typed and its rows sorted; ``fields``: which columns, once the file is open."""
    raw = read_source(source, folder, layout, place)
    columns = fields(raw)
    found, aside, faults = checks.records(place, raw)
    faults += check_columns(raw, {column.name: column.own for column in columns}, layout, place)
    raw, dialect, unsettled = settle(raw, columns, layout, settings)
    notice(dialect)
    if faults or unsettled:
        raise DataError([*faults, *unsettled])
    engine = Engine()
    if layout.date != AUTO:
        engine.check_date_format(layout.date, f"{settings}.date")
    typed = engine.type_table("__typed", raw.table, raw.header, columns, raw.layout or layout)
    if wrong := checks.not_numeric(columns, typed, place):
        raise DataError(wrong)
    names = [column.name for column in columns]
    engine.keep_sorted(_NAME, typed.select(*names), names)
    arrays = engine.arrays(_NAME)
    return {column.own: arrays[column.name] for column in columns}, raw, tuple(found), tuple(aside)


def read_panel(study: Study, notice: Notice = unheard) -> PanelTable:
    """Read and check the ready panel of a study. What its rows must be to each other is checked when it is used.

    Raises
    ------
    DataError
        Besides the faults of files and columns: ``data.not_numeric``, ``data.no_dates``, ``data.treatment_values``
        (anything but 0/1, ja/nee, yes/no, true/false).
    """
    spec = study.panel
    if spec is None:
        raise DataError(Fault("data.not_a_panel", {}, "panel"))
    columns, raw, found, aside = _read(
        spec, study.path.parent, spec.format, "panel", "panel.format", notice, lambda raw: _fields(study, spec, raw)
    )
    if spec.treated:
        values = columns[spec.treated]
        columns[spec.treated] = yes_no(values)
        wrong = int(np.isnan(columns[spec.treated]).sum())
        if wrong:
            params = {"column": spec.treated, "count": wrong}
            raise DataError(Fault("data.treatment_values", params, "panel.treated"))
    noticed = []
    numeric = [*spec.outcomes.values(), *study.covariates.numeric]
    for name in dict.fromkeys(numeric):
        if count := int(np.isnan(columns[name]).sum()):
            noticed.append(Check("value_missing", "info", _NAME, count, count / len(columns[name]), {"column": name}))
    return PanelTable(columns, (Input(raw.name, raw.sha256, raw.rows),), (*found, *noticed), aside)


def read_adopted(study: Study, notice: Notice = unheard) -> tuple[dict[str, dt.date], tuple[Input, ...]]:
    """The day on which each unit adopted the instrument, as text by unit; empty where the study gives none.

    Raises
    ------
    DataError
        Besides the faults of files and columns: ``data.adopted_empty`` (a unit or a day is missing),
        ``data.duplicate_units``.
    """
    treatment = study.treatment
    source = treatment.adopted_from
    if source is None or study.data is None:
        return dict(treatment.adopted or {}), ()
    wanted = (Field("x0", "text", source.unit), Field("x1", "date", source.day))
    place = "treatment.adopted_from"
    columns, raw, _, _ = _read(source, study.folder, study.data.format, place, "data.format", notice, lambda _: wanted)
    units, days = columns[source.unit], columns[source.day]
    absent = np.array([unit is None for unit in units], bool) | np.isnat(days)
    if absent.any():
        raise DataError(Fault("data.adopted_empty", {"count": int(absent.sum())}, place))
    twice = len(units) - len(set(units.tolist()))
    if twice:
        raise DataError(Fault("data.duplicate_units", {"column": source.unit, "count": twice}, f"{place}.unit"))
    made = {str(unit): day.item() for unit, day in zip(units, days, strict=True)}
    return made, (Input(raw.name, raw.sha256, raw.rows),)
