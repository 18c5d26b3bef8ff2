"""The gate out: what a results document may show, decided before anything is written.

A pure function from document to document. Under ``open`` (public or simulated data) nothing changes. Under every other
profile: counts of 1..minimum-1 persons are hidden and the others rounded to base 5; shares are computed from rounded
counts, and hidden where their count or its complement is below the minimum; where one level of a categorical covariate
is hidden the next smallest goes too; a month with fewer than ``minimum`` persons in an arm is hidden; covariances are
not exported; every other number is rounded so that it reveals no count. ``cbs`` and ``strict`` also hide zeros.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

BASE = 5
SUPPRESSED = "suppressed"
_EFFECT_KEYS = ("estimate", "std_error", "ci_low", "ci_high", "band_low", "band_high", "counterfactual")

Json = dict[str, Any]


class _Gate:
    """Rules of one profile, and a ledger of what was hidden where."""

    def __init__(self, profile: str, minimum: int):
        self.minimum = minimum
        self.zeros = profile in ("cbs", "strict")
        self.hidden: dict[str, int] = {}

    def small(self, count: float) -> bool:
        return (0 < count < self.minimum) or (self.zeros and count == 0)

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

    def share(self, value: float, support: float) -> float | None:
        """A share from rounded counts, or None where its count or the rest is too small."""
        part = round(value * support)
        if self.small(part) or self.small(support - part):
            return None
        whole = to_base(support)
        return min(1.0, to_base(part) / whole) if whole else None


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
    for row in safe["flow"]:
        row["persons"] = gate.count(row["persons"], "flow")
        row["entries"] = None if row["persons"] is None else to_base(row["entries"])
    for check in safe["checks"]:
        check["count"] = gate.count(check["count"], "checks")
        check["share"] = None if check["count"] is None else _rounded(check["share"], 2)
        check["params"] = {
            k: to_base(v) if isinstance(v, int) and not isinstance(v, bool) and v >= gate.minimum else v
            for k, v in check["params"].items()
            if not (isinstance(v, int) and not isinstance(v, bool) and gate.small(v))
        }
    for item in safe["inputs"]:
        item["rows"] = to_base(item["rows"])
    safe["profiles"] = [_profile(profile, gate) for profile in safe["profiles"]]
    for exhibit in safe["exhibits"]:
        if exhibit["type"] == "table":
            _table(exhibit, gate)
        elif exhibit["type"] == "chart":
            _chart(exhibit, gate)
        else:
            exhibit["params"] = _rounded_params(exhibit["params"])
    for finding in safe["findings"]:
        finding["value"] = _rounded(finding["value"], 2)
        finding["params"] = _rounded_params(finding["params"])
    rules["hidden"] = sum(gate.hidden.values())
    rules["ledger"] = [f"{where}: {count}" for where, count in sorted(gate.hidden.items())]
    return safe


def _rounded(value: float | None, decimals: int) -> float | None:
    return None if value is None else round(value, decimals)


def _rounded_params(params: Mapping[str, Any]) -> Json:
    return {k: round(v, 2) if isinstance(v, float) else v for k, v in params.items()}


def _profile(profile: Json, gate: _Gate) -> Json:
    fraction = profile["estimand"]["unit"] == "fraction"
    decimals = 3 if fraction else 2 if profile["estimand"]["unit"] == "months" else 0
    profile["vcov"] = None
    small = False
    for row in profile["months"]:
        n1, n0 = row["n_treated"], row["n_comparison"]
        row["n_treated"], row["n_comparison"] = (gate.count(n, "numbers") for n in (n1, n0))
        if row["n_treated"] is None or row["n_comparison"] is None:
            small = True
            for key in _EFFECT_KEYS:
                row[key] = None
            row["status"] = SUPPRESSED if row["status"] == "ok" else row["status"]
            gate.hide("effects")
            continue
        if row["status"] != "ok":
            continue
        counterfactual = row["counterfactual"]
        treated = None if counterfactual is None else row["estimate"] + counterfactual
        for key in _EFFECT_KEYS:
            row[key] = _rounded(row[key], decimals + 1 if key == "std_error" else decimals)
        if treated is not None and fraction:
            share = gate.share(treated, n1)
            if share is None:
                gate.hide("levels")
            row["counterfactual"] = None if share is None else round(share - row["estimate"], decimals)
    for row in profile["cumulated"]:
        for key in ("estimate", "band_low", "band_high"):
            row[key] = _rounded(row[key], 2 if fraction else decimals)
    for row in profile["summary"]:
        for key in ("estimate", "std_error", "set_low", "set_high"):
            row[key] = _rounded(row[key], 3 if fraction else decimals)
    if small:
        profile["cumulated"], profile["lock_in"] = [], None
        for row in profile["summary"]:
            row.update(estimate=None, std_error=None, set_low=None, set_high=None, status=SUPPRESSED)
    return profile


def _table(table: Json, gate: _Gate) -> None:
    """Cells of one table; a row's ``measure`` says whether its share columns hold shares or means."""
    name = table["id"]
    columns = {column["key"]: column for column in table["columns"]}
    raw = [dict(row) for row in table["rows"]]
    hidden: set[tuple[int, str]] = set()
    for i, row in enumerate(table["rows"]):
        for key, column in columns.items():
            value = row[key]
            if value is None or isinstance(value, str):
                continue
            if column["role"] == "count":
                row[key] = gate.count(value, name)
                if row[key] is None:
                    hidden.add((i, key))
            elif column["role"] == "share" and row.get("measure", "share") == "share":
                row[key] = gate.share(value, raw[i][column["support"]]) if column["support"] else round(value, 2)
                if row[key] is None:
                    hidden.add((i, key))
                    gate.hide(name)
                else:
                    row[key] = round(row[key], 3)
            else:
                row[key] = _rounded(value, 2)
    if "variable" in columns:
        hidden |= _second(table, raw, hidden, gate)
    for i in {i for i, key in hidden if columns[key]["role"] == "share"}:
        for key, column in columns.items():  # a standardised difference would give the share back
            if column["role"] == "stat" and table["rows"][i][key] is not None:
                table["rows"][i][key] = None
                hidden.add((i, key))
    table["hidden"] = [[i, key, SUPPRESSED] for i, key in sorted(hidden)]


