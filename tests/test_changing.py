"""Covariates that change, from the study file to the entries: a slow twin, the design, eligibility, the balance."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from changing_example import cut, frames, of, protocol, town
from naive.changing import figure_before, fills, known_before

from evalkit import analyses, calendar, register, sample
from evalkit.errors import DataError
from evalkit.sample.changing import figure_days, known_days

ROWS = town(1)


def day_of(number) -> dt.date:
    return dt.date(1970, 1, 1) + dt.timedelta(days=int(number))


def asked(cut_sample: sample.Sample) -> list[tuple[str, dt.date]]:
    """Person and day of each entry."""
    entries = cut_sample.entries
    days = [day_of(n) for n in cut_sample.known_day(entries)]
    return list(zip(cut_sample.people.ids[entries.person], days, strict=True))


def levels_of(cut_sample: sample.Sample, name: str) -> list[str]:
    made = cut_sample.group(name, (), cut_sample.entries)
    return [made.levels[code] for code in made.codes]


@pytest.fixture(scope="module", params=[("town", True, "dates"), ("place", False, "exit_first")])
def case(request):
    area, registered, within = request.param
    made = protocol(area=area, registered=registered, within=within)
    return made, cut(made, ROWS, registered), registered


def test_values_are_those_of_the_twin(case):
    made, found, registered = case
    entries = found.entries
    assert len(entries) > 400
    household, debt, unemployment = [], [], []
    where = {p[0]: p[3] for p in ROWS["persons"]}
    for person, day in asked(found):
        rows = of(ROWS["household"], person)
        household.append(known_before([r if registered else (*r[:2], None, r[3]) for r in rows], day))
        debt.append(known_before(of(ROWS["debt"], person), day))
        area = where[person]
        if made.data.areas["unemployment"].area == "place":
            area = known_before(of(ROWS["place"], person), day)
        unemployment.append(figure_before(ROWS["unemployment"], area, 1, day))
    assert levels_of(found, "household") == [value or "missing" for value in household]
    day = found.known_day(entries)
    for name, expected in (("debt", debt), ("unemployment", unemployment)):
        got = found.changing.covariates[name].numbers(entries.person, day)
        assert [None if np.isnan(v) else v for v in got] == expected
    assert len({*household}) == 4 and None in debt and None in unemployment  # every kind of value occurs

    design = found.design(entries)
    column = dict(zip(design.own_numeric_names, design.own_numeric.T, strict=True))
    for name, expected in (("debt", debt), ("unemployment", unemployment)):
        stand_in = fills(expected, day.tolist())
        filled = [s if v is None else v for v, s in zip(expected, stand_in, strict=True)]
        assert column[name] == pytest.approx(filled, rel=1e-12)
        assert column[f"{name}:missing"].tolist() == [float(v is None) for v in expected]
    (made_factor,) = design.own_factors
    assert made_factor.levels == ("couple", "parent", "single", "missing")
    assert [f.name for f in design.time_factors] == ["elapsed", "quarter"]


def test_month_only_data_look_before_the_elapsed_month():
    """What came first within the month is not known, so neither convention uses a change in it."""
    made = protocol(within="start_first")
    first = cut(made, ROWS)
    second = first.alternative
    for one in (first, second):
        begin = calendar.add_months(one.outcomes.spells.start[one.entries.spell], one.entries.elapsed)
        assert np.array_equal(one.known_day(one.entries), begin)
        assert (begin <= one.entries.time_zero).all()
    assert (second.entries.time_zero > second.known_day(second.entries)).all()


def test_the_same_rows_in_another_order():
    made = protocol()
    tables = frames(ROWS)
    rng = np.random.default_rng(1)

    def shuffled(frame):
        return frame.iloc[rng.permutation(len(frame))]

    mixed = {
        k: {n: shuffled(f) for n, f in v.items()} if isinstance(v, dict) else shuffled(v) for k, v in tables.items()
    }
    one, two = (sample.from_register(made, register.from_frames(made, **t)) for t in (tables, mixed))
    assert np.array_equal(one.design(one.entries).matrix(), two.design(two.entries).matrix())
    assert one.flow == two.flow


def test_a_part_of_the_entries_has_the_same_rows_of_the_design():
    """Levels, indicators and what stands in for missing numbers are those of the whole sample."""
    found = cut(protocol(), ROWS)
    rows = np.flatnonzero(found.entries.elapsed == 2)
    whole, part = found.design(found.entries, time=False), found.design(found.entries.take(rows), time=False)
    assert whole.names == part.names
    assert np.array_equal(whole.matrix(rows), part.matrix())
    assert np.array_equal(found.design(found.risk_set(2), time=False).matrix(), part.matrix())


# -- eligibility and missing values ----------------------------------------------------------------------------------


def flow(found: sample.Sample) -> dict[str, int]:
    return {row.reason: row.entries for row in found.flow if row.kind == "out"}


@pytest.mark.parametrize("within", ["dates", "start_first"])
def test_values_keep_people_out_in_both_arms(within):
    plain = cut(protocol(within=within), ROWS)
    made = protocol(within=within, eligibility='exclude = { household = ["couple", "missing"], sex = ["v"] }')
    found = cut(made, ROWS)
    assert set(levels_of(found, "household")) == {"parent", "single"}
    sex = found.people.factors[0]
    assert {sex.levels[code] for code in sex.codes[found.entries.person]} == {"m"}  # a column of persons
    for arm in ("treated", "comparison"):
        rows = [row for row in found.flow if row.arm == arm]
        reasons = [row.reason for row in rows]
        assert "excluded_by_value:household" in reasons and "excluded_by_value:sex" in reasons
        for measure in ("persons", "entries"):
            assert getattr(rows[0], measure) == sum(getattr(row, measure) for row in rows[1:])
    starters = plain.entries.take(np.flatnonzero(plain.entries.arm == 1))  # their time zero is their own
    kinds = plain.group("household", (), starters)
    kept = [kinds.levels[code] in ("parent", "single") for code in kinds.codes]
    kept &= np.array([sex.levels[code] == "m" for code in plain.people.factors[0].codes[starters.person]])
    assert np.array_equal(starters.person[kept], found.entries.person[found.entries.arm == 1])


def test_entries_without_a_value_may_be_left_out():
    covariates = 'numeric = ["debt", "unemployment"]\ncategorical = ["household"]\nmissing = "exclude"'
    found = cut(protocol(covariates=covariates), ROWS)
    assert flow(found)["missing_covariate"] > 0
    assert "missing" not in levels_of(found, "household")
    design = found.design(found.entries)
    assert design.own_numeric_names == ("debt", "unemployment") and np.isfinite(design.own_numeric).all()


def test_someone_without_any_row_has_no_value():
    rows = dict(ROWS, debt=[("p000", dt.date(2017, 1, 1), None, None, 5.0)])
    found = cut(protocol(), rows)
    values = found.changing.covariates["debt"].numbers(found.entries.person, found.known_day(found.entries))
    assert np.array_equal(~np.isnan(values), found.people.ids[found.entries.person] == "p000")


def test_a_number_that_is_never_known_is_refused():
    late = [(p, dt.date(2022, 1, 1), None, None, 1.0) for p in ("p000", "p001")]
    found = cut(protocol(), dict(ROWS, debt=late))
    with pytest.raises(DataError, match="sample.covariate_empty"):
        found.design(found.entries)


def test_the_word_missing_is_no_value():
    rows = dict(
        ROWS, household=[(p[0], dt.date(2016, 1, 1), None, dt.date(2016, 1, 1), "missing") for p in ROWS["persons"]]
    )
    rows["household"][0] = (*rows["household"][0][:4], "single")
    found = cut(protocol(), rows)
    assert found.changing.covariates["household"].levels == ("single", "missing")
    assert set(levels_of(found, "household")) == {"single", "missing"}


def test_subgroups_and_exact_matching():
    made = protocol(exact=', "household"', subgroup="unemployment", cuts="cuts = [5, 7]")
    found = cut(made, ROWS)
    kinds = found.group("unemployment", (5.0, 7.0), found.entries)
    assert kinds.levels == ("<5", "5 - <7", ">=7", "missing")
    done = analyses.method("matching").run(found, _settings(made), np.random.default_rng(1), "main")
    assert {p.labels["subgroup"] for p in done.profiles} >= {"", "unemployment=<5", "unemployment=>=7"}


def _settings(made):
    from evalkit.run import bind_all

    (bound,) = bind_all(made)
    return bound


def test_matches_agree_exactly_on_a_value_that_changes():
    made = protocol(exact=', "household"')
    found = cut(made, ROWS)
    from evalkit.analyses.adjusting import fit_start
    from evalkit.analyses.matching import matched

    settings = _settings(made)
    fitted = fit_start(found, settings.exact)
    pairs = matched(found, settings, fitted).pairs
    kinds = found.group("household", (), fitted.entries)
    assert len(pairs.treated) > 10
    assert np.array_equal(kinds.codes[pairs.treated], kinds.codes[pairs.control])


def test_the_start_model_and_the_balance_have_them():
    made = protocol()
    found = cut(made, ROWS)
    done = analyses.method("matching").run(found, _settings(made), np.random.default_rng(1), "main")
    tables = {e.id: e for e in done.exhibits if hasattr(e, "rows")}
    names = {row["variable"] for row in tables["model"].rows}
    assert {"debt", "unemployment", "debt:missing", "household:single", "household:missing"} <= names
    balance = {(row["variable"], row["level"]) for row in tables["balance"].rows}
    assert {("debt", ""), ("unemployment", ""), ("household", "couple"), ("household", "missing")} <= balance
    assert not any(variable in ("elapsed", "quarter") for variable, _ in balance)


# -- days ------------------------------------------------------------------------------------------------------------


def test_a_month_is_known_after_it_and_the_delay():
    month = np.array(["2019-01-01", "2019-12-01"], "datetime64[D]")
    for delay, expected in ((0, ["2019-02-01", "2020-01-01"]), (2, ["2019-04-01", "2020-03-01"])):
        assert figure_days(month, delay).astype("datetime64[D]").astype(str).tolist() == expected


def test_a_change_is_known_from_its_registration():
    table = {
        "start": np.array(["2019-01-05", "2019-01-05"], "datetime64[D]"),
        "registered": np.array(["2019-01-01", "2019-03-01"], "datetime64[D]"),
        "end": np.array(["2019-01-20", "NaT"], "datetime64[D]"),
    }
    known, over = known_days(table)
    assert known.astype("datetime64[D]").astype(str).tolist() == ["2019-01-05", "2019-03-01"]
    assert over.tolist() == [calendar.to_days(table["end"])[0] + 1, calendar.NEVER]


def test_the_day_itself_does_not_count_hand_worked():
    """Start on 10 March 2019. Single from 1 January, couple from 10 March: single. A day earlier: couple."""
    people, spell = [("p1", "m", 1980, "A"), ("p2", "v", 1981, "B")], dt.date(2019, 1, 1)
    rows = {
        "persons": people,
        "benefits": [(p[0], spell, dt.date(2020, 6, 30), "work") for p in people],
        "episodes": [("p1", "training", dt.date(2019, 3, 10), None)],
        "debt": [("p1", dt.date(2019, 1, 1), None, None, 1.0)],
        "place": [("p1", dt.date(2019, 1, 1), None, None, "A")],
        "unemployment": [("A", dt.date(2018, m, 1), float(m)) for m in range(6, 13)]
        + [("A", dt.date(2019, m, 1), 100.0 + m) for m in range(1, 13)],
    }

    def found(first: dt.date, second: dt.date, entered: dt.date, delay: int = 1) -> tuple[str, float]:
        household = [
            ("p1", first, None, first, "single"),
            ("p1", second, None, entered, "couple"),
            ("p2", first, None, first, "single"),
        ]
        made = cut(protocol(delay=delay), dict(rows, household=household))
        starter = made.entries.take(np.flatnonzero(made.entries.arm == 1))
        kinds = made.group("household", (), starter)
        number = made.changing.covariates["unemployment"].numbers(starter.person, made.known_day(starter))
        return kinds.levels[kinds.codes[0]], float(number[0])

    may, start = dt.date(2019, 1, 1), dt.date(2019, 3, 10)
    before = start - dt.timedelta(days=1)
    assert found(may, start, start)[0] == "single"
    assert found(may, before, before)[0] == "couple"
    assert found(may, before, start)[0] == "single"  # entered on the day itself
    assert found(start, start, start)[0] == "missing"
    assert [found(may, start, start, delay)[1] for delay in (0, 1, 2, 8)] == [102.0, 101.0, 12.0, 6.0]
    assert np.isnan(found(may, start, start, 9)[1])
