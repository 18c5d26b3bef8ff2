"""The gate out: what a results document may show, decided before anything is written.

A pure function from document to document. Under ``open`` (public or simulated data) nothing changes. Under every other
profile:

- counts of 1..minimum-1 are hidden and the others rounded to base 5; ``cbs`` and ``strict`` also hide zeros;
- parts of one total (steps of the flow, levels of a covariate, columns with the same ``parent``): where the rest would
  pin a hidden part down to a few values, one more part is hidden;
- shares are computed from rounded counts, and hidden where their count or its complement is small; so are means of a
  small group. What would give a hidden share back goes with it: its standardised difference, its dot in the love
  plot, its coefficient, its figure in a finding;
- a month with a small group is hidden, and so is the derived path; levels are shown only where neither arm has a
  small count beneath them. In a randomised comparison effect and standard error together give both shares back, so
  there such a month is hidden altogether;
- covariances are not exported; every other number is rounded.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

BASE = 5
TINY = 1e-9
VALUES = 3
"""A hidden count must leave a reader who adds and subtracts this many values at least."""
SUPPRESSED = "suppressed"
_EFFECT_KEYS = ("estimate", "std_error", "ci_low", "ci_high", "band_low", "band_high", "counterfactual")
_COUNT_PARAMS = ("matched", "starters", "persons", "entries", "first", "last")
"""Parameters of findings that count people."""
_LIMITS = ("months", "width")
"""Whole numbers in checks that count nobody."""

Json = dict[str, Any]


class _Gate:
    """Rules of one profile, and a ledger of what was hidden where."""

    def __init__(self, profile: str, minimum: int):
        self.minimum = minimum
        self.zeros = profile in ("cbs", "strict")
        self.hidden: dict[str, int] = {}

    def small(self, count: float | None) -> bool:
        """Whether a count is too small to show; one that is not known may be."""
        return count is None or (0 < count < self.minimum) or (self.zeros and count == 0)

    def hide(self, where: str) -> None:
        self.hidden[where] = self.hidden.get(where, 0) + 1

    def count(self, value: float | None, where: str) -> int | None:
        """A count as it may be shown, or None."""
        if value is None:
            return None
        if self.small(value):
            self.hide(where)
            return None
        return to_base(value)

    def share(self, value: float, support: float | None) -> float | None:
        """A share from rounded counts, or None where its count or the rest is too small."""
        if support is None:
            return None
        part = round(value * support)
        nearly = (part == 0 and value > TINY) or (part == support and value < 1 - TINY)  # support is not always its own
        if nearly or self.small(part) or self.small(support - part):
            return None
        whole = to_base(support)
        return min(1.0, to_base(part) / whole) if whole else None

    def exposed(self, low: float, high: float, cells: int) -> bool:
        """Whether ``cells`` hidden counts that add up to [low, high] are left one or two possible values each."""
        bottom, top = 0 if self.zeros else 1, self.minimum - 1
        least, most = max(bottom, low - top * (cells - 1)), min(top, high - bottom * (cells - 1))
        return most - least + 1 < min(VALUES, top - bottom + 1)

    def around(self, count: float) -> tuple[float, float]:
        """The counts that a shown count may stand for."""
        shown = to_base(count)
        return (max(self.minimum, shown - BASE // 2), shown + BASE // 2) if count else (0, 0)


def to_base(value: float, base: int = BASE) -> int:
    """The nearest multiple of the base, halves up."""
    return int(math.floor(value / base + 0.5)) * base


def protect(document: Mapping[str, Any]) -> Json:
    """The document as it may leave: the same shape, with nulls and statuses where something is hidden."""
    safe: Json = copy.deepcopy(dict(document))
    rules = safe["disclosure"]
    if rules["profile"] == "open":
        return safe
    gate = _Gate(rules["profile"], rules["minimum"])
    for arm in dict.fromkeys(row["arm"] for row in safe["flow"]):
        _flow([row for row in safe["flow"] if row["arm"] == arm], gate)
    for check in safe["checks"]:
        _check(check, gate)
    for item in safe["inputs"]:
        item["rows"] = gate.count(item["rows"], "inputs")
    unsafe = _unsafe_months(safe["profiles"], gate)
    for profile in safe["profiles"]:
        _profile(profile, gate, unsafe.get(profile["id"], set()))
    names: dict[str, set[str]] = {}
    for table in (e for e in safe["exhibits"] if e["type"] == "table"):
        names.setdefault(table["analysis"], set()).update(_table(table, gate))
    for exhibit in safe["exhibits"]:
        gone = names.get(exhibit["analysis"], set())
        if exhibit["type"] == "chart":
            _chart(exhibit, gate, gone)
        elif exhibit["type"] == "table" and exhibit["id"] == "model":
            _coefficients(exhibit, gate, gone)
        elif exhibit["type"] == "note":
            exhibit["params"] = _rounded_params(exhibit["params"])
    by_person = safe["study"]["protocol"].get("treatment", {}).get("cluster", "person") == "person"
    for finding in safe["findings"]:
        _finding(finding, gate, names.get(finding["analysis"], set()), by_person)
        if finding["code"] == "later_start":  # the sentence tells no more than the chart
            finding["value"] = finding["params"]["share"] = _last_of(safe["exhibits"], finding)
    rules["hidden"] = sum(gate.hidden.values())
    rules["ledger"] = [f"{where}: {count}" for where, count in sorted(gate.hidden.items())]
    return safe


def _rounded(value: float | None, decimals: int) -> float | None:
    """Rounded, without minus zero."""
    return None if value is None else round(value, decimals) + 0


def _rounded_params(params: Mapping[str, Any]) -> Json:
    return {k: _rounded(v, 2) if isinstance(v, float) else v for k, v in params.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- flow, checks, findings -----------------------------------------------------------------------------------------


def _flow(rows: list[Json], gate: _Gate) -> None:
    """One arm's steps. Out rows and the last row add up to the first: others go where that gives a small one back."""
    raw = [(row["persons"], row["entries"]) for row in rows]
    for row in rows:
        row["persons"] = gate.count(row["persons"], "flow")
        row["entries"] = None if row["persons"] is None else gate.count(row["entries"], "flow")
    parts = [i for i, row in enumerate(rows) if row["kind"] != "start" and raw[i][0] is not None]
    small = [i for i in parts if rows[i]["persons"] is None]
    while small and rows[0]["persons"] is not None and gate.exposed(*_rest(rows, raw, parts, small, gate), len(small)):
        shown = [i for i in parts if rows[i]["kind"] == "out" and rows[i]["persons"]]
        other = min(shown, key=lambda i: (raw[i][0], i), default=0)
        rows[other]["persons"] = rows[other]["entries"] = None
        gate.hide("flow")


