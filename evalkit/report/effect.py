"""The effect by month, and the lock-in with its repayment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.report import figures
from evalkit.report.blocks import Block, Grid, Heading, Picture, Section, Text
from evalkit.report.findings import not_shown
from evalkit.report.view import (
    CURRENCIES,
    FEW_MONTHS,
    Profile,
    View,
    capital,
    defined,
    finite,
    good_months,
    inner,
    is_secondary,
    row_at,
    since_start,
    status,
)

MONTH_MEASURES = ("crossing_month", "break_even_month")


def effects(view: View) -> Section:
    """A figure and a table per outcome and analysis; profiles of a few months share one table."""
    blocks: list[Block] = []
    if any(status(profile) == "ok" for profile in view.profiles):
        blocks.append(Text(view.say("report.effect.reading_few" if _all_few(view) else "report.effect.reading")))
    done: set[str] = set()
    for profile in view.profiles:
        name = profile["labels"]["outcome"]
        few = len(profile["months"]) < FEW_MONTHS
        if few and name in done:
            continue
        blocks.append(Heading(_title(view, profile, few)))
        if few:
            done.add(name)
            twins = [p for p in view.profiles if p["labels"]["outcome"] == name and len(p["months"]) < FEW_MONTHS]
            blocks += _few(view, twins)
        elif status(profile) != "ok":
            blocks.append(not_shown(view, profile, brief=True))
        else:
            blocks += _many(view, profile)
    return Section("effect", view.say("report.section.effect"), tuple(blocks))


def _all_few(view: View) -> bool:
    return all(len(profile["months"]) < FEW_MONTHS for profile in view.profiles)


def _title(view: View, profile: Profile, few: bool = False) -> str:
    """The outcome, and the analysis where that tells profiles apart."""
    outcome = view.outcome_word(profile)
    single = len({p["labels"]["analysis"] for p in view.profiles}) == 1
    if few or (single and not profile["labels"].get("variant")):
        return outcome
    return view.say("report.effect.title", outcome=outcome, analysis=view.analysis_name(profile))


def drawn(view: View, profile: Profile) -> figures.Track:
    """The profile as a line with interval and band, in printed units."""
    rows = profile["months"]
    unit = profile["estimand"]["unit"]

    def column(key: str) -> tuple[float | None, ...]:
        return tuple(view.scaled(row[key], unit) for row in rows)

    has_band = any(finite(row["band_low"]) for row in rows)
    return figures.Track(
        label="",
        x=tuple(float(row["month"]) for row in rows),
        y=column("estimate"),
        low=column("ci_low"),
        high=column("ci_high"),
        band_low=column("band_low") if has_band else (),
        band_high=column("band_high") if has_band else (),
    )


def axis(view: View, profile: Profile, y: str) -> figures.Axis:
    """The month axis of the profile's clock."""
    clock = profile["estimand"]["clock"]
    length = view.length_of(profile)
    named = {3: "quarter", 12: "year"}.get(length, "period") if view.grouped else "period"
    single = view.table and len(profile["months"]) < 2
    key = f"report.axis.{named}" if length != 1 or single else f"report.axis.{clock}"
    return figures.Axis(view.lang, view.say(key if view.known(key) else "report.axis.start"), y)


def _many(view: View, profile: Profile) -> list[Block]:
    blocks: list[Block] = [_profile_picture(view, profile)]
    if profile is view.lead:
        blocks += _levels(view, profile) + _running(view, profile)
    return blocks


def lock_in_months(profile: Profile) -> int:
    """How many months the lock-in of the estimate lasts; 0 when there is none or it is not shown."""
    if not profile["lock_in"] or not profile["lock_in"]["exists"]:
        return 0
    length = next((m["estimate"] for m in profile["summary"] if m["measure"] == "lock_in_months"), None)
    return int(length or 0) if finite(length) else 0


def _profile_picture(view: View, profile: Profile) -> Picture:
    unit = profile["estimand"]["unit"]
    better = -1.0 if profile["labels"].get("better") == "lower" else 1.0
    last = good_months(profile)[-1]
    level = view.number(100 * profile["level"])
    words = {
        "interval": view.say("report.figure.interval", level=level),
        "band": view.say("report.figure.band", level=level),
        "lock_in": view.say("report.figure.lock_in"),
        "better": view.say("report.figure.better"),
        "worse": view.say("report.figure.worse"),
        "end": view.plain(last["estimate"], unit),
        "start": view.say("report.figure.start"),
    }
    y = view.say("report.axis.effect", outcome=view.outcome_word(profile), unit=view.unit(unit))
    png = figures.profile(drawn(view, profile), axis(view, profile, y), lock_in_months(profile), better, words)
    caption = view.say(
        "report.figure.profile",
        instrument=inner(view.word(profile["labels"]["instrument"])),
        outcome=inner(view.outcome_word(profile)),
        versus=view.versus(profile),
        level=level,
    )
    return Picture(png, _alt(view, profile), caption, _month_table(view, profile))


