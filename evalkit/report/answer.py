"""The question and its answer, in fixed sentence patterns; the caution follows from the diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalkit.report.blocks import Bar, Bars, Block, Callout, Grid, Items, Section, Text
from evalkit.report.changes import changed
from evalkit.report.findings import explained, not_shown, of_analysis
from evalkit.report.view import (
    ADJUSTED,
    CURRENCIES,
    FEW_MONTHS,
    UNADJUSTED,
    Profile,
    View,
    capital,
    defined,
    direction,
    finite,
    good_months,
    inner,
    interval,
    is_randomised,
    row_at,
    status,
)

SMALL = 100
"""Below this number of people in the smaller group the answer says that numbers are small."""

CLOSE_LOOK = 12
"""The month that is shown beside the last one."""


def question(view: View) -> str:
    """What the study asks, from the protocol."""
    profile = view.lead
    if profile is None:
        return ""
    key = "report.question.total" if view.by_period else "report.question.monthly"
    return view.say(key, **_words(view, profile))


def answer(view: View) -> Section:
    """The answer in one paragraph, out of a hundred people, and the other outcomes in one table."""
    profile = view.lead
    if profile is None:
        blocks: list[Block] = [Text(view.say("report.answer.no_profiles"))]
    elif status(profile) != "ok":
        blocks = [not_shown(view, profile)]
        if any(status(p) == "ok" for p in _others(view, profile)):
            blocks.append(Text(view.say("report.answer.other.shown")))
    else:
        blocks = [
            _paragraph(view, profile),
            *_reason_to_show(view, profile),
            *_bars(view, profile),
            _cautions(view, profile),
        ]
    if changed(view):
        blocks.append(Callout(view.say("report.answer.changed.title"), view.say("report.answer.changed.text"), "warn"))
    blocks += _glance(view)
    return Section("answer", view.say("report.section.answer"), tuple(blocks))


def _words(view: View, profile: Profile) -> dict[str, Any]:
    instrument = inner(view.word(profile["labels"]["instrument"]))
    return {
        "instrument": instrument,
        "Instrument": capital(instrument),
        "outcome": inner(view.outcome_word(profile)),
        "Outcome": capital(view.outcome_word(profile)),
        "versus": view.versus(profile),
    }


def verdict_of(view: View, profile: Profile) -> str:
    """``pass``, ``warn`` or ``fail`` of the gate."""
    return str(view.gate(profile)["verdict"])


def _paragraph(view: View, profile: Profile) -> Text:
    row = good_months(profile)[-1]
    estimand, words = profile["estimand"], _words(view, profile)
    words["moment"] = view.moment(row["month"], estimand["kind"], profile)
    words["Moment"] = capital(words["moment"])
    way = direction(profile, row)
    twins, others = _beside(view, profile, row, way)
    sentences = [_size(view, profile, row, words), *twins, view.say(f"report.answer.chance.{way}"), *others]
    early = row_at(profile, CLOSE_LOOK)
    if early and early is not row and not view.by_period:
        then = direction(profile, early)
        sentences.append(
            view.say(
                f"report.answer.early.{'same' if then == way else 'other'}.{then}",
                Moment=capital(view.moment(CLOSE_LOOK, estimand["kind"], profile)),
                effect=view.amount(early["estimate"], estimand["unit"], True),
            )
        )
    if len(profile["months"]) >= FEW_MONTHS:
        sentences += _ground(view, profile)
    lead = view.say(f"report.answer.headline.{way}.{verdict_of(view, profile)}", **words)
    return Text(" ".join(sentences), lead)


def _size(view: View, profile: Profile, row: Mapping[str, Any], words: Mapping[str, Any]) -> str:
    unit = profile["estimand"]["unit"]
    low, high = interval(row)
    params = dict(words, effect=view.amount(row["estimate"], unit, True), range=_margin(view, low, high, unit))
    if unit != "fraction" or not finite(row["counterfactual"]):
        levels = {"with_": "", "without": ""}
        if finite(row["counterfactual"]):
            levels = {
                "with_": view.mean(row["counterfactual"] + row["estimate"], unit),
                "without": view.mean(row["counterfactual"], unit),
            }
        key = "report.answer.size.levels" if levels["without"] else "report.answer.size.effect"
        return view.say(key, **params, **levels)
    with_, without = (100 * (row["counterfactual"] + extra) for extra in (row["estimate"], 0.0))
    return view.say("report.answer.size.hundred", **params, with_=view.number(with_), without=view.number(without))


def _margin(view: View, low: Any, high: Any, unit: str) -> str:
    """The margin beside an amount that has its unit already; a currency is named all the same."""
    return view.range(low, high, unit) if unit in CURRENCIES else view.span(low, high, unit)


def _others(view: View, profile: Profile) -> list[Profile]:
    """The same question by another analysis, or by another variant of this one."""
    same = ("outcome", "instrument", "comparison")

    def alike(other: Profile) -> bool:
        kinds = other["estimand"]["kind"] == profile["estimand"]["kind"]
        return (
            kinds
            and view.length_of(other) == view.length_of(profile)
            and all(other["labels"].get(key) == profile["labels"].get(key) for key in same)
        )

    return [p for p in view.profiles if p is not profile and alike(p)]


def _beside(view: View, profile: Profile, row: Mapping[str, Any], way: str) -> tuple[list[str], list[str]]:
    """The same effect without (or with) adjustment for covariates, and every calculation that says something else."""
    twins: list[str] = []
    sentences: list[str] = []
    for other in _others(view, profile):
        unit, name = other["estimand"]["unit"], view.analysis_name(other)
        found = row_at(other, row["month"]) or next(reversed(good_months(other)), None)
        if found is None:
            if verdict_of(view, other) == "fail":
                sentences.append(view.say("report.answer.other.withheld", analysis=name))
            continue
        words = {
            "effect": view.amount(found["estimate"], unit, True),
            "range": _margin(view, *interval(found), unit),
        }
        there = direction(other, found)
        if there != way:
            sentences.append(view.say(f"report.answer.other.{there}", analysis=name, **words))
        elif other["labels"]["analysis"] == profile["labels"]["analysis"]:
            variant = other["labels"].get("variant")
            kind = "unadjusted" if variant in UNADJUSTED else "adjusted" if variant in ADJUSTED else ""
            twins += [view.say(f"report.answer.twin.{kind}", **words)] if kind else []
    return twins, sentences


def _ground(view: View, profile: Profile) -> list[str]:
    """Whether there was a lock-in, and whether the lost ground came back."""
    unit, lock_in = profile["estimand"]["unit"], profile["lock_in"]
    measures = {measure["measure"]: measure for measure in profile["summary"]}
    if not defined(profile):
        return []
    if not lock_in:
        return [view.say("report.answer.lock_in.hidden")]
    if not lock_in["exists"]:
        return [view.say("report.answer.lock_in.none")]
    depth, length = measures.get("lock_in_depth"), measures.get("lock_in_months")
    if not depth or not length or not finite(depth["estimate"]) or not finite(length["estimate"]):
        return [view.say("report.answer.lock_in.hidden")]
    kind = "established" if lock_in["established"] else "estimate_only"
    months = int(length["estimate"])
    params = {"depth": view.amount(depth["estimate"], unit, True), "months": view.months(months)}
    sentences = [view.say(f"report.answer.lock_in.{kind}", **params)]
    even = measures.get("break_even_month")
    if even and even["status"] in ("reached", "not_reached"):
        horizon = profile["months"][-1]["month"]
        if finite(even["estimate"]):
            certain = finite(even["set_high"])
            key = "report.answer.break_even.certain" if certain else "report.answer.break_even.uncertain"
            low = int(even["set_low"]) if finite(even["set_low"]) else 1
            high = int(even["set_high"]) if certain else ""
            sentences.append(view.say(key, month=int(even["estimate"]), low=low, high=high, horizon=horizon))
        else:
            sentences.append(view.say("report.answer.break_even.not_reached", horizon=horizon))
    return sentences


def _reason_to_show(view: View, profile: Profile) -> list[Block]:
    reason = view.gate(profile)["shown_anyway"]
    if verdict_of(view, profile) != "fail" or not reason:
        return []
    text = view.say("report.answer.shown_anyway.text", reason=reason)
    items = explained(view, profile, ("fail",))
    return [Callout(view.say("report.answer.shown_anyway.title"), text, "fail", items)]


def _bars(view: View, profile: Profile) -> list[Block]:
    """Out of a hundred people, at the last month and at month 12."""
    if profile["estimand"]["unit"] != "fraction":
        return []
    rows = [good_months(profile)[-1], row_at(profile, CLOSE_LOOK)]
    shown = {row["month"]: row for row in rows if row and finite(row["counterfactual"])}
    return [_hundred(view, profile, shown[month]) for month in sorted(shown, reverse=True)]


def _hundred(view: View, profile: Profile, row: Mapping[str, Any]) -> Bars:
    words = _words(view, profile)
    words["moment"] = view.moment(row["month"], profile["estimand"]["kind"], profile)
    bars = []
    for main, share in ((True, row["counterfactual"] + row["estimate"]), (False, row["counterfactual"])):
        share = min(1.0, max(0.0, share))
        label = view.say("report.hundred.with", **words) if main else view.without("bar", profile)
        bars.append(Bar(label, view.say("report.hundred.count", count=round(100 * share)), share, main))
    low, high = (100 * bound for bound in interval(row))
    key = "more" if low > 0 else "fewer" if high < 0 else "both"
    bounds = (abs(low), high) if key == "both" else sorted((abs(low), abs(high)))
    decimals = 0 if min(bounds) >= 1 else 1
    first, last = (view.number(bound, decimals) for bound in bounds)
    text = view.say(f"report.hundred.{key}", instrument=words["instrument"], low=first, high=last)
    return Bars(view.say("report.hundred.title", **words), tuple(bars), text)


def _cautions(view: View, profile: Profile) -> Items:
    """What to bear in mind: always the identification, and what the diagnostics found."""
    estimand, row = profile["estimand"], good_months(profile)[-1]
    items = []
    key = f"report.caution.{estimand['identification']}"
    items.append(view.say(key if view.known(key) else "report.caution.other", **_words(view, profile)))
    if view.known(f"report.caution.population_{estimand['population']}") and not is_randomised(profile):
        items.append(view.say(f"report.caution.population_{estimand['population']}", **_words(view, profile)))
    if months := profile["labels"].get("inflow_months"):
        items.append(view.say("report.caution.inflow", months=view.months(int(months))))
    if estimand["versus"] == "wait" and not is_randomised(profile) and not view.table:
        items.append(view.say("report.caution.wait", **_words(view, profile)))
    smaller = [n for n in (row["n_treated"], row["n_comparison"]) if finite(n)]
    if len(smaller) < 2 or min(smaller) < SMALL:
        few = view.count(min(smaller, default=None)) if len(smaller) == 2 else view.count(None)
        items.append(view.say("report.caution.small", count=few))
    warned = explained(view, profile, ("warn",), remedies=False)
    told = any(
        f["code"] == "composition_varying" and f["scope"] in ("", profile["labels"]["outcome"])
        for f in of_analysis(view, profile["labels"]["analysis"])
    )
    if profile["composition"] == "varying" and not told:
        items.append(view.say("report.caution.varying"))
    if row["month"] != profile["months"][-1]["month"]:
        items.append(view.say("report.caution.months_hidden", month=row["month"], last=profile["months"][-1]["month"]))
    items += warned
    return Items(tuple(("", item) for item in items), view.say("report.caution.label"))


def _glance(view: View) -> list[Block]:
    """All outcomes of all analyses in one table, when there is more than one."""
    if len(view.profiles) < 2:
        return []
    several = len({view.analysis_name(p) for p in view.profiles}) > 1
    names = (
        ["outcome"] + (["analysis"] if several else []) + ["moment", "with", "without", "effect", "range", "reading"]
    )
    rows = []
    for profile in view.profiles:
        head = [view.outcome_word(profile)] + ([capital(view.analysis_name(profile))] if several else [])
        rows.append(tuple(head + _glance_cells(view, profile)))
    numeric = tuple(name in ("with", "without", "effect", "range") for name in names)
    shown = [profile for profile in view.profiles if good_months(profile)]
    notes = [view.without("note", *shown)] if shown else []
    notes += [view.say("report.glance.note")] if several else []
    words = {"without": view.without("head", *view.profiles)}
    heads = tuple(words.get(name) or view.say(f"report.glance.{name}") for name in names)
    return [Grid(view.say("report.glance.caption"), heads, tuple(rows), numeric, " ".join(notes))]


def _glance_cells(view: View, profile: Profile) -> list[str]:
    rows, unit = good_months(profile), profile["estimand"]["unit"]
    if not rows:
        return ["–"] * 5 + [view.say(f"report.status.{status(profile)}")]
    row = rows[-1]
    with_ = row["counterfactual"] + row["estimate"] if finite(row["counterfactual"]) else None
    return [
        view.moment(row["month"], profile["estimand"]["kind"], profile),
        view.mean(with_, unit),
        view.mean(row["counterfactual"], unit),
        view.amount(row["estimate"], unit, True),
        view.range(*interval(row), unit),
        view.say(f"report.reading.{direction(profile, row)}"),
    ]