def _rest(
    rows: list[Json], raw: list[tuple[Any, Any]], parts: list[int], small: list[int], gate: _Gate
) -> tuple[float, float]:
    """What the small steps may add up to for a reader of the others, who knows which steps were hidden along."""
    low, high = 0.0, math.inf
    for measure, name in enumerate(("persons", "entries")):
        if rows[0][name] is None:
            continue
        first = gate.around(raw[0][measure])
        others = [i for i in parts if i not in small]
        ranges = [
            (0 if rows[i]["persons"] == 0 else gate.minimum, math.inf)
            if rows[i][name] is None
            else gate.around(raw[i][measure])
            for i in others
        ]
        if name == "persons":
            low = first[0] - sum(r[1] for r in ranges)
        high = min(high, first[1] - sum(r[0] for r in ranges))  # entries are at least as many as persons
    return low, high


def _check(check: Json, gate: _Gate) -> None:
    """A check's count and share, and those of its arms; months and codes are no persons.

    The arms add up to the count, so both go when either is small, or when the count is.
    """
    arms = check.get("arms", {}).values()
    if check.get("unit", "rows") == "rows":
        hidden = gate.small(check["count"]) or any(gate.small(arm["count"]) for arm in arms)
        _counted(check, gate)
        for arm in arms:
            if hidden:
                arm.update(count=None, share=None)
                gate.hide("checks")
            else:
                _counted(arm, gate)
    elif check["share"]:
        check["share"] = _rounded(check["share"], 2)
    params = check["params"].items()
    whole = {k for k, v in params if isinstance(v, int) and not isinstance(v, bool) and k not in _LIMITS}
    check["params"] = _rounded_params(
        {k: gate.count(v, "checks") if k in whole else v for k, v in check["params"].items()}
    )


def _counted(cell: Json, gate: _Gate) -> None:
    """A count with the share that it is of something."""
    count, share = cell["count"], cell["share"]
    cell["count"] = gate.count(count, "checks")
    if cell["count"] is None:
        cell["share"] = None
    elif share:
        cell["share"] = _rounded(gate.share(share, round(count / share)), 2)


