"""The document seen in one language: study words, units, amounts, and which profile answers what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from evalkit import text

Profile = Mapping[str, Any]

FEW_MONTHS = 3
"""A profile with fewer months than this is shown as a table with intervals, not as a line."""

CURRENCIES = {"euro": "€", "dollar": "$"}

UNADJUSTED, ADJUSTED = ("difference_in_means", "unadjusted"), ("regression_adjusted", "adjusted")
"""Variants of one analysis, without and with adjustment for covariates."""


def _decimals(value: Any, unit: str) -> int:
    """Decimals of an amount: none for money, one for points and months, more for small amounts of another unit."""
    if unit in CURRENCIES:
        return 0
    if unit in ("fraction", "months") or not finite(value) or value == 0 or abs(value) >= 10:
        return 1
    return 2 if abs(value) >= 1 else 3


def finite(value: Any) -> bool:
    """Whether a value of the document is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def capital(sentence: str) -> str:
    """The sentence with a capital."""
    return sentence[:1].upper() + sentence[1:]


def inner(label: str) -> str:
    """A label as it stands inside a sentence: no capital, unless it is an abbreviation."""
    if len(label) > 1 and label[0].isupper() and (label[1].islower() or label.startswith("A ")):
        return label[0].lower() + label[1:]
    return label


