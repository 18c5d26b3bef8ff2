"""Who is compared with whom, and whether the two groups look alike: flow chart, tables and charts of the methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.report import figures
from evalkit.report.blocks import Block, Flow, FlowArm, FlowBox, Fold, Grid, Heading, Picture, Section, Text
from evalkit.report.view import View, capital, finite, inner, is_randomised

Exhibit = Mapping[str, Any]

LONG = 12
"""Tables with more rows fold away."""

DATA_ROWS = 40
"""The table under a chart shows at most about this many points."""

DOTS = 30
"""Named points in one chart at most: the largest; the table has all."""

ALIKE = ("balance", "love", "overlap")
"""Exhibits that show whether the groups look alike; every other one tells who is compared or how."""

APPENDIX = ("model", "duration_model")

DOUBTS = (
    "placebo", "e_value", "robustness", "benchmarks", "rosenbaum", "simulated_confounder", "did_power", "did_honest",
    "did_bacon", "did_leave_out", "did_placebo_dates", "did_rings", "did_composition", "duration_points",
    "duration_proportional", "duration_rate",
)  # fmt: skip
"""Titles of exhibits on what may have been missed."""

TABLE_ONE = ("variable", "level", "measure", "mean_treated", "mean_treated_after", "mean_before", "mean_after")
SPREAD = {"mean_treated": "sd_treated", "mean_before": "sd_before", "mean_after": "sd_after"}
"""Means that are shown with their standard deviation behind them."""

REGISTER_ROWS = ("what.comparison_entries_used",)
"""Rows that say nothing in a study on an analysis-ready table, where a person counts once."""

AFTER = {"mean_after": "mean_before", "smd_after": "smd_before", "vr_after": "vr_before"}
"""Columns that repeat another one where nothing was made comparable, as after a draw by lot."""

ALONE = {"mean_before": "mean_comparison", "smd_before": "smd", "vr_before": "vr"}
"""What the columns that remain are called then."""


def compared(view: View) -> Section:
    """The flow chart, then every exhibit on who was compared."""
    blocks: list[Block] = [Text(view.say("report.people.reading"))]
    blocks += _flow(view)
    elsewhere = (*ALIKE, *APPENDIX)
    found = [e for e in _shown(view) if e["analysis"] and e["id"] not in elsewhere and e["title"] not in DOUBTS]
    blocks += _exhibits(view, found)
    return Section("people", view.say("report.section.people"), tuple(blocks))


def alike(view: View) -> Section | None:
    """Balance, love plot and overlap; None when no analysis shows any."""
    found = [e for e in _shown(view) if e["id"] in ALIKE]
    if not found:
        return None
    key = "report.alike.reading_lot" if _randomised(view) else "report.alike.reading"
    limit = float((view.protocol.get("gate") or {}).get("smd_warn", 0.1))
    blocks = [Text(view.say(key, limit=limit)), *_exhibits(view, found)]
    return Section("alike", view.say("report.section.alike"), tuple(blocks))


def doubts(view: View) -> Section | None:
    """What could have been missed, and how much it would take; None when no analysis looked."""
    found = [e for e in _shown(view) if e["title"] in DOUBTS]
    if not found:
        return None
    blocks = [Text(view.say("report.doubts.reading")), *_exhibits(view, found)]
    return Section("doubts", view.say("report.section.doubts"), tuple(blocks))


def described(view: View) -> Section | None:
    """What the data hold, whatever the analysis: exhibits that belong to none; None when there are none."""
    found = [e for e in _shown(view) if not e["analysis"]]
    if not found:
        return None
    blocks = [Text(view.say("report.described.reading")), *_exhibits(view, found)]
    return Section("described", view.say("report.section.described"), tuple(blocks))


def appendix(view: View) -> list[Block]:
    """Exhibits for the referee."""
    return _exhibits(view, [e for e in _shown(view) if e["id"] in APPENDIX])


def _randomised(view: View) -> bool:
    return view.lead is not None and is_randomised(view.lead)


def _shown(view: View) -> list[Exhibit]:
    """Tables and charts; a table under a chart of the same name is the chart's own."""
    found = [e for e in view.document.get("exhibits") or () if e["type"] in ("table", "chart")]
    drawn = {(e["analysis"], e["id"]) for e in found if e["type"] == "chart"}
    return [e for e in found if e["type"] == "chart" or (e["analysis"], e["id"]) not in drawn]


# -- flow -----------------------------------------------------------------------------------------------------------


