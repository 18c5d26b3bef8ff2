"""An analysis-ready file: one row a unit, with treatment, covariates and outcomes by period as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import narwhals as nw
import numpy as np

from evalkit.errors import DataError, Fault
from evalkit.register import checks
from evalkit.register.dialect import AUTO, Notice, settle, unheard
from evalkit.register.engine import Engine
from evalkit.register.reader import check_columns
from evalkit.register.schema import Check, Field, Input, Kind, Quarantined, by_arm
from evalkit.register.sources import read_source

if TYPE_CHECKING:
    from evalkit.study import Study, TableData

_NAME = "table"
_YES_NO = {**dict.fromkeys(("0", "0.0", "0,0", "nee", "false", "no"), 0.0)}
_YES_NO |= dict.fromkeys(("1", "1.0", "1,0", "ja", "true", "yes"), 1.0)


@dataclass(frozen=True)
class Table:
    """An analysis-ready table, sorted by unit.

    Parameters
    ----------
    columns:
        By own name: the unit and categorical columns as text (object, None when empty), the treatment as float64 0
        or 1, outcomes and numeric columns as float64 with NaN.
    inputs, findings, quarantine:
        As in ``Register``.
    """

    columns: Mapping[str, np.ndarray] = field(repr=False)
    inputs: tuple[Input, ...]
    findings: tuple[Check, ...]
    quarantine: tuple[Quarantined, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))


def _fields(study: Study, spec: TableData) -> tuple[Field, ...]:
    """The columns that the study uses: unit, treatment, then the others, numeric when any use of them is.

    Inside the engine they go by position, since own names may be anything.
    """
    numeric = [*spec.periods, *study.covariates.numeric, *(group.name for group in study.subgroups if group.cuts)]
    text = [*study.covariates.categorical, *(group.name for group in study.subgroups)]
    if study.treatment.cluster != "person":
        text.append(study.treatment.cluster)
    names = dict.fromkeys([spec.unit, spec.treatment, *numeric, *text])
    kinds: list[Kind] = ["key", "text", *("number" if name in numeric else "text" for name in list(names)[2:])]
    return tuple(Field(f"x{i}", kind, own) for i, (own, kind) in enumerate(zip(names, kinds, strict=True)))


def yes_no(values: np.ndarray) -> np.ndarray:
    """Words for yes and no as 1 and 0; NaN for any other word."""
    words = [str(value).casefold() for value in values]
    return np.array([_YES_NO.get(word, np.nan) for word in words], np.float64)


def read_table(study: Study, notice: Notice = unheard) -> Table:
    """Read and check the analysis-ready file of a study.

    Rows without unit or treatment are set aside and counted. Empty outcomes and covariates stay, as missing.

    Raises
    ------
    DataError
        Besides the faults of files and columns: ``data.duplicate_units``, ``data.treatment_values`` (anything but
        0/1, ja/nee, yes/no, true/false), ``data.not_numeric``, ``data.no_rows``.
    """
    spec = study.table
    if spec is None:
        raise DataError(Fault("data.not_a_table", {}, "table"))
    fields = _fields(study, spec)
    raw = read_source(spec, study.path.parent, spec.format, "table")
    found, aside, faults = checks.records(_NAME, raw)
    faults += check_columns(raw, {column.name: column.own for column in fields}, spec.format, _NAME)
    raw, dialect, unsettled = settle(raw, fields, spec.format, "table.format")
    notice(dialect)
    if faults or unsettled:
        raise DataError([*faults, *unsettled])
    engine = Engine()
    if spec.format.date != AUTO:
        engine.check_date_format(spec.format.date, "table.format.date")
    typed = engine.type_table("__typed", raw.table, raw.header, fields, raw.layout or spec.format)

    unit, treatment = (column.name for column in fields[:2])
    rules = (
        checks.Rule("unit_missing", nw.col(unit).is_null(), spec.unit),
        checks.Rule("treatment_missing", nw.col(treatment).is_null(), spec.treatment),
    )
    sifted = engine.keep("__sifted", checks.sift(typed, rules, fields, duplicate=""))
    counts = checks.reasons(sifted)
    dropped, more = checks.set_aside(_NAME, rules, counts, sum(counts.values()))
    usable = sifted.filter(nw.col(checks.REASON).is_null())
    faults += checks.not_numeric(fields, usable)
    engine.keep_sorted(_NAME, usable.select(*(column.name for column in fields)), [unit])
    arrays = engine.arrays(_NAME)

    units = arrays[unit]
    if len(units) == 0:
        codes = ", ".join(check.code for check in dropped)
        faults.append(Fault("data.no_rows", {"table": _NAME, "count": raw.rows, "checks": codes}, _NAME))
    repeated = int((units[1:] == units[:-1]).sum())
    if repeated:
        faults.append(Fault("data.duplicate_units", {"column": spec.unit, "count": repeated}, "table.unit"))
    arrays[treatment] = yes_no(arrays[treatment])
    wrong = int(np.isnan(arrays[treatment]).sum())
    if wrong:
        params = {"column": spec.treatment, "count": wrong}
        faults.append(Fault("data.treatment_values", params, "table.treatment"))
    if faults:
        raise DataError(faults)
    columns = {column.own: arrays[column.name] for column in fields}
    inputs = (Input(raw.name, raw.sha256, raw.rows),)
    noticed = _values(study, spec, columns)
    return Table(columns, inputs, (*found, *dropped, *noticed), (*aside, *more))


def _values(study: Study, spec: TableData, columns: Mapping[str, np.ndarray]) -> Iterator[Check]:
    """Checks of the values in outcomes and covariates, by arm."""
    treated = columns[spec.treatment] == 1
    totals = {arm: int((treated == arm).sum()) for arm in (True, False)}
    for name in dict.fromkeys(spec.periods):
        gap = np.isnan(columns[name])
        if count := int(gap.sum()):
            arms = by_arm({arm: int((gap & (treated == arm)).sum()) for arm in (True, False)}, totals)
            yield Check("value_missing", "info", _NAME, count, count / len(gap), {"column": name}, arms=arms)
    numeric = set(study.covariates.numeric) | {group.name for group in study.subgroups if group.cuts}
    used = [*study.covariates.numeric, *study.covariates.categorical, *(group.name for group in study.subgroups)]
    for name in dict.fromkeys(used):
        ones = np.ones(len(treated), np.int64)
        column = checks.Column(name, columns[name], treated, ones, name in numeric, study.disclosure.minimum)
        yield from checks.column_checks(_NAME, column)
