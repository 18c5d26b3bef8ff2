"""What may be told of a register: rounded, merged, audited, nothing of a single person; and what is drawn from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import twin_example as example

from evalkit import register, simulate
from evalkit import study as studies
from evalkit.errors import DisclosureError, EvalkitError, UsageError
from evalkit.simulate import Aggregates, Effect
from evalkit.simulate.rounding import Rules, cut, nice, runs
from evalkit.study import Study, template

PERSONS = 6_000


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with planted values and its files."""
    folder = tmp_path_factory.mktemp("own")
    made = example.study(folder)
    example.write(folder, example.plant(example.tables(PERSONS)), made)
    return made


@pytest.fixture(scope="module")
def told(own: Study) -> Aggregates:
    return simulate.gather(own.path)[1]


def numbers(item: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str, float, dict[str, Any]]]:
    """Every number of a document: where, under which key, its value and what stands beside it."""
    if isinstance(item, list):
        for i, one in enumerate(item):
            yield from numbers(one, (*path, i))
    elif isinstance(item, dict):
        for key, value in item.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield path, key, value, item
            yield from numbers(value, (*path, key))


# -- rounding -------------------------------------------------------------------------------------------------------


def test_counts_are_rounded_and_small_ones_are_nothing() -> None:
    rules = Rules(10)
    assert [rules.count(n) for n in (0, 9, 10, 14, 15, 20)] == [0, 0, 10, 10, 20, 20]
    assert [rules.part(n, 100) for n in (3, 9, 10, 50, 91, 100)] == [0, 0, 10, 50, 100, 100]
    assert rules.splits(10, 20) and not rules.splits(9, 20) and not rules.splits(11, 20)
    assert rules.months(3, 2) == 20 and rules.months(33, 2) == 40 and rules.months(700, 60) == 720
    assert Rules(1).minimum == 5


def test_runs_have_enough_and_lose_nobody() -> None:
    assert list(runs([3, 4, 5, 1, 9, 2], 10)) == [(0, 3), (3, 6)]
    assert list(runs([3, 4], 10)) == []
    assert list(runs([12, 3, 3, 3, 3], 5, 100, 2)) == [(0, 2), (2, 5)]


def test_groups_of_numbers_hide_extremes_and_single_values() -> None:
    rng = np.random.default_rng(1)
    values = np.round(np.exp(rng.normal(6, 1, 3_000)), 2)
    values[:9] = 987_654.32
    cuts, group = cut(values, Rules(10))
    assert min(np.bincount(group)) >= 10 and len(np.bincount(group)) == len(cuts)
    assert max(c.high for c in cuts) < 50_000
    assert not {c.low for c in cuts} & set(values) and all(c.low % 10 == 0 for c in cuts)
    few, group = cut(np.array([0.0] * 50 + [1.0] * 30 + [7.25] * 3), Rules(10))
    assert [(c.low, c.high) for c in few] == [(0.0, 0.0), (1.0, 1.0)] and np.bincount(group).tolist() == [50, 33]
    assert cut(np.arange(9.0), Rules(10))[0] == ()
    assert [nice(x) for x in (0.013, 0.17, 0.6, 4, 80)] == pytest.approx([0.01, 0.2, 0.5, 5, 100])


# -- nothing of a person --------------------------------------------------------------------------------------------


def test_nothing_planted_is_told_or_drawn(own: Study, told: Aggregates, capfd: pytest.CaptureFixture[str]) -> None:
    made = simulate.make(own, told, seed=3)
    for name, content in made.files.items():
        text = content.decode("cp1252")
        assert example.MARKER not in text, name
        assert example.RARE_NUMBER not in text and example.RARE_NUMBER.replace(".", ",") not in text, name
        assert example.RARE_DAY.replace("-", "/") not in text and ";1931;" not in text, name
        assert "1931" not in text or name.endswith("truth.json") or "csv" in name and not re.search(r"/1931\b", text)
    assert example.MARKER not in "".join(capfd.readouterr())
    assert made.empty == ("note",)


