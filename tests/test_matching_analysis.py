"""Matching from sample to profiles: what the analysis reports is what its parts say, and shuffling changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from naive import matching as naive
from sample_example import cut, protocol

from evalkit import simulate
from evalkit.analyses import matching
from evalkit.effects import generator
from evalkit.errors import DesignError
from evalkit.hashing import mix
from evalkit.matching import fit_logit
from evalkit.run import bind_all

TOWN = replace(simulate.SMALL, entry_days="any", start_rate=0.05)
KEYS = dict(
    first="2018-01-01",
    last="2021-12-31",
    eligibility="age = [18, 64]",
    covariates='numeric = ["age", "distance"]\ncategorical = ["sex"]',
)


@pytest.fixture(scope="module")
def town():
    tables = simulate.draw(TOWN, 1500, 4)
    team = np.random.default_rng(1).integers(0, 40, len(tables.persons)).astype(str)
    return {"persons": tables.persons.assign(team=team), "benefits": tables.benefits, "episodes": tables.episodes}


def run(town, **keys):
    made = protocol(**(KEYS | keys))
    sample = cut(made, town)
    return sample, matching.run(sample, bind_all(made)[0], generator(1, "main"), "main")


@pytest.fixture(scope="module")
def plain(town):
    return run(town, settings="ratio = 2")


def named(analysis, **labels):
    found = [p for p in analysis.profiles if all(p.labels.get(k, "") == v for k, v in labels.items())]
    assert len(found) == 1
    return found[0]


def by_twins(sample, ratio, width, strata):
    """The profiles again from the start model's score, with the double loop and the written-out effect."""
    e, people = sample.entries, sample.people
    treated = e.arm == 1
    model = fit_logit(sample.design(e), treated)
    residual = model.score.copy()
    for s in np.unique(strata):
        residual[strata == s] -= model.score[strata == s].mean()
    reach = width * np.sqrt((residual**2).sum() / (len(residual) - len(np.unique(strata))))
    reach *= 1 + 1e-12  # summed in another order than there; no distance lies that near the edge
    key = mix(people.key[e.person], e.time_zero)
    pairs, outside = [], []
    for s in np.unique(strata[treated]):  # stratum by stratum, so that the double loop stays short
        at = np.flatnonzero(strata == s)
        found, lost = naive.nearest(
            treated[at], e.person[at], key[at], np.zeros(len(at)), model.score[at], ratio, reach
        )
        pairs += [(at[i], at[j], w) for i, j, w in found]
        outside += at[lost].tolist()
    return model, pairs, outside


def test_estimate_and_influence_are_those_of_the_twins(plain):
    sample, analysis = plain
    e = sample.entries
    strata = e.elapsed.astype(np.int64) * 10_000 + e.quarter
    model, pairs, outside = by_twins(sample, 2, 0.2, strata)
    used = np.unique([r for i, j, _ in pairs for r in (i, j)])
    at = {r: n for n, r in enumerate(used)}
    design = sample.design(e, time=False).matrix(used)
    time = [getattr(e, name)[used].astype(float) for name in ("elapsed", "quarter")]
    time = [(t - t.mean()) / max(t.std(), 1.0) for t in time]
    x = np.column_stack([design[:, 0], model.score[used], design[:, 1:], *[c for t in time for c in (t, t**2)]])
    person = e.person[used].tolist()
    for outcome in ("left_to_work", "on_benefit"):
        y, observed = sample.outcome(outcome, e.take(used))
        twin = naive.corrected_effect(
            [at[i] for i, _, _ in pairs],
            [at[j] for _, j, _ in pairs],
            [w for _, _, w in pairs],
            y,
            observed,
            x,
            person,
            person,
        )
        mine = named(analysis, outcome=outcome, subgroup="")
        assert np.allclose(mine.estimate, twin[0], atol=1e-9)
        assert np.allclose(mine.counterfactual, twin[1], atol=1e-9)
        assert mine.n_treated.tolist() == twin[2] and mine.n_comparison.tolist() == twin[3]
        assert np.allclose(mine.uncertainty.values, twin[4], atol=1e-9)
        assert mine.uncertainty.level == "person"
    lost = {row.reason: row for row in analysis.lost}
    assert lost["outside_support"].entries_left == (e.arm == 1).sum() - len(outside)
    assert lost["unmatched_not_used"].entries_left == len({j for _, j, _ in pairs})


def test_clusters_above_persons_sum_persons(town, plain):
    """Persons of a team start together: the same estimate, an influence summed over the team."""
    sample, analysis = plain
    _, teams = run(town, settings="ratio = 2", cluster="team")
    one, team = (named(a, outcome="left_to_work", subgroup="") for a in (analysis, teams))
    assert np.array_equal(one.estimate, team.estimate)
    assert team.uncertainty.level == "team"
    number = np.unique(town["persons"].team, return_inverse=True)[1]
    summed = one.uncertainty.coarsen({i: int(number[i]) for i in one.uncertainty.ids.tolist()}, "team")
    assert summed.ids.tolist() == team.uncertainty.ids.tolist()
    assert np.allclose(summed.values, team.uncertainty.values, atol=1e-14)
    assert "team" in team.se_kind


