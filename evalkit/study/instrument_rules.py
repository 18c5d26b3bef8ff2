"""The rules about instruments: what may be defined, what belongs to which kind of definition, what can be studied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from evalkit.study.lines import KeyPath
from evalkit.study.model import FAMILIES, STRATEGIES, Codes, Columns, Instrument, Treatment
from evalkit.study.parts import Parts
from evalkit.study.translate import Issue, nearest, not_allowed

BELONGS: Mapping[str, tuple[str, ...]] = {
    "episode": ("name", "family", "kind", "join_gap_days", "open_end_months"),
    "event": ("name", "family", "kind"),
    "combination": ("name", "family", "combine", "within_months"),
    "sequence": ("name", "family", "of", "order"),
}
"""By shape of an ``[[instrument]]``: its keys."""


def types_of(parts: Parts) -> list[str] | None:
    """The types of episode that the study file names; None when its codes cannot be read."""
    codes = parts.get(Codes, "data", "episodes", "codes")
    if parts.raw("data", "episodes", "codes") is None and parts.raw("data", "episodes") is not None:
        codes = {}
    return None if codes is None else list(codes.get("type", {}))


def only_events(parts: Parts) -> bool:
    """Whether every type of episode is a point in time, so that no column need tell an end."""
    events = {instrument.name for _, instrument in parts.each(Instrument, "instrument") if instrument.kind == "event"}
    types = types_of(parts)
    return bool(types) and events.issuperset(types or ())


def instruments(parts: Parts) -> Iterator[Issue]:
    """What is defined agrees with the types of episode, and what is studied is defined."""
    types = types_of(parts)
    for path, instrument in parts.each(Instrument, "instrument"):
        yield from _shape(parts, path, instrument)
        yield from _family(parts, path, instrument)
        if types:
            yield from _names(path, instrument, types)
    yield from _treatment(parts, types)


def _shape(parts: Parts, path: KeyPath, instrument: Instrument) -> Iterator[Issue]:
    """A type, a combination or a sequence, each with its own keys."""
    if instrument.combine and instrument.of:
        yield Issue((*path, "of"), "study.instrument_both", {"name": instrument.name})
        return
    shape = "combination" if instrument.combine else "sequence" if instrument.of else instrument.kind
    given = parts.raw(*path)
    for key in given if isinstance(given, dict) else ():
        if key not in BELONGS[shape]:
            params = {"key": key, "name": instrument.name, "valid": ", ".join(BELONGS[shape])}
            yield Issue((*path, key), "study.instrument_key", params)
    if instrument.of and not instrument.order:
        yield Issue((*path, "order"), "study.missing_key", {"key": "order", "where": "[[instrument]]"})
    if len(set(instrument.combine)) == 1:
        yield Issue((*path, "combine"), "study.combine_few", {"name": instrument.name})
    elif len(set(instrument.combine)) < len(instrument.combine):
        twice = next(part for part in instrument.combine if instrument.combine.count(part) > 1)
        yield Issue((*path, "combine"), "study.duplicate", {"key": "instrument.combine", "value": twice})


def _family(parts: Parts, path: KeyPath, instrument: Instrument) -> Iterator[Issue]:
    """A family of one's own has a word in every language, so that a slip of the pen is not taken for one."""
    family = instrument.family
    if not family or family in FAMILIES:
        return
    languages = parts.get(tuple[str, ...], "languages") or ("nl", "en")
    labels = {language: parts.get(dict[str, str], "labels", language) or {} for language in languages}
    if not all(family in known for known in labels.values()):
        params = {"value": family, "nearest": nearest(family, list(FAMILIES)), "allowed": ", ".join(FAMILIES)}
        yield Issue((*path, "family"), "study.family_unknown", params)


def _names(path: KeyPath, instrument: Instrument, types: list[str]) -> Iterator[Issue]:
    """Types are types; what is made of them has a name of its own."""
    if not instrument.derived:
        if instrument.name not in types:
            yield not_allowed((*path, "name"), instrument.name, types)
        return
    if instrument.name in types:
        yield Issue((*path, "name"), "study.instrument_taken", {"name": instrument.name})
    if instrument.name in (*STRATEGIES, "unknown"):
        yield Issue((*path, "name"), "study.reserved_name", {"name": instrument.name})
    for i, part in enumerate(instrument.combine):
        if part not in types:
            yield not_allowed((*path, "combine", i), part, types)
    if instrument.of and instrument.of not in types:
        yield not_allowed((*path, "of"), instrument.of, types)


def _treatment(parts: Parts, types: list[str] | None) -> Iterator[Issue]:
    """The instrument and what it is compared with are types of episode, or made of them; the cluster is of persons."""
    treatment = parts.get(Treatment, "treatment")
    if treatment is None:
        return
    if types is not None and not types and not treatment.adopts:
        path: KeyPath = ("data", "episodes", "codes", "type")
        yield Issue(path, "study.missing_key", {"key": "type", "where": "[data.episodes.codes]"})
    elif types:
        made = [instrument.name for _, instrument in parts.each(Instrument, "instrument") if instrument.derived]
        names = [*types, *made]
        if treatment.instrument not in names and not treatment.adopts:
            yield not_allowed(("treatment", "instrument"), treatment.instrument, names)
        if treatment.versus not in (*STRATEGIES, *names):
            yield not_allowed(("treatment", "versus"), treatment.versus, [*STRATEGIES, *names])
        for i, other in enumerate(treatment.others):
            if other not in names:
                yield not_allowed(("treatment", "others", i), other, names)
    if treatment.versus == treatment.instrument:
        yield Issue(("treatment", "versus"), "study.versus_itself", {"name": treatment.versus})
    yield from _compared(parts, treatment)
    columns = parts.get(Columns, "data", "persons", "columns")
    of_episodes = parts.get(Columns, "data", "episodes", "columns") or {}
    if columns is not None and treatment.cluster not in ("person", *columns):
        if treatment.cluster in of_episodes:
            yield Issue(("treatment", "cluster"), "study.cluster_of_episodes", {"name": treatment.cluster})
        else:
            yield not_allowed(("treatment", "cluster"), treatment.cluster, ["person", *columns])


def _compared(parts: Parts, treatment: Treatment) -> Iterator[Issue]:
    """Instruments that are compared pair by pair are different ones, and none is a part of another."""
    seen = set(treatment.opposed)
    for i, other in enumerate(treatment.others):
        if other in seen:
            yield Issue(("treatment", "others", i), "study.duplicate", {"key": "treatment.others", "value": other})
        seen.add(other)
    made = {instrument.name: instrument for _, instrument in parts.each(Instrument, "instrument") if instrument.derived}
    names = treatment.compared
    for whole in (made[name] for name in names if name in made):
        for part in (name for name in names if name in whole.parts):
            later = max(whole.name, part, key=names.index)
            if later in treatment.others:
                path = ("treatment", "others", treatment.others.index(later))
                yield Issue(path, "study.compared_part", {"name": whole.name, "part": part})