class View:
    """The results document in one language.

    Parameters
    ----------
    document:
        The results document (``results.json`` as a dict).
    lang:
        ``nl`` or ``en``.
    """

    def __init__(self, document: Mapping[str, Any], lang: str):
        self.document = document
        self.lang = lang
        self.protocol: Mapping[str, Any] = document["study"]["protocol"]
        self.labels: Mapping[str, str] = (self.protocol.get("labels") or {}).get(lang) or {}
        self.minimum = int(document["disclosure"]["minimum"])
        self.table = bool(self.protocol.get("table") or self.protocol.get("panel"))

    # -- words ---------------------------------------------------------------------------------------------------

    def say(self, key: str, /, **params: Any) -> str:
        """A sentence of the catalogue.

        ``<key>_units`` is said where groups of people (teams, districts) are followed, ``<key>_period`` where time is
        counted in periods, ``<key>_table`` for an analysis-ready table, when the catalogue has them.
        """
        for ending, holds in (("units", self.grouped), ("period", self.by_period), ("table", self.table)):
            if holds and self.known(f"{key}_{ending}"):
                return text.say(f"{key}_{ending}", self.lang, **params)
        return text.say(key, self.lang, **params)

    def known(self, key: str) -> bool:
        """Whether the catalogue has the sentence."""
        return text.known(key, self.lang)

    def term(self, section: str, name: str) -> str:
        """``section.name`` of the catalogue, else the name as a study word."""
        key = f"{section}.{name}"
        return self.say(key) if name and self.known(key) else self.word(name)

    def table_name(self, table: str) -> str:
        """A table of the data; one of several of a kind by the covariate that it holds: ``changes.household``."""
        kind, _, covariate = table.partition(".")
        if covariate:
            return self.say(f"report.table.{kind}", name=self.inside(covariate))
        return self.term("report.table", table)

    def reason(self, reason: str) -> str:
        """Why people fell out; for values that keep out the column stands behind a colon."""
        kind, _, column = reason.partition(":")
        if column:
            return self.say(f"flow.{kind}", name=self.inside(column))
        return self.term("flow", reason)

    def word(self, name: str) -> str:
        """A study word (instrument, outcome, column, level as ``column:level``) as the study file labels it."""
        if name in self.labels:
            return str(self.labels[name])
        if ":" in name:
            name = name.split(":", 1)[1]
        key = f"report.word.{name}"
        return self.say(key) if self.known(key) else capital(name.replace("_", " "))

    def inside(self, name: str) -> str:
        """A study word inside a sentence: a label as the study file writes it, any other word without its capital.

        Labels may be names (``Hispanic``). Those of outcomes and instruments are read as common words: ``inner``.
        """
        for mark in (":", "="):
            if mark in name:
                column, level = name.split(mark, 1)
                return f"{self.inside(column)}: {self.level(column, level)}"
        if name in self.labels:
            return str(self.labels[name])
        key = f"report.word.{name}"
        return inner(self.say(key)) if self.known(key) else name.replace("_", " ")

    def level(self, column: str, level: str) -> str:
        """A level of a categorical column: the label of ``column:level``, of the level, or the level as it is."""
        for name in (f"{column}:{level}", level):
            if name in self.labels:
                return str(self.labels[name])
        if level.startswith(text.RARE):
            return self.say("report.rare", number=level.removeprefix(text.RARE))
        key = f"report.word.{level}"
        return self.say(key) if self.known(key) else level.replace("_", " ")

    def pair(self, name: str) -> str:
        """``column:level`` or ``column=level`` in words; a bare name is a study word."""
        for mark in (":", "="):
            if mark in name:
                column, level = name.split(mark, 1)
                return f"{self.word(column)}: {self.level(column, level)}"
        return self.word(name)

    def variant(self, name: str) -> str:
        """A variant of an analysis in words."""
        return self.term("report.variant", name)

    def se_kind(self, name: str) -> str:
        """The name of a standard error, ``<kind>, clustered on <level>``, in words."""
        kind, _, level = name.partition(", clustered on ")
        key = f"report.se_kind.{kind.lower().replace(' ', '_')}"
        words = self.say(key) if self.known(key) else kind
        return self.say("report.se_kind.clustered", kind=words, level=self.inside(level)) if level else words

    def params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of a finding or a note, study words replaced by their labels."""
        out = dict(params)
        column = str(out.get("variable", ""))
        if isinstance(out.get("level"), str) and out["level"]:
            out["level"] = self.level(column, out["level"])
        for key in ("outcome", "instrument", "comparison", "versus"):
            if isinstance(out.get(key), str):
                out[key] = inner(self.word(out[key]))
        for key in ("variable", "cluster", "subgroup", "unit"):
            if isinstance(out.get(key), str):
                out[key] = self.inside(out[key])
        if isinstance(out.get("convention"), str):
            out["convention"] = self.term("report.convention", out["convention"])
        if isinstance(out.get("outcomes"), list | tuple):
            out["outcomes"] = self.listing(inner(self.word(str(item))) for item in out["outcomes"])
        for key in ("variables", "exact"):
            if isinstance(out.get(key), list | tuple):
                out[key] = self.listing(self.inside(str(item)) for item in out[key])
        if isinstance(out.get("pair"), list | tuple):
            first, second = (inner(self.word(str(item))) for item in out["pair"])
            out["pair"] = self.say("report.pair.against", first=first, second=second)
        for key in ("estimator", "control"):
            if isinstance(out.get(key), str):
                out[key] = self.term(f"report.{key}", out[key])
        if isinstance(out.get("kind"), str):
            out["kind"] = self.se_kind(out["kind"])
        if isinstance(out.get("why"), str):
            out["why"] = self.why(out["why"])
        if isinstance(out.get("instruments"), list | tuple):
            out["instruments"] = self.listing(inner(self.word(str(item))) for item in out["instruments"])
        return out

    def why(self, code: str) -> str:
        """The sentence of a fault, where it says enough without the numbers that belong to it."""
        try:
            return text.say(f"fault.{code}.say", self.lang)
        except KeyError:
            return self.say("report.why")

    def listing(self, items: Iterable[str]) -> str:
        """``a, b and c``."""
        words = list(items)
        if len(words) < 2:
            return "".join(words)
        return self.say("report.and", first=", ".join(words[:-1]), last=words[-1])

    # -- numbers -------------------------------------------------------------------------------------------------

    def number(self, value: Any, decimals: int = 0, signed: bool = False) -> str:
        """A number as the language writes it."""
        return text.number(value, self.lang, decimals, signed)

    def count(self, value: Any) -> str:
        """A count; a suppressed one is ``<minimum``."""
        return f"<{self.minimum}" if value is None else self.number(value)

    def unit(self, unit: str) -> str:
        """The word of a unit of an effect."""
        if unit in self.labels:
            return str(self.labels[unit])
        return self.term("report.unit", unit) if self.known(f"report.unit.{unit}") else unit

    def scaled(self, value: Any, unit: str) -> Any:
        """The value as it is drawn and printed: fractions times 100."""
        return 100 * value if unit == "fraction" and finite(value) else value

    def plain(self, value: Any, unit: str, signed: bool = True) -> str:
        """An effect without its unit, for a table whose head names the unit."""
        return self.number(self.scaled(value, unit), _decimals(value, unit), signed)

    def amount(self, value: Any, unit: str, signed: bool = False) -> str:
        """An effect with its unit."""
        if unit in CURRENCIES:
            sign = ("−" if value < 0 else "+" if signed else "") if finite(value) and round(value) else ""
            space = "\u00a0" if self.lang == "nl" else ""
            return f"{sign}{CURRENCIES[unit]}{space}{self.number(abs(value) if finite(value) else value)}"
        return f"{self.plain(value, unit, signed)}\u00a0{self.unit(unit)}"

    def months(self, count: int) -> str:
        """A number of months: ``1 month``, ``11 months``."""
        return f"{self.number(count)}\u00a0{self.say('report.unit.month' if count == 1 else 'report.unit.months')}"

    def mean(self, value: Any, unit: str) -> str:
        """A mean outcome: a percentage for fractions, else an amount."""
        return text.share(value, self.lang) if unit == "fraction" else self.amount(value, unit)

    def percent(self, value: Any) -> str:
        """A fraction as a percentage in a sentence: ``97.3%``, and ``100%`` where it is whole."""
        return text.percentage(value, self.lang)

    def span(self, low: Any, high: Any, unit: str) -> str:
        """``low to high`` without a unit, for a table whose head names it."""
        return self.say("report.span", low=self.plain(low, unit), high=self.plain(high, unit))

    def range(self, low: Any, high: Any, unit: str) -> str:
        """``low to high`` with the unit: behind the last bound, before both for a currency."""
        first = self.amount(low, unit, True) if unit in CURRENCIES else self.plain(low, unit)
        return self.say("report.span", low=first, high=self.amount(high, unit, True))

    # -- profiles ------------------------------------------------------------------------------------------------

    @cached_property
    def profiles(self) -> tuple[Profile, ...]:
        """Profiles of whole groups, the primary outcome first, in the order of the analyses."""
        whole = [p for p in self.document["profiles"] if not p["labels"].get("subgroup") and not is_contrast(p)]
        analyses = list(dict.fromkeys(p["labels"]["analysis"] for p in whole))

        def order(profile: Profile) -> tuple[int, bool]:
            return analyses.index(profile["labels"]["analysis"]), profile["labels"].get("primary") != "true"

        return tuple(sorted(whole, key=order))

    @cached_property
    def lead(self) -> Profile | None:
        """The profile that answers the question: the primary outcome of the first analysis."""
        primary = [p for p in self.profiles if p["labels"].get("primary") == "true"]
        return next(iter(primary or self.profiles), None)

    @cached_property
    def grouped(self) -> bool:
        """Whether units above the person are followed: teams, districts, municipalities."""
        unit = self.lead["labels"].get("unit_of_panel", "") if self.lead else ""
        return unit not in ("", "person")

    @cached_property
    def by_period(self) -> bool:
        """Whether time is counted in measured periods instead of months."""
        return self.period_months != 1 or (self.table and all(len(p["months"]) < 2 for p in self.profiles))

    @property
    def period_months(self) -> int:
        """Months in one measured period, of the profile that answers the question."""
        return self.length_of(self.lead)

    def length_of(self, profile: Profile | None) -> int:
        """Months in one period of a profile; 1 for those by month."""
        own = profile["labels"].get("period_months") if profile else None
        return int(own or (self.protocol.get("table") or {}).get("period_months") or 1)

    def moment(self, month: int, kind: str = "event", profile: Profile | None = None) -> str:
        """``after 36 months``, ``in month 36``, ``in period 2 (12 months each)``, ``in the period measured``."""
        length = self.length_of(profile or self.lead)
        if self.table and all(len(p["months"]) < 2 for p in self.profiles):
            return self.say("report.moment.single")
        if length != 1:
            named = {3: "quarter", 12: "year"}.get(length, "period_long") if self.grouped else "period_long"
            return self.say(f"report.moment.{named}", month=month, length=length)
        if kind == "flow":
            return self.say("report.moment.during", month=month)
        return self.say("report.moment.after_one" if month == 1 else "report.moment.after", month=month)

    def outcome(self, profile: Profile) -> Mapping[str, Any]:
        """The outcome of a profile as the study file defines it."""
        name = profile["estimand"]["outcome"]
        found = (o for o in self.protocol.get("outcomes") or () if o["name"] == name)
        return next(found, {"name": name, "source": "", "kind": profile["estimand"]["kind"]})

    def outcome_word(self, profile: Profile) -> str:
        """The outcome's label."""
        return self.word(profile["estimand"]["outcome"])

    def cumulated_unit(self, profile: Profile) -> str:
        """What the running sum counts, as a key under ``report.cumulated``."""
        estimand, source = profile["estimand"], str(self.outcome(profile).get("source") or "")
        if estimand["unit"] != "fraction":
            return "total"
        if estimand["kind"] == "event":
            return "event" if source.startswith(("exit", "durable")) or not source else "event_other"
        return "benefit" if source in ("state:benefit", "months:benefit") else "state"

    def analysis_name(self, profile: Profile) -> str:
        """The analysis in words, with its variant; the variant alone where there is one analysis."""
        labels = profile["labels"]
        name, variant = self.analysis(labels["analysis"]), labels.get("variant")
        if not variant:
            return name
        if labels["method"] == "pairwise":
            words = (inner(self.word(labels[key])) for key in ("instrument", "comparison"))
            return self.say("report.pair.against", **dict(zip(("first", "second"), words, strict=True)))
        single = len({p["labels"]["analysis"] for p in self.profiles}) == 1
        return self.variant(variant) if single else f"{name}, {self.variant(variant)}"

    def analysis(self, identity: str) -> str:
        """An analysis by its label, else by its method; twins of one method go by their id."""
        if identity in self.labels:
            return str(self.labels[identity])
        methods = {p["labels"]["analysis"]: p["labels"]["method"] for p in self.profiles}
        if list(methods.values()).count(methods.get(identity, "")) != 1:
            return identity.replace("_", " ")
        return self.term("report.method", methods[identity])

    def versus(self, profile: Profile) -> str:
        """Who the starters are compared with, as part of a sentence."""
        estimand = profile["estimand"]
        if is_randomised(profile):
            return self.say("report.versus.control")
        if self.table and estimand["versus"] != "no_adoption":
            return self.say("report.versus.comparison")
        key = f"report.versus.{estimand['versus']}"
        if self.known(key):
            return self.say(key)
        return self.say("report.versus.other", instrument=inner(self.word(estimand["versus"])))

    def without(self, place: str, *profiles: Profile) -> str:
        """What the outcome of the starters is set beside, worded for a place of the report (``report.without``).

        ``never`` for people who stay without the instrument, ``wait`` for those who had not started yet and may do so
        later, ``other`` for those in another instrument, ``mixed`` when the profiles differ.
        """
        kinds = dict.fromkeys(self._beside(profile) for profile in profiles)
        kind = "mixed" if len(kinds) > 1 else next(iter(kinds), "never")
        labels, estimand = profiles[0]["labels"], profiles[0]["estimand"]
        words = {"instrument": labels["instrument"], "other": estimand["versus"]}
        return self.say(f"report.without.{place}.{kind}", **{key: inner(self.word(w)) for key, w in words.items()})

    def _beside(self, profile: Profile) -> str:
        versus = str(profile["estimand"]["versus"])
        if self.table or is_randomised(profile) or versus in ("never", "no_adoption"):
            return "never"
        return "wait" if versus == "wait" else "other"

    def gate(self, profile: Profile) -> Mapping[str, Any]:
        """The gate's verdict on a profile; without one it counts as passed."""
        labels = profile["labels"]
        for gate in self.document.get("gates") or ():
            if gate["analysis"] == labels["analysis"] and gate["outcome"] in (labels["outcome"], "", "*"):
                return gate
        return {"analysis": labels["analysis"], "outcome": labels["outcome"], "verdict": "pass", "shown_anyway": ""}


