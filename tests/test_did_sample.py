"""Panels of a register against plain loops: units, periods, first treated periods, covariates, what falls out."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pytest
from naive import did_panel, shapes
from naive.spells import merge
from sample_example import cut, frames, person, protocol
from test_sample_twin import FIRST, LAST, REASONS, crooked, rows_of

from evalkit import register, simulate
from evalkit.did.panel import NEVER
from evalkit.errors import DataError, DesignError
from evalkit.run import load
from evalkit.sample import describe, from_register, judge_sample

SPAN = dict(seed=5, first=str(FIRST), last=str(LAST), method="did", spells="")
DAYS = {"0": dt.date(2018, 5, 10), "1": dt.date(2019, 1, 1), "2": dt.date(2016, 3, 1), "9": dt.date(2019, 1, 1)}
ADOPTED = 'unit = "team"\nadopted = { ' + ", ".join(f"{k} = {v}" for k, v in DAYS.items()) + " }"
LENGTH = {"month": 1, "quarter": 3, "year": 12}


@pytest.fixture(scope="module")
def town():
    tables = crooked(5, 120)
    tables["persons"]["team"] = tables["persons"].team.astype(str).mask(np.arange(120) % 17 == 0)
    return tables


@pytest.fixture(scope="module")
def tables(town):
    return register.from_frames(protocol(**SPAN, covariates='numeric = ["age", "distance"]'), **town)


def sample_of(made, tables):
    """A sample of the one register of these tests, with the days of this study."""
    return from_register(made, replace(tables, adopted=made.treatment.adopted or {}))


def spells_of(town):
    rows = sorted(set(rows_of(town["benefits"], ["person", "start", "end", "reason"])), key=str)
    of = {}
    for who, start, end, reason in rows:
        if (end is None or end >= FIRST) and start <= LAST:
            of.setdefault(who, []).append((start, end, None if end is None else reason or "unknown"))
    return {who: merge(own, 1, REASONS) for who, own in of.items()}


def period_of(day, periods):
    """Number of the period that a day lies in: 1 before the panel, 0 after it."""
    if day is None or day > periods[-1][-1][1]:
        return 0
    return max(1, 1 + sum(period[-1][1] < day for period in periods))


def first_days(town, unit, days=None):
    """By unit the day of its first start, or that of its adoption."""
    people = dict(rows_of(town["persons"], ["person", unit]))
    if days is not None:
        return {value: days.get(value) for value in people.values() if value is not None}
    found = {value: None for value in people.values() if value is not None}
    for who, kind, start, end in rows_of(town["episodes"], ["person", "type", "start", "end"]):
        value = people.get(who)
        if kind == "training" and value is not None and start <= LAST and (end is None or end >= FIRST):
            found[value] = start if found[value] is None else min(found[value], start)
    return found


@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize(
    ("outcome", "unit", "period"),
    [("left_to_work", "team", "quarter"), ("on_benefit", "person", "month"), ("left", "person", "quarter"),
     ("on_benefit", "team", "year")],
)  # fmt: skip
def test_a_panel_is_that_of_plain_loops(town, outcome, unit, period, adopted):
    own = "person" if unit == "person" and not adopted else "team"
    made = protocol(**SPAN, treatment=ADOPTED if adopted else f'unit = "{own}"')
    if not adopted and unit == "team":
        town = {**town, "episodes": town["episodes"][town["episodes"].start >= "2017-09-01"].head(6)}
    sample = cut(made, town)
    data = sample.panel(outcome, unit=unit, period=period)
    spells = spells_of(town)
    periods = shapes.calendar_months(FIRST, LAST, LENGTH[period], 1)
    rows = rows_of(town["persons"], ["person", "team"])
    members = {who: team for who, team in rows if team is not None or own == "person"}
    people = {who: who if unit == "person" else team for who, team in members.items()}
    days = first_days(town, own, DAYS if adopted else None)
    day = {who: days[who if own == "person" else members[who]] for who in people}

    def one(who, month):
        first, close = month
        held = spells.get(who, [])
        if outcome == "on_benefit":
            return float(shapes.on_benefit(held, close)), 1
        if not shapes.on_benefit(held, first - dt.timedelta(days=1)):
            return 0.0, 0
        (spell,) = [s for s in held if s[0] < first and (s[1] is None or s[1] >= first)]
        ended = spell[1] is not None and spell[1] <= close
        return float(ended and (outcome == "left" or spell[2] == "work")), 1

    kind = "state" if outcome == "on_benefit" else "rate"
    expected = shapes.panel(people, periods, one, kind)
    begun = {people[who]: period_of(day[who], periods) for who in people}
    expected = {key: value for key, value in expected.items() if begun[key[0]] != 1}
    panel = data.panel
    got = dict(zip(zip(panel.ids[panel.unit], panel.period, strict=True), panel.outcome, strict=True))
    assert got.keys() == expected.keys()
    assert all(got[key] == pytest.approx(y, rel=1e-12) for key, (y, _) in expected.items())
    assert dict(zip(panel.ids, panel.first, strict=True)) == {
        name: begun[name] or NEVER for name in {name for name, _ in expected}
    }
    sizes = {name: sum(value == name for value in people.values()) for name in set(people.values())}
    assert dict(zip(panel.ids, data.persons, strict=True)) == {name: sizes[name] for name in panel.ids}
    assert np.array_equal(panel.weight, data.persons[panel.unit])
    if unit == "person":
        assert panel.person_rows is None
        clusters = {name: panel.cluster_ids[c] for name, c in zip(panel.ids, panel.cluster, strict=True)}
        assert clusters == {name: name if own == "person" else members[name] for name in panel.ids}
        assert panel.level == own
    else:
        at_risk = {
            (name, number): len({who for who in people if people[who] == name for m in period_ if one(who, m)[1]})
            for number, period_ in enumerate(periods, 1) for name in panel.ids
        }  # fmt: skip
        assert panel.person_rows.tolist() == [at_risk[name, number] for name, number in got]
    assert (data.period_months, data.labels[0]) == (
        LENGTH[period],
        {1: "2017-01", 3: "2017 Q1", 12: "2017"}[LENGTH[period]],
    )


def adds_up(flow):
    for arm in ("treated", "comparison"):
        steps = [step for step in flow if step.arm == arm]
        assert [step.step for step in steps] == list(range(len(steps)))
        for what in ("units", "rows", "persons"):
            start, *out, left = (getattr(step, what) for step in steps)
            assert start - sum(out) == left and min([0, *out]) >= 0


def test_what_falls_out_is_counted(town, tables):
    made = protocol(**SPAN, treatment=ADOPTED, covariates='numeric = ["distance"]\nmissing = "exclude"')
    sample = sample_of(made, tables)
    persons = town["persons"]
    for unit in ("team", "person"):
        data = sample.panel("left_to_work", unit=unit, period="month")
        adds_up(data.flow)
        left = [step for step in data.flow if step.kind == "left"]
        assert sum(step.units for step in left) == data.panel.units
        assert sum(step.rows for step in left) == len(data.panel)
        assert sum(step.persons for step in left) == data.persons.sum()
        assert sum(step.persons for step in data.flow if step.kind == "start") == 120
        out = {(step.arm, step.reason): step for step in data.flow if step.kind == "out"}
        assert out["comparison", "no_unit"].persons == persons.team.isna().sum()
        gaps = persons[persons.team.notna() & persons.distance.isna()]
        assert sum(s.persons for (_, r), s in out.items() if r == "missing_covariate") == len(gaps)
        before = persons[(persons.team == "2") & persons.distance.notna()]
        assert out["treated", "treated_before_window"].persons <= len(before)
        assert ("treated", "never_at_risk") in out or unit == "team"
        flow = {(row.arm, row.kind, row.reason): (row.persons, row.entries) for row in sample.flow}
        for arm in ("treated", "comparison"):
            start = next(step for step in data.flow if step.arm == arm and step.kind == "start")
            assert flow[arm, "start", "all_persons"] == (start.persons, start.persons)
            lost = [one.persons_left for one in data.lost if one.arm == arm]
            assert lost == sorted(lost, reverse=True)
            if lost:
                assert lost[0] <= flow[arm, "left", "left"][0]
                assert lost[-1] == next(s.persons for s in data.flow if s.arm == arm and s.kind == "left")


def test_covariates_are_those_before_the_panel(town, tables):
    made = protocol(**SPAN, treatment=ADOPTED, covariates='numeric = ["age", "distance"]\ncategorical = ["sex"]')
    sample = sample_of(made, tables)
    persons = town["persons"][town["persons"].team.notna()].copy()
    age = 2017 - persons.birth_year.astype(float)
    everyone = town["persons"]
    persons["age"], persons["age:missing"] = age.fillna(age.mean()), age.isna().astype(float)
    persons["distance:missing"] = persons.distance.isna().astype(float)
    persons["distance"] = persons.distance.fillna(everyone.distance.mean())
    persons["sex:woman"] = (persons.sex == "woman").astype(float)
    data = sample.panel("on_benefit", period="quarter")
    names = list(data.panel.names)
    assert sorted(names) == ["age", "age:missing", "distance", "distance:missing", "sex:woman"]
    means = persons.groupby("team")[names].mean()
    for row in (0, len(data.panel) - 1):
        assert data.panel.x[row] == pytest.approx(means.loc[data.panel.ids[data.panel.unit[row]]].to_numpy())
    assert all(len(np.unique(data.panel.x[data.panel.unit == u], axis=0)) == 1 for u in range(data.panel.units))
    single = sample.panel("on_benefit", unit="person", period="year").panel
    own = persons.set_index("person")[names].loc[single.ids[single.unit]]
    assert single.x == pytest.approx(own.to_numpy())


def test_traits_are_of_those_on_benefit_then(town, tables):
    made = protocol(**SPAN, treatment=ADOPTED, covariates='numeric = ["age"]\ncategorical = ["sex"]')
    data = sample_of(made, tables).panel("left_to_work", period="quarter", traits=True)
    spells = spells_of(town)
    periods = shapes.calendar_months(FIRST, LAST, 3, 1)
    people = [row for row in rows_of(town["persons"], ["person", "team", "sex", "birth_year"]) if row[1] is not None]
    women = data.traits[:, data.trait_names.index("sex:woman")]
    known = [b for _, _, _, b in people if b is not None]
    assert known
    for row in range(0, len(data.panel), 7):
        team, number = data.panel.ids[data.panel.unit[row]], data.panel.period[row]
        there = [
            sex for who, of, sex, _ in people
            if of == team and any(shapes.on_benefit(spells.get(who, []), m[0] - dt.timedelta(days=1))
                                  for m in periods[number - 1])
        ]  # fmt: skip
        assert women[row] == pytest.approx(np.mean([sex == "woman" for sex in there]))
        assert data.panel.person_rows[row] == len(there)


def test_those_who_enter(town, tables):
    made = protocol(**SPAN, treatment=ADOPTED, settings="inflow = 6")
    sample = sample_of(made, tables)
    team = dict(rows_of(town["persons"], ["person", "team"]))
    spells, days = spells_of(town), first_days(town, "team", DAYS)
    for outcome, period in (("left_to_work", "quarter"), ("left", "month"), ("on_benefit", "year")):
        data = sample.cross_sections(outcome, months=6, period=period)
        whole = shapes.calendar_months(FIRST, LAST, LENGTH[period], 0)
        periods = [(months[0][0], months[-1][1]) for months in whole]
        found = did_panel.inflow(spells, team, FIRST, LAST, 6, 1, periods, outcome)
        begun = {who: period_of(days[team[who]], whole) for who, _ in found}
        expected = sorted(
            (number, team[who], begun[who] or NEVER, y) for (who, _), (number, y) in found.items() if begun[who] != 1
        )
        panel = data.panel
        groups = panel.cluster_ids[panel.cluster[panel.unit]]
        got = sorted(zip(panel.period, groups, panel.first[panel.unit], panel.outcome, strict=True))
        assert got == expected and {y for *_, y in got} == {0.0, 1.0}
        assert panel.repeated and data.unit == "inflow" and panel.level == "team"
        adds_up(data.flow)
        assert sum(step.rows for step in data.flow if step.kind == "left") == len(panel)


def test_eligibility_of_those_who_enter(tables):
    rules = 'age = [25, 55]\nearlier_spells = [0, 0]\nexclude = { sex = ["man"] }'
    made = protocol(**SPAN, treatment=ADOPTED, settings="inflow = 6", eligibility=rules)
    sample = sample_of(made, tables)
    data = sample.cross_sections("left", months=3)
    reasons = {step.reason for step in data.flow if step.kind == "out"}
    assert {"age", "earlier_spells", "excluded_by_value:sex"} <= reasons
    assert len(data.panel) < len(
        sample_of(protocol(**SPAN, treatment=ADOPTED), tables).cross_sections("left", months=3).panel
    )


def test_subgroups_are_panels_of_their_own(tables):
    sample = sample_of(protocol(**SPAN, treatment=ADOPTED), tables)
    (sex,) = sample.people.factors
    parts = [sample.panel("on_benefit", period="quarter", among=sex.codes == code) for code in (0, 1)]
    whole = sample.panel("on_benefit", period="quarter")
    both = sum(part.panel.outcome * part.persons[part.panel.unit] for part in parts) / sum(
        part.persons[part.panel.unit] for part in parts
    )
    assert both == pytest.approx(whole.panel.outcome, abs=1e-12)


def test_rows_in_any_order_give_the_same_bits(town, tables):
    made = protocol(**SPAN, treatment=ADOPTED, covariates='numeric = ["age", "distance"]\ncategorical = ["sex"]')
    shuffled = {name: table.sample(frac=1, random_state=4) for name, table in town.items()}
    samples = sample_of(made, tables), cut(made, shuffled)
    for call in (
        lambda s: s.panel("left_to_work", period="quarter", traits=True),
        lambda s: s.panel("left", unit="person", period="month"),
        lambda s: s.cross_sections("left", months=6),
    ):
        one, two = map(call, samples)
        for name in ("unit", "time", "outcome", "first", "weight", "x", "cluster"):
            assert np.array_equal(getattr(one.panel, name), getattr(two.panel, name)), name
        assert one.flow == two.flow and one.notes == two.notes
        if one.traits is not None:
            assert np.array_equal(one.traits, two.traits, equal_nan=True)


def test_a_simulated_municipality():
    drawn = simulate.draw(simulate.DEMO, 1500, 2)
    people = drawn.persons.assign(team=[f"t{i % 12:02d}" for i in range(1500)])
    made = protocol(
        method="did", spells="", covariates='numeric = ["age"]\ncategorical = ["sex"]',
        treatment='unit = "team"\nadopted = { t00 = 2017-04-01, t01 = 2017-04-01, t02 = 2019-01-01, t03 = 2019-01-01 }',
    )  # fmt: skip
    sample = cut(made, {"persons": people, "benefits": drawn.benefits, "episodes": drawn.episodes})
    assert len(sample.entries) == 0 and not judge_sample(sample) and not sample.checks
    teams = sample.panel("left_to_work", period="quarter")
    assert teams.panel.units == 12 and teams.panel.balanced and teams.panel.cohorts.tolist() == [10, 17]
    persons = sample.panel("on_benefit", unit="person", period="month")
    assert persons.panel.units == 1500 and persons.panel.cohorts.tolist() == [28, 49]
    assert len(persons.panel.cluster_ids) == 12


# -- what is refused, and studies that do both -------------------------------------------------------------------------


def test_units_with_several_adopters_are_refused(tables):
    sample = sample_of(protocol(**SPAN, treatment=ADOPTED), tables)
    with pytest.raises(DataError, match="did.unit_mixed"):
        sample.panel("on_benefit", unit="sex")
    with pytest.raises(DataError, match="did.unit_mixed"):
        sample_of(protocol(**SPAN), tables).panel("on_benefit", unit="team")
    with pytest.raises(DataError, match="shapes.unknown_column"):
        sample.panel("on_benefit", unit="planet")


def test_other_refusals(tables):
    sample = sample_of(protocol(**SPAN), tables)
    with pytest.raises(DesignError, match="did.inflow_person"):
        sample.cross_sections("left", months=6)
    adopted = sample_of(protocol(**SPAN, treatment=ADOPTED), tables)
    with pytest.raises(DesignError, match="did.inflow_months"):
        adopted.cross_sections("left", months=60)
    with pytest.raises(DataError, match="shapes.unknown_outcome"):
        adopted.cross_sections("nothing", months=6)
    late = protocol(**SPAN, treatment='unit = "team"\nadopted = { 0 = 2022-01-01 }')
    with pytest.raises(DesignError, match="did.no_treated"):
        sample_of(late, tables).panel("left")
    early = protocol(**SPAN, treatment='unit = "team"\nadopted = { 0 = 2010-01-01 }')
    with pytest.raises(DesignError, match="did.no_period_before"):
        sample_of(early, tables).panel("left")
    nobody = np.zeros(120, bool)
    with pytest.raises(DesignError, match="did.nobody_at_risk"):
        adopted.panel("left", among=nobody)


def test_a_table_has_no_panel(tmp_path):
    from register_example import write_table

    with pytest.raises(DesignError, match="did.no_panel"):
        load(write_table(tmp_path))[1].panel("y")


def test_a_day_for_nobody_is_told(tables):
    made = protocol(**SPAN, treatment=ADOPTED)
    (check,) = sample_of(made, tables).checks
    assert (check.code, check.count, check.share) == ("adopted_unknown", 1, 0.25)  # there is no team 9
    known = protocol(**SPAN, treatment='unit = "team"\nadopted = { 0 = 2018-05-10 }')
    assert not sample_of(known, tables).checks
    assert "team" in check.message("en") and check.message("nl") != check.message("en") and check.reason("nl")


def test_nobody_need_start_where_days_are_given(town, tables):
    made = protocol(**SPAN, treatment=ADOPTED.replace('unit = "team"', 'unit = "team"'))
    other = {**town, "episodes": town["episodes"].assign(type="coaching")}
    others = register.from_frames(made, **other)
    data = from_register(made, others).panel("left_to_work", period="quarter")
    same = sample_of(made, tables).panel("left_to_work", period="quarter")
    assert np.array_equal(data.panel.outcome, same.panel.outcome) and np.array_equal(data.panel.first, same.panel.first)
    assert not describe(others, from_register(made, others))


def test_days_in_a_file(tmp_path, town, tables):
    source = 'unit = "team"\nadopted_from = { file = "days.csv", unit = "Team", day = "Vanaf" }'
    made = protocol(**SPAN, treatment=source).model_copy(update={"path": tmp_path / "study.toml"})
    (tmp_path / "data").mkdir()
    rows = [f"{team};{day:%d-%m-%Y}" for team, day in DAYS.items()]
    place = tmp_path / "data" / "days.csv"
    place.write_text("Team;Vanaf\n" + "\n".join(reversed(rows)))
    found = register.from_frames(made, **town)
    assert dict(found.adopted) == DAYS and "days.csv" in [i.name for i in found.inputs]
    one = from_register(made, found).panel("left", period="quarter").panel
    two = sample_of(protocol(**SPAN, treatment=ADOPTED), tables).panel("left", period="quarter").panel
    assert np.array_equal(one.first, two.first)
    for text, code in (
        ("Team;Vanaf\n0;01-01-2019\n0;01-02-2019\n", "data.duplicate_units"),
        ("Team;Vanaf\n0;01-01-2019\n1;\n", "data.adopted_empty"),
        ("Team;Vanaf\n0;soon\n", "data.no_dates"),
        ("Team;Begin\n0;01-01-2019\n", "data.missing_columns"),
    ):
        place.write_text(text)
        with pytest.raises(DataError) as caught:
            register.from_frames(made, **town)
        assert [fault.code for fault in caught.value.faults] == [code] and "soon" not in caught.value.text("en")


def test_a_cluster_above_those_who_adopt(town):
    persons = town["persons"].assign(distance=town["persons"].distance.round())
    made = protocol(**{**SPAN}, treatment=ADOPTED, cluster="sex")
    panel = cut(made, {**town, "persons": persons}).panel("on_benefit", unit="person", period="year").panel
    assert set(panel.cluster_ids) == {"man", "woman"} and panel.level == "sex"


def test_a_study_that_matches_and_looks_at_panels(tables):
    keys = {**SPAN, "method": "matching"}
    both = protocol(**keys, treatment=ADOPTED, settings='[[analysis]]\nid = "panel"\nmethod = "did"')
    one = protocol(**keys)
    sample, plain = sample_of(both, tables), sample_of(one, tables)
    assert len(sample.entries) == len(plain.entries) and sample.flow == plain.flow
    alone = sample_of(protocol(**SPAN, treatment=ADOPTED), tables).panel("left", period="quarter")
    assert np.array_equal(sample.panel("left", period="quarter").panel.outcome, alone.panel.outcome)
    with pytest.raises(DesignError, match="did.no_panel"):
        plain.panel("left")


def test_hand():
    """Two teams, three months; b starts within its team's first treated month."""
    tables = frames(
        persons=[person("a", team="x"), person("b", team="x"), person("c", team="y")],
        benefits=[
            ("a", "2019-12-20", "2020-02-10", "work"), ("b", "2020-01-15", None, None), ("c", "2019-11-01", None, None),
        ],
        episodes=[("b", "training", "2020-02-01", None, None)],
    )  # fmt: skip
    keys = dict(first="2020-01-01", last="2020-03-31", horizon=1, method="did")
    data = cut(protocol(**keys, treatment='unit = "team"'), tables).panel("left_to_work")
    panel = data.panel
    assert [(panel.ids[u], t, y) for u, t, y in zip(panel.unit, panel.period, panel.outcome, strict=True)] == [
        ("x", 1, 0.0), ("x", 2, 0.5), ("x", 3, 0.0), ("y", 1, 0.0), ("y", 2, 0.0), ("y", 3, 0.0)
    ]  # fmt: skip
    assert panel.person_rows.tolist() == [1, 2, 1, 1, 1, 1] and panel.first.tolist() == [2, NEVER]
    assert data.persons.tolist() == [2, 1] and data.labels == ("2020-01", "2020-02", "2020-03")
    step = data.flow[0]
    assert (step.arm, step.units, step.rows, step.persons) == ("treated", 1, 3, 2)