def _finding(finding: Json, gate: _Gate, gone: Collection[str], by_person: bool) -> None:
    params = finding["params"]
    finding["value"] = _rounded(finding["value"], 2)
    finding["params"] = _rounded_params(params) | {
        key: gate.count(params[key], "findings") for key in _COUNT_PARAMS if _is_number(params.get(key))
    }
    if finding["code"] == "support":  # the share of starters outside support is a share of people as any other
        share, starters = params.get("share"), params.get("starters")
        shown = None if share is None else _rounded(gate.share(share, starters), 3)
        finding["value"] = finding["params"]["share"] = shown
        if shown is None:
            gate.hide("findings")
            finding["params"] |= {"matched": None}
    elif finding["code"] == "few_clusters" and by_person:
        finding["value"] = finding["params"]["clusters"] = gate.count(finding["value"], "findings")
    elif params.get("variable") in gone:
        finding["value"] = None
        finding["params"] |= {key: None for key, value in params.items() if isinstance(value, float)}


# -- profiles -------------------------------------------------------------------------------------------------------


def _levels_small(row: Json, gate: _Gate) -> bool:
    """Whether a small count or complement lies beneath the mean of either arm."""
    without = row["counterfactual"]
    means = ((row["estimate"] + without, row["n_treated"]), (without, row["n_comparison"]))
    return any(gate.share(mean, n) is None for mean, n in means)


def _unsafe_months(profiles: Iterable[Json], gate: _Gate) -> dict[str, set[int]]:
    """Months in which a randomised comparison of shares (or a twin, or a contrast of it) gives a small count back."""
    families: dict[tuple[str, ...], set[int]] = {}
    own: dict[str, tuple[str, ...]] = {}
    contrasts: dict[str, tuple[str, str]] = {}
    for profile in profiles:
        estimand, labels = profile["estimand"], profile["labels"]
        if estimand["identification"] != "randomisation" or estimand["unit"] != "fraction":
            continue
        if "first" in labels:
            contrasts[profile["id"]] = (labels["first"], labels["second"])
            continue
        own[profile["id"]] = tuple(labels.get(key, "") for key in ("analysis", "outcome", "subgroup"))
        small = families.setdefault(own[profile["id"]], set())
        small |= {
            row["month"]
            for row in profile["months"]
            if row["estimate"] is not None and row["counterfactual"] is not None and _levels_small(row, gate)
        }
    found = {name: families[family] for name, family in own.items()}
    return found | {name: found.get(a, set()) | found.get(b, set()) for name, (a, b) in contrasts.items()}


def _profile(profile: Json, gate: _Gate, unsafe: Collection[int]) -> None:
    fraction = profile["estimand"]["unit"] == "fraction"
    decimals = 3 if fraction else 2 if profile["estimand"]["unit"] == "months" else 0
    profile["vcov"] = None
    small = False
    for row in profile["months"]:
        n1, n0 = row["n_treated"], row["n_comparison"]
        hidden = gate.small(n1) or gate.small(n0)
        small |= hidden
        if row["status"] == "ok" and (hidden or row["month"] in unsafe):
            row |= dict.fromkeys(_EFFECT_KEYS)
            row["status"] = SUPPRESSED
            gate.hide("effects")
        elif row["status"] == "ok":
            _month(row, gate, decimals, fraction)
        row["n_treated"], row["n_comparison"] = (gate.count(n, "numbers") for n in (n1, n0))
    for row in profile["cumulated"]:
        for key in ("estimate", "band_low", "band_high"):
            row[key] = None if row["month"] in unsafe else _rounded(row[key], 2 if fraction else decimals)
    for row in profile["summary"]:
        for key in ("estimate", "std_error", "set_low", "set_high"):
            row[key] = _rounded(row[key], 2 if unsafe else 3 if fraction else decimals)
    if small:
        profile["cumulated"], profile["lock_in"] = [], None
        for row in profile["summary"]:
            row.update(estimate=None, std_error=None, set_low=None, set_high=None, status=SUPPRESSED)