def _alt(view: View, profile: Profile) -> str:
    unit, rows = profile["estimand"]["unit"], good_months(profile)
    better = -1 if profile["labels"].get("better") == "lower" else 1
    low, last = min(rows, key=lambda row: better * row["estimate"]), rows[-1]
    parts = [
        view.say(
            "report.alt.profile", outcome=inner(view.outcome_word(profile)), first=rows[0]["month"], last=last["month"]
        )
    ]
    early = [row["estimate"] for row in profile["months"] if row["month"] < 1 and finite(row["estimate"])]
    if early:
        low_, high_ = (view.amount(value, unit, True) for value in (min(early), max(early)))
        parts.append(view.say("report.alt.before", count=len(early), low=low_, high=high_))
    if better * low["estimate"] < 0:
        parts.append(view.say("report.alt.lowest", month=low["month"], effect=view.amount(low["estimate"], unit, True)))
    for row in dict.fromkeys(r["month"] for r in (row_at(profile, 12), row_at(profile, 24), last) if r):
        found = row_at(profile, row)
        if found:
            parts.append(alt_month(view, found, unit))
    return " ".join(parts)


def alt_month(view: View, row: Mapping[str, Any], unit: str) -> str:
    """One month's effect with its interval, for an alternative text."""
    return view.say(
        "report.alt.month",
        month=row["month"],
        effect=view.amount(row["estimate"], unit, True),
        range=view.span(row["ci_low"], row["ci_high"], unit),
    )


def _month_table(view: View, profile: Profile) -> Grid:
    """The numbers of the figure, month by month."""
    unit, level = profile["estimand"]["unit"], view.number(100 * profile["level"])
    banded = any(finite(row["band_low"]) for row in profile["months"])
    levels = any(finite(row["counterfactual"]) for row in profile["months"])
    words = {"unit": view.unit(unit), "level": level}
    head = [view.say(f"report.month.{name}", **words) for name in ("month", "effect", "interval")]
    head += [view.say("report.month.band", **words)] if banded else []
    head += [view.say("report.month.with"), view.without("head", profile)] if levels else []
    head += [view.say("report.month.n_treated"), view.say("report.month.n_comparison")]
    rows = []
    for row in profile["months"]:
        if finite(row["estimate"]):
            cells = [view.plain(row["estimate"], unit), view.span(row["ci_low"], row["ci_high"], unit)]
            cells += [view.span(row["band_low"], row["band_high"], unit)] if banded else []
            with_ = row["estimate"] + row["counterfactual"] if finite(row["counterfactual"]) else None
            cells += [view.mean(with_, unit), view.mean(row["counterfactual"], unit)] if levels else []
        else:
            cells = [view.say(f"report.cell.{row['status']}")] + [""] * (1 + banded + 2 * levels)
        cells += [view.count(row["n_treated"]), view.count(row["n_comparison"])]
        base = row["month"] < 1 and row["std_error"] == 0 and row["estimate"] == 0
        if base:
            cells[: 2 + banded] = [view.say("report.cell.base")] + ["–"] * (1 + banded)
        rows.append((view.number(row["month"]), *cells))
    caption = view.say("report.month.caption", outcome=inner(view.outcome_word(profile)))
    return Grid(caption, tuple(head), tuple(rows), (True,) * len(head))


def _levels(view: View, profile: Profile) -> list[Block]:
    """The outcome itself, with and without the instrument."""
    rows, unit = profile["months"], profile["estimand"]["unit"]
    shown = [row for row in good_months(profile) if finite(row["counterfactual"])]
    if not shown:
        return []
    months = tuple(float(row["month"]) for row in rows)

    def scaled(extra: bool) -> tuple[float | None, ...]:
        known = [finite(row["estimate"]) and finite(row["counterfactual"]) for row in rows]
        values = []
        for row, ok in zip(rows, known, strict=True):
            values.append(row["counterfactual"] + (row["estimate"] if extra else 0.0) if ok else None)
        return tuple(view.scaled(value, unit) for value in values)

    instrument = inner(view.word(profile["labels"]["instrument"]))
    names = [view.say("report.figure.with", instrument=instrument), view.without("line", profile)]
    tracks = [figures.Track(name, months, scaled(extra)) for name, extra in zip(names, (True, False), strict=True)]
    y = view.outcome_word(profile) + ("" if unit == "fraction" else f" ({view.unit(unit)})")
    frame = figures.Axis(view.lang, axis(view, profile, "").x, y, percent=unit == "fraction")
    words = {"outcome": inner(view.outcome_word(profile)), "main": names[0], "beside": names[1]}
    alt = [view.say("report.alt.levels", **words)]
    for row in {row["month"]: row for row in shown if row["month"] in (12, shown[-1]["month"])}.values():
        with_, without = row["counterfactual"] + row["estimate"], row["counterfactual"]
        params = {"with_": view.mean(with_, unit), "without": view.mean(without, unit)}
        alt.append(view.say("report.alt.levels_month", month=row["month"], **params, **words))
    words |= {"instrument": instrument, "versus": view.versus(profile), "without": view.without("levels", profile)}
    head = (view.say("report.month.month"), view.say("report.month.with"), view.without("head", profile))
    table = tuple(
        (
            view.number(row["month"]),
            view.mean(row["counterfactual"] + row["estimate"], unit),
            view.mean(row["counterfactual"], unit),
        )
        for row in shown
    )
    grid = Grid(view.say("report.month.caption_levels", **words), head, table, (True,) * 3)
    return [
        Picture(
            figures.lines(tracks, frame, floor=unit in ("fraction", "months") or unit in CURRENCIES),
            " ".join(alt),
            view.say("report.figure.levels", **words),
            grid,
        )
    ]


