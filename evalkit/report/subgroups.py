"""Groups side by side, and the differences between them."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.report import figures
from evalkit.report.blocks import Block, Grid, Heading, Picture, Section, Text
from evalkit.report.effect import alt_month, axis, drawn
from evalkit.report.view import (
    FEW_MONTHS,
    Profile,
    View,
    direction,
    finite,
    good_months,
    inner,
    interval,
    is_contrast,
    row_at,
    status,
)


def subgroups(view: View) -> Section | None:
    """Groups side by side and the differences between them; None without subgroup profiles."""
    profiles = [p for p in view.document["profiles"] if p["labels"].get("subgroup") and not is_contrast(p)]
    if not profiles:
        return None
    blocks: list[Block] = [Text(view.say("report.subgroup.reading"))]
    families: dict[tuple[str, str], list[Profile]] = {}
    for profile in profiles:
        families.setdefault((profile["labels"]["analysis"], _split(profile)[0]), []).append(profile)
    for (analysis, name), members in families.items():
        blocks.append(Heading(view.word(name)))
        planned = any(s["name"] == name and s.get("planned") for s in view.protocol.get("subgroups") or ())
        blocks.append(Text(view.say("report.subgroup.planned" if planned else "report.subgroup.unplanned")))
        outcome = members[0]["labels"]["outcome"]
        primary = [p for p in members if p["labels"].get("primary") == "true"]
        drawn = [
            p
            for p in primary or members
            if p["labels"]["outcome"] == (primary[0]["labels"]["outcome"] if primary else outcome)
        ]
        blocks += _panels(view, [p for p in drawn if status(p) == "ok" and len(p["months"]) >= FEW_MONTHS])
        blocks.append(_group_table(view, members, name))
        contrasts = [p for p in view.document["profiles"] if is_contrast(p) and p["labels"]["analysis"] == analysis]
        found = [p for p in contrasts if p["labels"]["subgroup"].startswith(f"{name}=")]
        blocks += _differences(view, found)
    return Section("subgroups", view.say("report.section.subgroups"), tuple(blocks))


def _split(profile: Profile) -> tuple[str, str]:
    name, _, level = profile["labels"]["subgroup"].partition("=")
    return name, level


def _panels(view: View, profiles: Sequence[Profile]) -> list[Block]:
    if not profiles:
        return []
    unit = profiles[0]["estimand"]["unit"]
    tracks, alt = [], [view.say("report.alt.panels", outcome=inner(view.outcome_word(profiles[0])))]
    for profile in profiles:
        track = drawn(view, profile)
        label, last = view.level(*_split(profile)), good_months(profile)[-1]
        tracks.append(figures.Track(label, track.x, track.y, track.low, track.high, track.band_low, track.band_high))
        alt.append(f"{label}: {inner(alt_month(view, last, unit))}")
    y = view.say("report.axis.effect", outcome=view.outcome_word(profiles[0]), unit=view.unit(unit))
    months = sorted({row["month"] for profile in profiles for row in profile["months"]})
    head = (view.say("report.month.month"), *(f"{track.label} ({view.unit(unit)})" for track in tracks))

    def cell(profile: Profile, month: int) -> str:
        row = row_at(profile, month)
        return f"{view.plain(row['estimate'], unit)} ({view.span(row['ci_low'], row['ci_high'], unit)})" if row else "–"

    rows = tuple((view.number(month), *(cell(profile, month) for profile in profiles)) for month in months)
    caption = view.say("report.figure.panels", level=view.number(100 * profiles[0]["level"]))
    grid = Grid(view.say("report.month.caption_groups"), head, rows, (True,) * len(head))
    return [Picture(figures.panels(tracks, axis(view, profiles[0], y)), " ".join(alt), caption, grid)]


def _group_table(view: View, profiles: Sequence[Profile], name: str) -> Grid:
    keys = ("group", "outcome", "moment", "effect", "range", "verdict", "n_treated")
    rows = []
    for profile in sorted(profiles, key=lambda p: p["labels"].get("primary") != "true"):
        shown, unit = good_months(profile), profile["estimand"]["unit"]
        cells = [view.level(*_split(profile)), view.outcome_word(profile)]
        if shown:
            row = shown[-1]
            cells += [
                view.moment(row["month"], profile["estimand"]["kind"], profile),
                view.amount(row["estimate"], unit, True),
            ]
            cells += [view.range(*interval(row), unit), view.say(f"report.reading.{direction(profile, row)}")]
            cells.append(view.count(row["n_treated"]))
        else:
            reason = view.say(f"report.status.{status(profile)}")
            cells += ["–", "–", "–", reason, view.count(profile["months"][-1]["n_treated"])]
        rows.append(tuple(cells))
    head = tuple(view.say(f"report.subgroup.{key}") for key in keys)
    caption = view.say("report.subgroup.caption", name=inner(view.word(name)))
    return Grid(caption, head, tuple(rows), (False, False, False, True, True, False, True))


def _differences(view: View, contrasts: Sequence[Profile]) -> list[Block]:
    rows: list[tuple[str, ...]] = []
    for profile in contrasts:
        first, _, second = profile["labels"]["subgroup"].partition(" - ")
        names = [view.level(*part.split("=", 1)) if "=" in part else part for part in (first, second)]
        shown, unit = good_months(profile), profile["estimand"]["unit"]
        pair = view.say("report.subgroup.minus", first=names[0], second=names[1])
        if not shown:
            reason = view.say(f"report.status.{status(profile)}")
            rows.append((pair, view.outcome_word(profile), "–", "–", "–", reason))
            continue
        row = shown[-1]
        apart = any(finite(r["band_low"]) and not r["band_low"] <= 0 <= r["band_high"] for r in shown)
        cells = [pair, view.outcome_word(profile), view.moment(row["month"], profile["estimand"]["kind"], profile)]
        cells += [view.amount(row["estimate"], unit, True), view.range(*interval(row), unit)]
        rows.append((*cells, view.say("report.subgroup.differs" if apart else "report.subgroup.same")))
    if not rows:
        return []
    head = tuple(
        view.say(f"report.subgroup.{key}") for key in ("pair", "outcome", "moment", "difference", "range", "test")
    )
    note = view.say("report.subgroup.test_note")
    return [
        Grid(view.say("report.subgroup.differences"), head, tuple(rows), (False, False, False, True, True, False), note)
    ]