def test_one_person_more_makes_a_value_known(own: Study) -> None:
    made = example.plant(example.tables(PERSONS))
    made["persons"].loc[made["persons"].index[: example.COMMON + 1], "nationality"] = f"{example.MARKER} land"
    columns = simulate.aggregates(own, frames(own, made)).columns
    told = next(column for column in columns if column.name == "nationality")
    assert f"{example.MARKER} land" in {level.value for level in told.levels}


def frames(own: Study, made: dict[str, pd.DataFrame]) -> register.Register:
    """Tables with own codes as a register."""
    made = {name: frame.copy() for name, frame in made.items()}
    made["persons"]["sex"] = made["persons"]["sex"].map({"m": "man", "v": "woman"})
    made["benefits"]["reason"] = made["benefits"]["reason"].map({"01": "work", "21": "education", "77": "other"})
    made["episodes"]["type"] = made["episodes"]["type"].map({"Café S1": "training", "C": "coaching"})
    return register.from_frames(own, **made)


def test_faults_tell_nothing(own: Study, tmp_path: Path) -> None:
    made = example.plant(example.tables(15))
    study = example.study(tmp_path)
    example.write(tmp_path, made, study)
    with pytest.raises(EvalkitError) as caught:
        simulate.gather(study.path)
    assert all(example.MARKER not in caught.value.text(lang) for lang in ("nl", "en"))


# -- enough persons behind every number -----------------------------------------------------------------------------


def test_every_number_rests_on_enough_persons_by_a_count_of_its_own(own: Study, told: Aggregates) -> None:
    made = example.plant(example.tables(PERSONS))
    people, spells = made["persons"], made["benefits"]
    for column in told.columns:
        if column.kind == "category":
            own_of = {"man": "m", "woman": "v"}
            for level in column.levels:
                count = (people[column.name] == own_of.get(str(level.value), level.value)).sum()
                assert count >= 10 and abs(count - level.persons) <= 5 + (level is min_level(column)) * 10
        if column.kind == "number":
            values = people[column.name].dropna()
            for level in column.levels[1:-1]:
                count = ((values >= level.low) & (values < level.high)).sum()
                assert count >= 10 and abs(count - level.persons) <= 5
    first = spells.groupby("person")["start"].min()
    quarter = first.dt.year * 4 + first.dt.quarter - 1
    for row in told.inflow:
        low, high = (int(text[:4]) * 4 + int(text[-1]) - 1 for text in (row.first, row.last))
        count = quarter.between(low, high).sum()
        assert count >= 10 and abs(count - row.persons) <= 5
    document = told.document
    for path, key, value, _ in numbers(document):
        if key in ("persons", "events", "part", "exits", "starts", "exits_expected", "starts_expected"):
            assert value % 10 == 0 and (value > 0 or key != "persons"), path


def min_level(column: Any) -> Any:
    """The smallest of the levels: the rare ones may have joined it."""
    return min(column.levels, key=lambda level: level.persons)


def test_bands_have_persons_with_and_without_an_event(own: Study, told: Aggregates) -> None:
    made = example.plant(example.tables(PERSONS))
    spells = made["benefits"]
    last = pd.Timestamp(2023, 12, 31)
    begun = made["episodes"][made["episodes"]["type"] == "Café S1"].groupby("person")["start"].min()
    first_start = spells["person"].map(begun).fillna(pd.Timestamp.max)
    for band in told.exits[0].bands:
        if not band.events:
            continue
        at_risk = spells["start"] + pd.to_timedelta(band.first * 30.4, "D") <= spells["end"].fillna(last)
        lasted = (spells["end"] - spells["start"]).dt.days / 30.4375
        inside = lasted.between(band.first - 0.1, band.last + 0.1) & (first_start > spells["end"])
        hit = spells[inside & (spells["reason"] == "01")]["person"].nunique()
        assert hit >= 10 and spells[at_risk]["person"].nunique() - hit >= 10