def _running(view: View, profile: Profile) -> list[Block]:
    """The running sum: when the lost ground is made up."""
    rows = [row for row in profile.get("cumulated") or () if finite(row["estimate"])]
    if len(rows) < FEW_MONTHS or view.length_of(profile) != 1:
        return []
    kind = view.cumulated_unit(profile)
    unit = "months" if profile["estimand"]["unit"] == "fraction" else profile["estimand"]["unit"]
    band = all(finite(row["band_low"]) for row in rows)
    edges = [tuple(row[key] for row in rows) if band else () for key in ("band_low", "band_high")]
    track = figures.Track(
        view.number(rows[-1]["estimate"], 0 if unit in CURRENCIES else 1, True),
        tuple(float(row["month"]) for row in rows),
        tuple(row["estimate"] for row in rows),
        low=edges[0],
        high=edges[1],
    )
    words = {"what": view.say(f"report.cumulated.{kind}", unit=view.unit(unit))}
    frame = axis(view, profile, capital(words["what"]))
    alt = [view.say("report.alt.cumulated", **words)]
    for row in {r["month"]: r for r in rows if r["month"] in (12, 24, rows[-1]["month"])}.values():
        alt.append(
            view.say("report.alt.cumulated_month", month=row["month"], effect=view.amount(row["estimate"], unit, True))
        )
    head = tuple(view.say(f"report.month.{key}") for key in ("month", "sum", "sum_band"))
    table = tuple(
        (view.number(r["month"]), view.plain(r["estimate"], unit), view.span(r["band_low"], r["band_high"], unit))
        for r in rows
    )
    grid = Grid(view.say("report.month.caption_sum", **words), head, table, (True,) * 3)
    return [
        Picture(
            figures.lines([track], frame, zero=True), " ".join(alt), view.say("report.figure.cumulated", **words), grid
        )
    ]


def _few(view: View, profiles: Sequence[Profile]) -> list[Block]:
    """Profiles of one outcome with a few months: intervals and one table."""
    unit, single = profiles[0]["estimand"]["unit"], all(len(p["months"]) == 1 for p in profiles)
    labels, values, rows, alt = [], [], [], []
    for profile in profiles:
        for row in since_start(profile):
            moment = capital(view.moment(row["month"], profile["estimand"]["kind"], profile))
            name = capital(view.analysis_name(profile))
            labels.append(name if single else f"{name}, {inner(moment)}")
            values.append(tuple(view.scaled(row[key], unit) for key in ("estimate", "ci_low", "ci_high")))
            rows.append((name, *_few_cells(view, profile, row, moment)))
            if finite(row["estimate"]):
                params = {"name": labels[-1], "effect": view.amount(row["estimate"], unit, True)}
                margin = view.range(row["ci_low"], row["ci_high"], unit)
                alt.append(view.say("report.alt.interval", **params, range=margin))
    names = ("analysis", "moment", "with", "without", "effect", "interval", "n_treated", "n_comparison")
    level = view.number(100 * profiles[0]["level"])
    words = {"without": view.without("head", *profiles)}
    head = tuple(words.get(n) or view.say(f"report.few.{n}", unit=view.unit(unit), level=level) for n in names)
    outcome = inner(view.outcome_word(profiles[0]))
    grid = Grid(view.say("report.few.caption", outcome=outcome), head, tuple(rows), (False, False, *[True] * 6))
    hidden: list[Block] = [not_shown(view, p, brief=True) for p in profiles if status(p) != "ok"]
    if not alt:
        return hidden
    frame = figures.Axis(view.lang, view.say("report.axis.effect_x", unit=view.unit(unit)), "")
    text = " ".join([view.say("report.alt.intervals", outcome=outcome), *alt])
    caption = view.say("report.figure.intervals", outcome=outcome, level=level)
    return [*hidden, Picture(figures.intervals(labels, values, frame), text, caption, grid)]