def is_randomised(profile: Profile) -> bool:
    """Whether the estimate rests on a draw by lot."""
    return bool(profile["estimand"]["identification"] == "randomisation")


def is_secondary(profile: Profile) -> bool:
    """Whether a profile answers the same question another way: the other convention, the unadjusted difference."""
    return profile["labels"].get("variant") in ("start_first", "exit_first", *UNADJUSTED)


def is_contrast(profile: Profile) -> bool:
    """Whether a profile is a difference between two others."""
    labels = profile["labels"]
    return labels.get("kind") in ("contrast", "difference_between_answers") or labels.get("variant") == "contrast"


def defined(profile: Profile) -> bool:
    """Whether the profile can carry lock-in and break-even at all: months in a row, about the same people."""
    return any(measure["status"] != "not_defined" for measure in profile["summary"])


def good_months(profile: Profile) -> list[Mapping[str, Any]]:
    """The months since the start with an estimate that is shown."""
    return [row for row in profile["months"] if row["month"] >= 1 and finite(row["estimate"])]


def since_start(profile: Profile) -> list[Mapping[str, Any]]:
    """The months since the start; those before it (placebo months) are left out."""
    return [row for row in profile["months"] if row["month"] >= 1]


def row_at(profile: Profile, month: int) -> Mapping[str, Any] | None:
    """The month's row, when its estimate is shown."""
    return next((row for row in good_months(profile) if row["month"] == month), None)


def status(profile: Profile) -> str:
    """``ok`` when any month is shown, else why not: ``withheld``, ``suppressed`` or ``not_estimable``."""
    if good_months(profile):
        return "ok"
    found = {row["status"] for row in since_start(profile)}
    return next((name for name in ("withheld", "suppressed") if name in found), "not_estimable")


def interval(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """The simultaneous band of a month where there is one, else its own interval."""
    if finite(row["band_low"]) and finite(row["band_high"]):
        return row["band_low"], row["band_high"]
    return row["ci_low"], row["ci_high"]


def direction(profile: Profile, row: Mapping[str, Any]) -> str:
    """``favourable``, ``unfavourable`` or ``uncertain`` (the band holds zero)."""
    low, high = interval(row)
    if not finite(low) or not finite(high) or low <= 0 <= high:
        return "uncertain"
    better = -1 if profile["labels"].get("better") == "lower" else 1
    return "favourable" if better * row["estimate"] > 0 else "unfavourable"