def test_the_audit_passes_what_is_made_and_stops_what_is_changed(told: Aggregates) -> None:
    document = told.document
    simulate.audit(document, 10)
    assert Aggregates.from_json(told.to_json()) == told

    def changed(change: Any) -> str:
        spoilt = told.document
        change(spoilt)
        with pytest.raises(DisclosureError) as caught:
            simulate.audit(spoilt, 10)
        assert caught.value.exit_code == 5
        return {fault.code for fault in caught.value.faults}.pop()

    assert changed(lambda d: d["columns"][0]["levels"][0].update(persons=5)) in ("twin.small", "twin.unrounded")
    assert changed(lambda d: d["inflow"][0].update(persons=0)) == "twin.small"
    assert changed(lambda d: d["inflow"][0].update(persons=123)) == "twin.unrounded"
    assert changed(lambda d: d["exits"][0]["bands"][0].update(months=7)) == "twin.unrounded"
    assert changed(lambda d: d["with_spell"].update(part=d["with_spell"]["persons"] + 10)) == "twin.small"
    assert changed(lambda d: d.update(minimum=5)) == "twin.minimum"
    assert changed(lambda d: d["inflow"][0].update(name="x", count=10)) == "twin.unknown"
    assert changed(lambda d: d["columns"][0].update(remark="x")) == "twin.unknown"
    assert changed(lambda d: d["columns"][2]["levels"][0].update(low=812.37, high=1000.0)) == "twin.exact"


def test_aggregates_from_elsewhere_are_audited_and_must_belong_to_the_study(
    own: Study, told: Aggregates, tmp_path: Path
) -> None:
    path = tmp_path / "aggregates.json"
    path.write_text(told.to_json(), "utf-8")
    assert simulate.load(path, own.path)[1] == told and simulate.load(tmp_path, own.path)[1] == told
    path.write_text(told.to_json().replace('"persons": 6000', '"persons": 6003'), "utf-8")
    with pytest.raises(DisclosureError, match="twin.unrounded"):
        simulate.load(path, own.path)
    path.write_text(told.to_json().replace('"name": "note"', '"name": "other"'), "utf-8")
    with pytest.raises(UsageError, match="twin.other_study"):
        simulate.load(path, own.path)
    for text in ("{}", "[", '{"schema": 2}'):
        path.write_text(text, "utf-8")
        with pytest.raises(UsageError, match="twin.unreadable"):
            simulate.load(path, own.path)
    with pytest.raises(UsageError, match="twin.unreadable"):
        simulate.load(tmp_path / "nothing.json", own.path)


# -- order, differences, size ---------------------------------------------------------------------------------------


def test_shuffled_rows_give_the_same_aggregates(own: Study, told: Aggregates) -> None:
    made = example.plant(example.tables(PERSONS))
    shuffled = {name: frame.sample(frac=1, random_state=4) for name, frame in made.items()}
    one, two = (simulate.aggregates(own, frames(own, tables)) for tables in (made, shuffled))
    assert one.to_json() == two.to_json()
    assert one.model_copy(update={"layouts": told.layouts}) == told


def test_a_person_less_moves_a_number_by_one_step_at_most(own: Study) -> None:
    made = example.tables(PERSONS)
    whole = simulate.aggregates(own, frames(own, made)).document
    moved = same = regrouped = 0
    for i in np.random.default_rng(2).choice(PERSONS, 12, replace=False):
        gone = made["persons"]["person"].iloc[i]
        less = {name: frame[frame["person"] != gone] for name, frame in made.items()}
        again = simulate.aggregates(own, frames(own, less)).document
        for part, other in pairs(whole, again):
            if limits(part) != limits(other):
                regrouped += 1
                continue
            for row, twin in zip(part, other, strict=True):
                for key in row:
                    if isinstance(row[key], int | float) and key not in ("low", "high", "first", "last"):
                        step = 10 * min(row["last"] - row["first"], 12) if key == "months" else 10
                        assert abs(row[key] - twin[key]) <= step, (row, twin)
                        moved, same = moved + (row[key] != twin[key]), same + (row[key] == twin[key])
    assert moved < 0.02 * same and regrouped <= 12


def limits(rows: list[dict[str, Any]]) -> list[Any]:
    """What the rows of a table are about."""
    return [[row.get(key) for key in ("value", "low", "high", "first", "last", "code")] for row in rows]


def pairs(one: Any, two: Any) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """The tables of two documents side by side."""
    if isinstance(one, list) and one and isinstance(one[0], dict) and "persons" in one[0]:
        yield one, two
    elif isinstance(one, list | dict):
        keys = range(min(len(one), len(two))) if isinstance(one, list) else one
        for key in keys:
            yield from pairs(one[key], two[key])