def _month(row: Json, gate: _Gate, decimals: int, fraction: bool) -> None:
    """One month that is shown: everything rounded, the level such that effect and level add up to a rounded share."""
    without = row["counterfactual"]
    level = without
    if without is not None and fraction:
        level = None
        if _levels_small(row, gate):
            gate.hide("levels")
        else:
            level = gate.share(row["estimate"] + without, row["n_treated"])
    for key in _EFFECT_KEYS:
        row[key] = _rounded(row[key], decimals + 1 if key == "std_error" else decimals)
    if fraction:
        row["counterfactual"] = None if level is None else _rounded(level - row["estimate"], decimals)


# -- tables ---------------------------------------------------------------------------------------------------------


def _table(table: Json, gate: _Gate) -> set[str]:
    """Protect the cells of one table; returns the covariates (``name`` or ``name:level``) whose shares were hidden.

    A row's ``measure`` says whether its share columns hold shares or means. Means that all lie between zero and one may
    be those of a 0/1 column and count as shares.
    """
    name = table["id"]
    columns = {column["key"]: column for column in table["columns"]}
    raw = [dict(row) for row in table["rows"]]
    hidden: set[tuple[int, str]] = set()
    for i, row in enumerate(table["rows"]):
        share = _holds_shares(row, columns)
        for key, column in columns.items():
            if not _is_number(row[key]):
                continue
            row[key] = _cell(row[key], column, raw[i], share, gate)
            if row[key] is None:
                hidden.add((i, key))
                gate.hide(name)
    for more in (_second(table, raw, columns, hidden, gate), _siblings(table, raw, columns, hidden, gate)):
        for i, key in more:
            table["rows"][i][key] = None
            gate.hide(name)
        hidden |= more
    rows = {i for i, key in hidden if columns[key]["role"] in ("share", "mean")}
    for i in rows:
        for key, column in columns.items():  # a standardised difference would give the share back
            if column["role"] == "stat" and table["rows"][i][key] is not None:
                table["rows"][i][key] = None
                hidden.add((i, key))
    before = [cell for cell in table["hidden"] if (cell[0], cell[1]) not in hidden]
    table["hidden"] = sorted(before + [[i, key, SUPPRESSED] for i, key in hidden])
    if not {"variable", "level"} <= set(columns):
        return set()
    return {f"{raw[i]['variable']}:{raw[i]['level']}" if raw[i]["level"] else str(raw[i]["variable"]) for i in rows}


def _holds_shares(row: Json, columns: Mapping[str, Json]) -> bool:
    means = [row[k] for k, c in columns.items() if c["role"] in ("share", "mean") and _is_number(row[k])]
    if row.get("measure", "share") == "share":
        return True
    return bool(means) and all(0 <= value <= 1 for value in means)


def _cell(value: float, column: Json, row: Json, share: bool, gate: _Gate) -> float | None:
    """One number of a table as it may be shown."""
    role, below = column["role"], column["support"]
    if role == "count":
        if below and gate.small(row[below]):
            return None
        return to_base(value) if not gate.small(value) else None
    if role not in ("share", "mean", "stat") or not below:
        return _rounded(value, 2)
    if role == "share" and share:
        return _rounded(gate.share(value, row[below]), 3)
    return None if gate.small(row[below]) else _rounded(value, 2)


def _second(
    table: Json, raw: list[Json], columns: Mapping[str, Json], hidden: set[tuple[int, str]], gate: _Gate
) -> set[tuple[int, str]]:
    """Shares of one variable add up to one: the smallest level that is left goes where the rest would tell too much.

    Rounding does not help here: standardised differences give the shown shares back more precisely.
    """
    more: set[tuple[int, str]] = set()
    if "variable" not in columns:
        return more
    for key in sorted({key for _, key in hidden if columns[key]["role"] == "share"}):
        below = columns[key]["support"]
        part = {
            i: round(row[key] * row[below])
            for i, row in enumerate(raw)
            if _is_number(row[key]) and _is_number(row.get(below)) and row.get("measure", "share") == "share"
        }
        for variable in dict.fromkeys(str(raw[i]["variable"]) for i in part):
            rows = [i for i in part if str(raw[i]["variable"]) == variable]
            gone = [i for i in rows if (i, key) in hidden]
            left = [i for i in rows if (i, key) not in hidden and part[i]]
            total = sum(part[i] for i in gone)
            if gone and left and gate.exposed(total, total, len(gone)):
                more.add((min(left, key=lambda i: (part[i], i)), key))
    return more