def _flow(view: View) -> list[Block]:
    steps = view.document.get("flow") or []
    arms = []
    for arm in dict.fromkeys(step["arm"] for step in steps):
        boxes: list[FlowBox] = []
        out: list[tuple[str, str, str]] = []
        for step in (s for s in steps if s["arm"] == arm):
            words = view.reason(step["reason"])
            if step["kind"] == "out":
                out.append((words, *_counts(view, step)))
                continue
            if boxes:
                last = boxes[-1]
                boxes[-1] = FlowBox(last.text, last.count, last.second, tuple(out))
                out = []
            boxes.append(FlowBox(words, *_counts(view, step)))
        arms.append(FlowArm(_arm(view, arm), tuple(boxes), arm == "treated"))
    if not arms:
        return []
    return [
        Heading(view.say("report.flow.title")),
        Text(
            view.say(
                "report.flow.reading" if _entries_differ(steps) else "report.flow.reading_persons", minimum=view.minimum
            )
        ),
        Flow(view.say("report.flow.label"), tuple(arms)),
    ]


def _entries_differ(steps: Sequence[Mapping[str, Any]]) -> bool:
    return any(step["persons"] != step["entries"] for step in steps)


def _arm(view: View, arm: str) -> str:
    if arm == "treated" and view.lead:
        return view.say("report.flow.treated", instrument=inner(view.word(view.lead["labels"]["instrument"])))
    return view.term("report.flow", arm)


def _counts(view: View, step: Mapping[str, Any]) -> tuple[str, str]:
    """Persons, and the starts or person-months they stand for where that is another number."""
    persons = view.say("report.flow.persons", count=view.count(step["persons"]))
    if step["entries"] == step["persons"] or step["entries"] is None:
        return persons, ""
    unit = "starts" if step["arm"] == "treated" else "person_months"
    return persons, view.say(f"report.flow.{unit}", count=view.count(step["entries"]))


# -- exhibits -------------------------------------------------------------------------------------------------------


def _exhibits(view: View, exhibits: Sequence[Exhibit]) -> list[Block]:
    """Exhibits under one heading a title; the analysis is named when there are several."""
    several = len({e["analysis"] for e in _shown(view)} - {""}) > 1
    blocks: list[Block] = []
    last = ("", "")
    for exhibit in exhibits:
        title = view.term("exhibit", exhibit["title"])
        if several and exhibit["analysis"]:
            title = view.say("report.people.of_analysis", title=title, analysis=view.analysis(exhibit["analysis"]))
        if (exhibit["analysis"], title) != last:
            blocks.append(Heading(title))
            last = (exhibit["analysis"], title)
            key = f"report.exhibit.{exhibit['title']}"
            if view.known(key):
                blocks.append(Text(view.say(key)))
        if exhibit["id"] == "balance":
            blocks += _balance(view, exhibit, title)
        else:
            blocks.append(_table(view, exhibit, title) if exhibit["type"] == "table" else _chart(view, exhibit, title))
    return blocks


def _balance(view: View, exhibit: Exhibit, title: str) -> list[Block]:
    """One exhibit, two tables: who they are (the Table 1 of a paper) and how alike the groups are."""
    counts = [c["key"] for c in exhibit["columns"] if c["role"] == "count"]
    if not any(c["key"] in SPREAD.values() for c in exhibit["columns"]):
        return [_table(view, exhibit, title)]
    people = _columns(exhibit, (*TABLE_ONE, *SPREAD.values(), *counts))
    means = (*TABLE_ONE[3:], *SPREAD.values(), *counts)
    alike = _columns(exhibit, [c["key"] for c in exhibit["columns"] if c["key"] not in means])
    return [_table(view, people, title), _table(view, alike, view.say("exhibit.alike_table"))]


def _columns(exhibit: Exhibit, keys: Sequence[str]) -> Exhibit:
    return dict(exhibit) | {"columns": [c for c in exhibit["columns"] if c["key"] in keys]}