def _second(table: Json, raw: list[Json], hidden: set[tuple[int, str]], gate: _Gate) -> set[tuple[int, str]]:
    """Shares of one variable add up to one: where just one is hidden, the smallest of the others goes too."""
    more: set[tuple[int, str]] = set()
    for key in {key for _, key in hidden}:
        groups: dict[str, list[int]] = {}
        for i, row in enumerate(raw):
            if isinstance(row[key], int | float) and row.get("measure", "share") == "share":
                groups.setdefault(str(row["variable"]), []).append(i)
        for rows in groups.values():
            gone = [i for i in rows if (i, key) in hidden]
            left = [i for i in rows if (i, key) not in hidden]
            if len(gone) == 1 and left:
                least = min(left, key=lambda i: (raw[i][key], i))
                table["rows"][least][key] = None
                more.add((least, key))
                gate.hide(table["id"])
    return more


def _chart(chart: Json, gate: _Gate) -> None:
    for line in chart["series"]:
        small = [bool(n is not None and gate.small(n)) for n in line["support"]] or [False] * len(line["y"])
        for key in ("y", "low", "high"):
            line[key] = _hide_points(line[key], small)
        for _ in filter(None, small):
            gate.hide(chart["id"])
        line["support"] = []


def _hide_points(values: Iterable[float | None], small: list[bool]) -> list[float | None]:
    return [None if v is None or hide else round(v, 3) for v, hide in zip(values, small, strict=False)]