def _siblings(
    table: Json, raw: list[Json], columns: Mapping[str, Json], hidden: set[tuple[int, str]], gate: _Gate
) -> set[tuple[int, str]]:
    """Columns with the same ``parent`` add up to it: one more part goes where the rest gives a hidden one back."""
    more: set[tuple[int, str]] = set()
    parents = {c["parent"] for c in columns.values() if c["role"] == "count" and c["parent"] in columns}
    for parent in sorted(parents):
        parts = [key for key, column in columns.items() if column["parent"] == parent]
        for i, row in enumerate(raw):
            gone = [key for key in parts if (i, key) in hidden]
            left = [key for key in parts if (i, key) not in hidden and row[key]]
            if not gone or not left or (i, parent) in hidden or row[parent] is None:
                continue
            whole, ranges = gate.around(row[parent]), [gate.around(row[key]) for key in left]
            low, high = whole[0] - sum(r[1] for r in ranges), whole[1] - sum(r[0] for r in ranges)
            if gate.exposed(low, high, len(gone)):
                more.add((i, min(left, key=lambda key: (row[key], key))))
    return more


def _coefficients(table: Json, gate: _Gate, gone: Collection[str]) -> None:
    """A dummy's standard error gives the count of its level, or of the reference, back: the whole factor goes.

    So does the intercept, which stands for the reference levels.
    """
    factors = {name.split(":")[0] for name in gone}
    hidden = []
    for i, row in enumerate(table["rows"]):
        name = str(row["variable"])
        if factors and (name.split(":")[0] in factors or name == "intercept"):
            for column in table["columns"]:
                if _is_number(row[column["key"]]):
                    row[column["key"]] = None
                    hidden.append([i, column["key"], SUPPRESSED])
                    gate.hide(table["id"])
    table["hidden"] = sorted(table["hidden"] + hidden)


# -- charts ---------------------------------------------------------------------------------------------------------


def _chart(chart: Json, gate: _Gate, gone: Collection[str]) -> None:
    named = any(isinstance(value, str) for value in chart["x"])
    for line in chart["series"]:
        support = line["support"] or [None] * len(line["y"])
        small = [n is not None and gate.small(n) for n in support]
        if named:
            small = [hide or name in gone for hide, name in zip(small, chart["x"], strict=True)]
        elif chart["mark"] == "area" and any(small):  # an empty bin shown as such says that a hidden one is not empty
            small = [hide or n == 0 for hide, n in zip(small, support, strict=True)]
        whole = _whole(chart, line, support)
        decimals = 3 if chart["unit"] == "points" else 2
        if chart["unit"] == "share" and chart["mark"] != "area" and whole:  # nor those who are not in the share
            rest = [v is not None and gate.small(whole - round(v * whole)) for v in line["y"]]
            small = [a or b for a, b in zip(small, rest, strict=True)]
        for key in ("y", "low", "high"):
            line[key] = [_point(v, hide, whole, decimals) for v, hide in zip(line[key], small, strict=False)]
        for _ in filter(None, small):
            gate.hide(chart["id"])
        line["support"] = []
    chart["x"] = [_rounded(v, 2) if isinstance(v, float) else v for v in chart["x"]]


def _whole(chart: Json, line: Json, support: list[Any]) -> float:
    """How many people the shares of a line are shares of; zero where they are not shares of counted people.

    The bins of an area add up; points of another line each have their own share, so the last one tells.
    """
    if chart["unit"] != "share" or not line["support"]:
        return 0
    if chart["mark"] == "area":
        return float(sum(n or 0 for n in support))
    known = [(n, y) for n, y in zip(support, line["y"], strict=True) if n and y]
    return float(round(known[-1][0] / known[-1][1])) if known else 0


def _point(value: float | None, hide: bool, whole: float, decimals: int = 2) -> float | None:
    """A point, rounded; a share of ``whole`` people is rounded as its count would be."""
    if value is None or hide:
        return None
    if whole:
        return _rounded(min(1.0, to_base(value * whole) / (to_base(whole) or BASE)), 3)
    return _rounded(value, decimals)


def _last_of(exhibits: Iterable[Json], finding: Json) -> float | None:
    """The last point of the chart of the same name and analysis, None where it is hidden."""
    for exhibit in exhibits:
        if (exhibit["type"], exhibit["analysis"]) != ("chart", finding["analysis"]):
            continue
        if exhibit["id"] == finding["code"]:
            last: float | None = exhibit["series"][0]["y"][-1]
            return last
    return None