def _table(view: View, exhibit: Exhibit, title: str) -> Block:
    gone = REGISTER_ROWS if view.table else ()
    kept = [index for index, row in enumerate(exhibit["rows"]) if not set(gone) & {str(v) for v in row.values()}]
    rows = [exhibit["rows"][index] for index in kept]
    keys = [column["key"] for column in exhibit["columns"]]
    merge = "variable" in keys and "level" in keys
    same = [
        c
        for c in exhibit["columns"]
        if (merge or c["label"] == "persons_beneath")
        and c["role"] == "count"
        and len({row[c["key"]] for row in rows}) == 1
    ]
    after = [key for key in AFTER if key in keys]
    alone = bool(after) and all(row[key] == row.get(AFTER[key]) for row in rows for key in after)
    out = {column["key"] for column in same} | ({"level", "measure"} if merge else set())
    out |= set(after) if alone else set()
    out |= {SPREAD[key] for key in keys if key in SPREAD}
    columns = [column for column in exhibit["columns"] if column["key"] not in out]
    hidden = {(row, key): status for row, key, status in exhibit.get("hidden") or ()}
    cells = []
    for index, row in zip(kept, rows, strict=True):
        line = []
        for column in columns:
            if merge and column["key"] == "variable":
                line.append(view.pair(f"{row['variable']}:{row['level']}" if row["level"] else str(row["variable"])))
            else:
                line.append(
                    _cell(view, column, row, hidden.get((index, column["key"]), "")) + _spread(view, column, row)
                )
        cells.append(tuple(line))
    names = ALONE if alone else {}
    head = tuple(
        view.term("column", names.get(column["key"], column["label"]))
        + (f", {view.say('column.mean_sd')}" if SPREAD.get(column["key"]) in keys else "")
        for column in columns
    )
    numeric = tuple(column["role"] not in ("text", "key") for column in columns)
    note = "; ".join(f"{view.term('column', c['label'])}: {_cell(view, c, rows[0], '')}" for c in same)
    grid = Grid(title, head, tuple(cells), numeric, note, quiet=True)
    if len(cells) <= LONG:
        return grid
    return Fold(view.say("report.people.table", title=inner(title), rows=len(cells)), (grid,))


