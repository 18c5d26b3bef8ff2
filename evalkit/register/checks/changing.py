"""What is looked for in the tables of values that change: by person and day, and by area and month."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from types import MappingProxyType

import narwhals as nw

from evalkit.register.checks.facts import whole_months
from evalkit.register.checks.rows import Rule

_c = nw.col
_CONFLICT = (_c("lowest") != _c("highest")).fill_null(False)

CHANGING_RULES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    {
        "changes": (
            Rule("change_conflict", _CONFLICT, "value"),
            Rule("change_overlap", (_c("start") <= _c("before")) & (_c("start") != _c("start_1")), "end", "info"),
            Rule("change_after_window", _c("start") > _c("last_day"), "start", "info"),
            Rule("change_registered_late", whole_months(_c("start"), _c("registered")) >= 1, "registered", "info"),
        ),
        "areas": (Rule("figure_conflict", _CONFLICT, "value"),),
    }
)
"""By kind of table: what is counted in its rows. A rule whose column the study does not map is passed over."""


def changing_facts(form: str, frame: nw.LazyFrame, last_day: dt.date) -> nw.LazyFrame:
    """The rows of a table with the lowest and highest value of those that say something about the same moment.

    With the day of registration mapped, a later registration is a correction and no contradiction.
    """
    same = ["area", "month"]
    if form == "changes":
        same = ["person", "start", *(name for name in ("registered",) if name in frame.collect_schema().names())]
        latest = nw.col("end").cum_max().over("person", order_by="change")
        frame = frame.with_columns(latest=latest, last_day=nw.lit(last_day))
        frame = frame.with_columns(
            before=nw.col("latest").shift(1).over("person", order_by="change"),
            start_1=nw.col("start").shift(1).over("person", order_by="change"),
        )
    return frame.with_columns(lowest=nw.col("value").min().over(*same), highest=nw.col("value").max().over(*same))


def without_figures(frame: nw.LazyFrame, column: str, figures: nw.LazyFrame) -> nw.LazyFrame:
    """The filled rows of a table with ``__told``: whether there are figures of the area in ``column``."""
    known = figures.select(nw.col("area").alias("__area")).unique().with_columns(nw.lit(True).alias("__told"))
    filled = frame.filter(~nw.col(column).is_null()).with_columns(nw.col(column).alias("__area"))
    return filled.join(known, on="__area", how="left").with_columns(nw.col("__told").fill_null(False))