@pytest.mark.parametrize("persons", [20, 60])
def test_a_small_register_is_merged_or_refused(persons: int, tmp_path: Path) -> None:
    study = example.study(tmp_path)
    made = example.tables(persons, 3)
    if persons == 20:
        with pytest.raises(DisclosureError, match="twin.too_few") as caught:
            simulate.aggregates(study, frames(study, made))
        assert caught.value.exit_code == 5
        return
    told = simulate.aggregates(study, frames(study, made))
    simulate.audit(told.document, 10)
    assert sum(len(exit_.bands) for exit_ in told.exits) <= 5 and len(told.instruments[0].starts) == 1
    assert len(told.inflow) <= 6 and all(row.persons >= 10 for row in told.inflow)
    twin = simulate.make(study, told, seed=1)
    assert twin.persons == 60 and len(twin.files) == 7


# -- what is refused ------------------------------------------------------------------------------------------------


def test_studies_that_cannot_have_a_twin(own: Study, tmp_path: Path) -> None:
    table = studies.parse(
        'seed = 1\nlanguages = ["en"]\ntitle = { en = "Trial" }\n[table]\nfile = "x.csv"\nunit = "id"\n'
        'treatment = "t"\noutcomes = { work = ["y"] }\n[treatment]\n'
        'instrument = "p"\nversus = "never"\ndesign = "randomised"\n'
        '[[outcome]]\nname = "work"\nkind = "state"\nprimary = true\n[[analysis]]\nid = "a"\nmethod = "experiment"\n',
        tmp_path / "study.toml",
    )
    with pytest.raises(UsageError, match="twin.ready_table"):
        simulate.make(table, simulate.aggregates(table, None))  # type: ignore[arg-type]
    areas = '[data.areas.jobless]\nfile = "c.csv"\ncolumns = { area = "a", month = "m", value = "w" }\n'
    areas += 'area = "team"\n[spells]'
    many = studies.parse(own.text.replace("[spells]", areas), own.path)
    with pytest.raises(UsageError, match=r"areas\.jobless"):
        simulate.aggregates(many, None)  # type: ignore[arg-type]
    made = '[[instrument]]\nname = "both"\ncombine = ["training", "coaching"]\n[treatment]'
    text = own.text.replace("[treatment]", made).replace('instrument = "training"', 'instrument = "both"')
    with pytest.raises(UsageError, match="both"):
        simulate.aggregates(studies.parse(text, own.path), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "1", "a,b", "1,2,0", "1,2,3,4", "-1,2", "1,99", "1,2,x"])
def test_an_effect_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="twin.effect"):
        Effect.read(text)


def test_effects_that_can_be_read() -> None:
    assert Effect.read("0.5, 1.2") == Effect(0.5, 1.2) and Effect.read("none") == Effect(1.0, 1.0)
    assert Effect.read("0.5,1.2,9") == Effect(0.5, 1.2, 9)


# -- what is drawn --------------------------------------------------------------------------------------------------


def test_same_seed_same_files_other_seed_other_files(own: Study, told: Aggregates) -> None:
    one, two = (simulate.make(own, told, 500) for _ in range(2))
    assert one.files == two.files
    first, other = (simulate.twin(told, 500, seed).benefits for seed in (1, 2))
    assert not first.equals(other)


def test_tables_hold_together(told: Aggregates) -> None:
    drawn = simulate.twin(told, 3_000, 1)
    people, spells, episodes, jobs = drawn.persons, drawn.benefits, drawn.episodes, drawn.jobs
    assert people["person"].is_unique and set(spells["person"]) <= set(people["person"])
    assert (spells["end"].isna() | (spells["end"] >= spells["start"])).all()
    same = spells["person"].to_numpy()[1:] == spells["person"].to_numpy()[:-1]
    gaps = zip(off(spells)[:-1][same], back(spells)[1:][same], strict=True)
    months = [studies.rules.whole_months(a, b) for a, b in gaps]
    assert same.any() and min(months) >= 1  # gaps that the study bridges are not in it
    both = episodes[episodes["type"] == "training"].merge(spells, on="person", suffixes=("", "_spell"))
    inside = (both["start"] >= both["start_spell"]) & ~(both["start"] > both["end_spell"])
    assert inside.groupby([both["person"], both["start"]]).any().all()
    assert not (episodes["end"] < episodes["start"]).any() and not (episodes["referral"] > episodes["start"]).any()
    assert jobs is not None and not (jobs["end"] < jobs["start"]).any() and jobs["wage"].between(0, 5_000).all()
    assert people["birth_year"].between(1935, 2005).all() and set(people["team"]) <= {"c1", "c2"}