@pytest.mark.parametrize("within", ["dates", "start_first"])
def test_shuffled_rows_give_the_same_bits(town, within):
    rng = np.random.default_rng(2)
    shuffled = {name: frame.iloc[rng.permutation(len(frame))] for name, frame in town.items()}
    keys = dict(within=within, settings="ratio = 2", subgroups='[[subgroup]]\nname = "sex"', horizon=6)
    one, two = (run(tables, **keys)[1] for tables in (town, shuffled))
    assert [p.id for p in one.profiles] == [p.id for p in two.profiles]
    for a, b in zip(one.profiles, two.profiles, strict=True):
        for name in ("estimate", "counterfactual", "n_treated", "n_comparison"):
            assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
        assert np.array_equal(a.uncertainty.ids, b.uncertainty.ids)
        assert np.array_equal(a.uncertainty.values, b.uncertainty.values)
    assert one.lost == two.lost and one.findings == two.findings
    if within == "start_first":
        assert {p.labels.get("variant", "") for p in one.profiles} == {"", "exit_first"}


def test_subgroups_are_matched_within_themselves(town):
    split = '[[subgroup]]\nname = "sex"\n[[subgroup]]\nname = "age"\ncuts = [35.0]'
    sample, analysis = run(town, settings="ratio = 2", subgroups=split)
    names = {p.labels["subgroup"] for p in analysis.profiles}
    assert names == {"", "sex=man", "sex=woman", "age=<35", "age=>=35"}
    people = {}
    for sex in ("man", "woman"):
        profile = named(analysis, outcome="left_to_work", subgroup=f"sex={sex}")
        ids = sample.people.ids[profile.uncertainty.ids]
        of = town["persons"].set_index("person").sex
        assert set(of[ids]) == {sex}
        people[sex] = profile.n_treated[0]
    whole = named(analysis, outcome="left_to_work", subgroup="")
    assert 0.8 * whole.n_treated[0] < sum(people.values()) <= 1.05 * whole.n_treated[0]  # the caliper is their own


def test_exact_on_a_category(town):
    """Matches agree on sex, so every comparison weight stands with the starters' own shares."""
    _, analysis = run(town, settings='exact = ["elapsed", "sex"]')
    table = next(x for x in analysis.exhibits if getattr(x, "id", "") == "balance")
    rows = [row for row in table.rows if row["variable"] == "sex"]
    assert len(rows) == 2
    assert all(abs(row["smd_after"]) < 1e-12 for row in rows)
    before = [abs(row["smd_before"]) for row in rows]
    assert max(before) > 0.01


def test_by_month_keeps_the_pooled_score_where_starters_are_few(town):
    sample, analysis = run(town, settings='propensity = "by_month"')
    found = [f for f in analysis.findings if f.code == "small_month"]
    assert len(found) == 1 and found[0].value == len(sample.months)
    pooled = run(town)[1]
    for one, other in zip(analysis.profiles, pooled.profiles, strict=True):
        assert np.array_equal(one.estimate, other.estimate)


def test_by_month_has_a_model_for_each_month_with_enough_starters():
    tables = simulate.draw(replace(TOWN, start_rate=0.25), 3000, 5)
    tables = {
        "persons": tables.persons.assign(team="a"), "benefits": tables.benefits, "episodes": tables.episodes,
    }  # fmt: skip
    keys = dict(eligibility="elapsed = [0, 2]")
    _, analysis = run(tables, settings='propensity = "by_month"', **keys)
    _, pooled = run(tables, **keys)
    assert not [f for f in analysis.findings if f.code == "small_month"]
    one, other = (named(a, outcome="left_to_work", subgroup="") for a in (analysis, pooled))
    assert not np.array_equal(one.estimate, other.estimate)
    assert np.abs(one.estimate - other.estimate).max() < 3 * one.std_error.max()


def test_available_follow_up_varies(town):
    _, analysis = run(town, follow_up="available", horizon=30)
    profile = named(analysis, outcome="left_to_work", subgroup="")
    assert profile.composition == "varying"
    seen = np.diff(profile.n_treated)
    assert (seen <= 0).all() and profile.n_treated[-1] < profile.n_treated[0]
    _, analysis = run(town, horizon=24)
    assert named(analysis, outcome="left_to_work", subgroup="").composition == "fixed"


def test_a_caliper_that_nobody_meets(town):
    """Nobody is as near as a thousand-millionth of a raw unit when matches must come from so few."""
    sample, _ = run(town)
    rng = np.random.default_rng(1)
    jitter = rng.normal(size=sample.people.numeric.shape)
    people = replace(sample.people, numeric=sample.people.numeric + jitter)
    settings = matching.Settings(caliper=matching.Caliper(width=1e-15, unit="raw_linear"))
    with pytest.raises(DesignError) as caught:
        matching.run(replace(sample, people=people), settings, generator(1, "main"), "main")
    assert caught.value.faults[0].code == "design.nobody_matched"


@pytest.mark.parametrize(("arm", "code"), [(1, "design.no_controls"), (0, "design.no_treated")])
def test_one_arm_only(plain, arm, code):
    sample, _ = plain
    part = replace(sample, entries=sample.entries.take(np.flatnonzero(sample.entries.arm == arm)))
    with pytest.raises(DesignError) as caught:
        matching.run(part, matching.Settings(), generator(1, "main"), "main")
    assert caught.value.faults[0].code == code