def _few_cells(view: View, profile: Profile, row: Mapping[str, Any], moment: str) -> list[str]:
    unit = profile["estimand"]["unit"]
    counts = [view.count(row["n_treated"]), view.count(row["n_comparison"])]
    if not finite(row["estimate"]):
        return [moment, "–", "–", view.say(f"report.cell.{row['status']}"), "", *counts]
    with_ = row["estimate"] + row["counterfactual"] if finite(row["counterfactual"]) else None
    levels = [view.mean(with_, unit), view.mean(row["counterfactual"], unit)]
    return [moment, *levels, view.plain(row["estimate"], unit), view.span(row["ci_low"], row["ci_high"], unit), *counts]


# -- lock-in --------------------------------------------------------------------------------------------------------


def lock_in(view: View) -> Section | None:
    """Depth, length and repayment of the lock-in, a table an outcome; nothing for profiles of a few months."""
    profiles = [p for p in view.profiles if len(p["months"]) >= FEW_MONTHS and p["summary"] and not is_secondary(p)]
    profiles = [p for p in profiles if status(p) == "ok" and defined(p)]
    if not profiles:
        return None
    blocks: list[Block] = [Text(view.say("report.lock_in.reading"))]
    for profile in profiles:
        blocks.append(Heading(_title(view, profile)))
        blocks.append(Text(view.say(f"report.lock_in.verdict.{_lock_in_kind(profile)}")))
        blocks.append(_measures(view, profile))
    return Section("lock-in", view.say("report.section.lock_in"), tuple(blocks))


def _lock_in_kind(profile: Profile) -> str:
    if not profile["lock_in"]:
        return "hidden"
    if not profile["lock_in"]["exists"]:
        return "none"
    return "established" if profile["lock_in"]["established"] else "estimate_only"


def _measures(view: View, profile: Profile) -> Grid:
    rows = tuple(_measure(view, profile, measure) for measure in profile["summary"])
    level = view.number(100 * profile["level"])
    head = tuple(view.say(f"report.measure.{key}", level=level) for key in ("name", "value", "set", "meaning"))
    note = view.say("report.measure.note", horizon=profile["months"][-1]["month"])
    caption = view.say("report.measure.caption", outcome=inner(view.outcome_word(profile)))
    return Grid(caption, head, rows, (False,) * 4, note)


def _measure(view: View, profile: Profile, measure: Mapping[str, Any]) -> tuple[str, ...]:
    name, horizon, unit = measure["measure"], profile["months"][-1]["month"], profile["estimand"]["unit"]
    base, _, months = name.partition("cumulated_")
    what = view.say(f"report.cumulated.{view.cumulated_unit(profile)}", unit=view.unit(unit))
    label = view.say("measure.cumulated", months=int(months)) if months else view.term("measure", name)
    key = f"report.meaning.{'cumulated' if months else base}"
    meaning = capital(view.say(key, what=what)) if view.known(key) else ""
    kind = measure["status"]
    estimate, low, high = measure["estimate"], measure["set_low"], measure["set_high"]
    if kind in ("suppressed", "withheld", "not_estimable", "not_defined"):
        return label, view.say(f"report.measure_status.{kind}"), "–", meaning
    summed = bool(months) or name == "lock_in_volume"
    scale = "months" if summed and unit == "fraction" else unit
    if name in MONTH_MEASURES:
        margin = _month_set(view, low, high, horizon)
    elif name == "lock_in_months":
        margin = _length_set(view, low, high, horizon)
    else:
        margin = view.range(low, high, scale) if finite(low) and finite(high) else "–"
    if kind == "no_lock_in":
        value = view.say("report.measure_status.no_lock_in")
    elif not finite(estimate):
        value = view.say("report.measure_status.not_reached", horizon=horizon)
    elif name in MONTH_MEASURES:
        value = view.say("report.measure_status.month", month=int(estimate))
    elif name == "lock_in_months":
        value = view.months(int(estimate))
    else:
        value = view.amount(estimate, scale, True)
    return label, value, margin, meaning


def _month_set(view: View, low: Any, high: Any, horizon: int) -> str:
    if finite(low) and finite(high):
        if low == high:
            return view.say("report.set.month", month=int(low))
        return view.say("report.set.months", low=int(low), high=int(high))
    if finite(low) and low <= horizon:
        return view.say("report.set.open", low=int(low), horizon=horizon)
    return view.say("report.set.beyond", horizon=horizon)


def _length_set(view: View, low: Any, high: Any, horizon: int) -> str:
    if finite(low) and finite(high):
        return view.say("report.set.length", low=int(low), high=view.months(int(high)))
    if finite(low):
        return view.say("report.set.length_open", low=int(low), horizon=horizon)
    return "–"