def off(spells: pd.DataFrame) -> Any:
    """The day before the first one off benefit, as dates."""
    return spells["end"].dt.date.to_numpy()


def back(spells: pd.DataFrame) -> Any:
    """The day before the first one on benefit, as dates."""
    return (spells["start"] - pd.Timedelta(days=1)).dt.date.to_numpy()


def test_no_effect_and_a_strong_effect_show(told: Aggregates, own: Study) -> None:
    none = simulate.known_effect(own, told, Effect.read("none"))
    for name in ("left_to_work", "left", "education", "no_work", "in_job", "on_benefit"):
        late = none[name].effect  # later starters have no effect either
        assert np.abs(late).max() < 1e-9, name
    strong = simulate.known_effect(own, told, Effect(0.0, 3.0, 3))["left_to_work"].effect
    assert strong[2] < -0.05 < 0.05 < strong[11] and strong[:3].argmin() == 2


MARGINS = 20_000


@pytest.mark.slow
def test_margins_of_the_twin_are_those_of_the_original() -> None:
    study = studies.parse(template("en"), "study.toml")
    original = simulate.draw(simulate.DEMO, MARGINS, 8)
    tables = {"persons": original.persons, "benefits": original.benefits, "episodes": original.episodes}
    told = simulate.aggregates(study, register.from_frames(study, **tables))
    drawn = simulate.twin(told, MARGINS, 4)
    again = {"persons": drawn.persons, "benefits": drawn.benefits, "episodes": drawn.episodes}
    found = simulate.aggregates(study, register.from_frames(study, **again))
    for name in ("sex", "education", "household", "distance"):
        for value in original.persons[name].unique():
            share, twin = ((frame[name] == value).mean() for frame in (original.persons, drawn.persons))
            assert abs(share - twin) < tolerance(share, MARGINS), (name, value)
    for one, two in zip(told.inflow, found.inflow, strict=True):
        assert abs(one.persons - two.persons) < 10 + 4 * np.sqrt(2 * one.persons), one.first
    for kind in (0, 1):
        same_rates(told.exits[kind].bands, found.exits[kind].bands)
        same_rates(told.exits[kind].returns, found.exits[kind].returns)
    for mine, theirs in zip(told.instruments, found.instruments, strict=True):
        same_rates(mine.starts, theirs.starts)
    for column, other in zip(told.columns, found.columns, strict=True):
        for level, twin_level in zip(column.levels, other.levels, strict=False):
            if level.exits >= 200 and twin_level.exits:
                ratio = np.log(level.exits / level.exits_expected * twin_level.exits_expected / twin_level.exits)
                assert abs(ratio) < 4 * np.sqrt(2 / level.exits) + 0.06, (column.name, level)
    assert told.spells[0].persons == pytest.approx(found.spells[0].persons, rel=0.03)
    for level, twin_level in zip(told.columns[0].levels, found.columns[0].levels, strict=False):  # age
        assert level.low == twin_level.low
        assert abs(level.persons - twin_level.persons) < 4 * np.sqrt(2 * level.persons) + 10


def tolerance(share: float, n: int) -> float:
    """Four standard errors of the twin, and the rounding of the counts."""
    return 4 * np.sqrt(share * (1 - share) / n) + 10 / n


def same_rates(one: Any, two: Any) -> None:
    """Rates by band within four standard errors of a difference, where the bands are the same and the events many."""
    known = {(band.first, band.last): band for band in two}
    shared = [band for band in one if (band.first, band.last) in known and band.events >= 100]
    assert len(shared) >= len(one) // 3
    for band in shared:
        twin = known[band.first, band.last]
        ratio = np.log(band.events / band.months * twin.months / max(twin.events, 1))
        assert abs(ratio) < 4 * np.sqrt(2 / band.events) + 10 / band.events, band