def _spread(view: View, column: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The standard deviation behind a mean, in brackets; nothing behind a share."""
    value = row.get(SPREAD.get(column["key"], ""))
    return f" ({view.number(value, 2)})" if finite(value) and row[column["key"]] is not None else ""


def _cell(view: View, column: Mapping[str, Any], row: Mapping[str, Any], status: str) -> str:
    value, role = row[column["key"]], column["role"]
    if value is None:
        if role == "count":
            return view.count(None) if status in ("", "suppressed") else "–"
        return view.say(f"report.cell.{status}") if status else "–"
    if role == "key":
        return view.say(value) if view.known(str(value)) else view.pair(str(value))
    if role == "text":
        if isinstance(value, float):
            return view.number(value, 0 if value.is_integer() else int(column.get("decimals", 2)))
        return view.pair(str(value))
    if role == "count":
        return view.number(value)
    if row.get("measure", "share" if role == "share" or row.get("level") else "mean") == "share" and role in (
        "share",
        "mean",
    ):
        return view.mean(value, "fraction")
    decimals = int(column.get("decimals", 2))
    if column["key"] in ("coefficient", "std_error") and value and abs(value) < 10**-decimals:
        decimals = min(8, 1 - math.floor(math.log10(abs(value))))
    return view.number(value, decimals)


def _one_level(exhibit: Exhibit) -> Exhibit:
    """The love plot without the first of two levels, which says the same as the second."""
    names = [str(name) for name in exhibit["x"]]
    columns = [name.partition(":")[0] for name in names]
    drop = {columns.index(c) for c in columns if columns.count(c) == 2}
    keep = [index for index in range(len(names)) if index not in drop]

    def kept(values: Sequence[Any]) -> list[Any]:
        return [values[index] for index in keep] if values else []

    parts = ("y", "low", "high", "support")
    series = [dict(line) | {key: kept(line.get(key) or ()) for key in parts} for line in exhibit["series"]]
    return dict(exhibit) | {"x": kept(exhibit["x"]), "series": series}


def _chart(view: View, exhibit: Exhibit, title: str) -> Block:
    if exhibit["id"] == "love":
        exhibit = _one_level(exhibit)
    mark, x, series = exhibit["mark"], list(exhibit["x"]), exhibit["series"]
    share = exhibit["unit"] in ("share", "points")
    names = [_series(view, exhibit, line["key"]) for line in series]
    x_label = view.term("column", exhibit["x_label"] or exhibit["title"])
    y_label = view.term("report.chart_unit", exhibit["unit"]) if exhibit["unit"] else ""
    named = any(isinstance(value, str) for value in x)
    words = [view.pair(value) if isinstance(value, str) else str(value) for value in x]
    frame = figures.Axis(view.lang, x_label, y_label, percent=exhibit["unit"] == "share")
    tracks = [] if named else [_line(line, name, x, share) for line, name in zip(series, names, strict=True)]
    if named and mark == "bar":
        tracks = [_line(line, name, range(len(x)), share) for line, name in zip(series, names, strict=True)]
        png = figures.bars(words, tracks, frame)
    elif named:
        gate = view.protocol.get("gate") or {}
        limits = (
            [float(gate.get("smd_warn", 0.1)), float(gate.get("smd_fail", 0.25))] if exhibit["id"] == "love" else []
        )
        size = [max((abs(line["y"][i]) for line in series if finite(line["y"][i])), default=0.0) for i in range(len(x))]
        kept = sorted(sorted(range(len(x)), key=lambda i: -size[i])[:DOTS])
        values = [(name, [line["y"][i] for i in kept]) for name, line in zip(names, series, strict=True)]
        png = figures.dots([words[i] for i in kept], values, frame, limits)
    elif mark == "area":
        png = figures.areas(tracks, frame)
    elif mark == "bar":
        png = figures.bars([view.number(value) for value in x], tracks, frame)
    else:
        png = figures.lines(tracks, frame, months=exhibit["x_label"] == "month", floor=exhibit["unit"] == "share")
    grid = _chart_table(view, exhibit, title, names, words if named else [])
    key = f"report.chart.{exhibit['title']}"
    caption = view.say(key) if view.known(key) else title
    return Picture(png, _chart_alt(view, exhibit, title, names, words), caption, grid)


def _series(view: View, exhibit: Exhibit, key: str) -> str:
    own = f"report.series.{exhibit['id']}_{key}"
    return view.say(own) if view.known(own) else view.term("report.series", key)


def _line(line: Mapping[str, Any], name: str, x: Sequence[Any], share: bool) -> figures.Track:
    def values(key: str) -> tuple[float | None, ...]:
        return tuple(100 * value if share and finite(value) else value for value in line.get(key) or ())

    return figures.Track(name, tuple(float(value) for value in x), values("y"), values("low"), values("high"))


def _chart_number(view: View, exhibit: Exhibit, value: Any) -> str:
    if exhibit["unit"] == "points":
        return view.plain(value, "fraction")
    return view.mean(value, "fraction") if exhibit["unit"] == "share" else view.number(value, 2)


def _chart_table(view: View, exhibit: Exhibit, title: str, names: Sequence[str], words: Sequence[str]) -> Grid:
    x = exhibit["x"]
    step = max(1, -(-len(x) // DATA_ROWS))
    rows = []
    for index in range(0, len(x), step):
        whole = finite(x[index]) and float(x[index]).is_integer()
        point = words[index] if words else view.number(x[index], 0 if whole else 2)
        rows.append((point, *(_chart_number(view, exhibit, line["y"][index]) for line in exhibit["series"])))
    first = view.say("column.variable") if words else view.term("column", exhibit["x_label"])
    head = (first, *names)
    note = view.say("report.chart_every", step=step) if step > 1 else ""
    return Grid(title, head, tuple(rows), (not words, *[True] * len(names)), note)


def _chart_alt(view: View, exhibit: Exhibit, title: str, names: Sequence[str], words: Sequence[str]) -> str:
    """What the chart shows, from its numbers: the largest value for named points, top and ends for lines."""
    parts = [capital(title) if title.endswith("?") else f"{capital(title)}."]
    for name, line in zip(names, exhibit["series"], strict=True):
        known = [(index, value) for index, value in enumerate(line["y"]) if finite(value)]
        if not known:
            continue
        far = max(known, key=lambda item: abs(item[1]))
        at = (
            words[far[0]]
            if isinstance(exhibit["x"][far[0]], str)
            else view.number(exhibit["x"][far[0]], _decimals(exhibit))
        )
        params = {"name": name, "value": _chart_number(view, exhibit, far[1]), "at": at}
        if exhibit["x_label"] == "month":
            last = known[-1]
            ends = {"value": _chart_number(view, exhibit, last[1]), "at": view.number(exhibit["x"][last[0]])}
            parts.append(view.say("report.alt.chart_last", name=name, **ends))
        else:
            parts.append(view.say("report.alt.chart_top" if exhibit["unit"] else "report.alt.chart_far", **params))
    return " ".join(parts)


def _decimals(exhibit: Exhibit) -> int:
    return 0 if all(float(value).is_integer() for value in exhibit["x"]) else 1
