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

from evalkit.disclosure_charts import BASE, last_of, protect_chart, rounded, to_base

TINY = 1e-9
VALUES = 3
"""A hidden count must leave a reader who adds and subtracts this many values at least."""
SUPPRESSED = "suppressed"
_EFFECT_KEYS = ("estimate", "std_error", "ci_low", "ci_high", "band_low", "band_high", "counterfactual")
_COUNT_PARAMS = ("matched", "starters", "persons", "entries", "first", "last", "support")
"""Parameters of findings that count people."""
_SETTINGS = ("attention", "threshold")
"""Parameters of findings that the study file sets: no data."""
_SUPPORT = ("support", "support_comparison", "support_all")
_NULL = ("placebo", "placebo_amount", "negative_control", "negative_control_amount")
"""Findings that hold an estimate of their own, where there can be no effect."""
MONEY = ("euro", "dollar")
"""Units that are shown in whole numbers."""
_CLUSTERS = ("few_clusters", "did_few_clusters", "did_few_treated", "did_uneven_clusters")
"""Findings that count clusters, which are people where the study does not say otherwise."""
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
        hidden = _table(table, gate)
        if table["id"] != "dropped":  # who fell out is few people often; the others' balance does not tell of them
            names.setdefault(table["analysis"], set()).update(hidden)
    safe["exhibits"] = [e for e in safe["exhibits"] if _exhibit(e, gate, names.get(e["analysis"], set()))]
    decided = safe["study"]["protocol"].get("treatment", {})
    by_person = decided.get("cluster", "person") == decided.get("unit", "person") == "person"
    by_person &= not (safe["study"]["protocol"].get("panel") or {}).get("persons")
    for finding in safe["findings"]:
        _finding(finding, gate, names.get(finding["analysis"], set()), by_person)
        if finding["code"] == "later_start":  # the sentence tells no more than the chart
            finding["value"] = finding["params"]["share"] = last_of(safe["exhibits"], finding)
    safe["findings"] = [f for f in safe["findings"] if not _of_few(f)]
    rules["hidden"] = sum(gate.hidden.values())
    rules["ledger"] = [f"{where}: {count}" for where, count in sorted(gate.hidden.items())]
    return safe


def _of_few(finding: Json) -> bool:
    """Whether a finding is reckoned from an estimate on so few people that it is not shown."""
    params = finding["params"]
    return finding["code"].startswith("did_") and "persons" in params and params["persons"] is None


def _exhibit(exhibit: Json, gate: _Gate, gone: Collection[str]) -> bool:
    """Protect what does not stand on its own: charts, coefficients, notes. False where nothing of it may be shown."""
    if exhibit["type"] == "chart":
        protect_chart(exhibit, gate, gone)
    elif exhibit["type"] == "note":
        params = exhibit["params"]
        exhibit["params"] = _rounded_params(params)
        if exhibit["key"] == "estimand_narrowed":
            share = gate.share(params["share"], params.get("starters"))
            if share is None:
                gate.hide("notes")
                return False
            exhibit["params"] |= {"share": rounded(share, 3), "starters": gate.count(params["starters"], "notes")}
    elif exhibit["id"] == "model":
        _coefficients(exhibit, gate, gone)
    elif any(column["key"] == "like" for column in exhibit["columns"]):
        _blank(exhibit, gate, {i for i, row in enumerate(exhibit["rows"]) if row["like"] in gone}, ("stat",))
    return True


def _rounded_params(params: Mapping[str, Any]) -> Json:
    return {k: rounded(v, 2) if isinstance(v, float) else v for k, v in params.items()}


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
        check["share"] = rounded(check["share"], 2)
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
        cell["share"] = rounded(gate.share(share, round(count / share)), 2)


def _finding(finding: Json, gate: _Gate, gone: Collection[str], by_person: bool) -> None:
    params = finding["params"]
    value = finding["value"]
    finding["value"] = rounded(value, 2)
    finding["params"] = (
        _rounded_params(params)
        | {key: gate.count(params[key], "findings") for key in _COUNT_PARAMS if _is_number(params.get(key))}
        | {key: params[key] for key in _SETTINGS if key in params}
    )
    if finding["code"] in _SUPPORT:  # the share of people outside support is a share of people as any other
        share, asked = params.get("share"), params.get("starters", params.get("entries"))
        shown = None if share is None else rounded(gate.share(share, asked), 3)
        finding["value"] = finding["params"]["share"] = shown
        if shown is None:
            gate.hide("findings")
            finding["params"] |= {"matched": None}
    elif finding["code"] in _CLUSTERS and by_person:
        for key in ("clusters", "treated", "comparison"):
            if _is_number(params.get(key)):
                finding["params"][key] = gate.count(params[key], "findings")
        finding["value"] = gate.count(value, "findings") if finding["code"] == "few_clusters" else None
    elif finding["code"] in _NULL:
        _null(finding, params, value, gate)
    elif finding["code"] == "weights_concentrated":  # the largest weight of few people is that of one of them
        finding["params"]["count"] = gate.count(params.get("count"), "findings")
        if finding["params"]["count"] is None:
            finding["value"] = finding["params"]["share"] = None
    elif params.get("variable") in gone:
        finding["value"] = None
        finding["params"] |= {k: None for k, v in params.items() if isinstance(v, float) and k not in _SETTINGS}


def _null(finding: Json, params: Mapping[str, Any], value: float | None, gate: _Gate) -> None:
    """An estimate where there can be no effect: shown as an effect is, and not of few people.

    For amounts the margin is a part of what the comparison group has, and goes with the estimate.
    """
    fraction = params.get("unit") == "fraction"
    decimals = 3 if fraction else 2
    hidden = "support" in params and gate.small(params["support"])
    data = [key for key in ("estimate", "low", "high", *([] if fraction else ["margin"])) if key in params]
    finding["value"] = None if hidden else rounded(value, decimals)
    finding["params"] |= {key: None if hidden else rounded(params[key], decimals) for key in data}
    if "margin" in data:
        finding["threshold"] = None if hidden else rounded(finding["threshold"], decimals)
    if hidden:
        gate.hide("findings")


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
    decimals = 3 if fraction else 0 if profile["estimand"]["unit"] in MONEY else 2
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
            row[key] = None if row["month"] in unsafe else rounded(row[key], 2 if fraction else decimals)
    for row in profile["summary"]:
        for key in ("estimate", "std_error", "set_low", "set_high"):
            row[key] = rounded(row[key], 2 if unsafe else 3 if fraction else decimals)
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
        row[key] = rounded(row[key], decimals + 1 if key == "std_error" else decimals)
    if fraction:
        row["counterfactual"] = None if level is None else rounded(level - row["estimate"], decimals)


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
        return rounded(value, 2)
    if role == "share" and share:
        return rounded(gate.share(value, row[below]), 3)
    return None if gate.small(row[below]) else rounded(value, 2)


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
    if factors:
        names = [str(row["variable"]) for row in table["rows"]]
        told = {i for i, name in enumerate(names) if name.split(":")[0] in factors or name == "intercept"}
        _blank(table, gate, told, [column["role"] for column in table["columns"]])


def _blank(table: Json, gate: _Gate, rows: Collection[int], roles: Collection[str]) -> None:
    """Empty the numbers of these rows in the columns with these roles."""
    for i in sorted(rows):
        for column in table["columns"]:
            if column["role"] in roles and _is_number(table["rows"][i][column["key"]]):
                table["rows"][i][column["key"]] = None
                table["hidden"].append([i, column["key"], SUPPRESSED])
                gate.hide(table["id"])
    table["hidden"].sort()
