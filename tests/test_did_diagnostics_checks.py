"""Placebos, leaving out, spillovers and composition: what is passed to the estimator, and what comes back."""

import numpy as np
import pytest
from tolerances import EXACT, SOLVED

from evalkit.did.composition import composition, presence, rows
from evalkit.did.effects import Effects, Missing, by_cluster
from evalkit.did.group_time import group_time
from evalkit.did.leave_out import leave_one_out
from evalkit.did.overall import combine, overall
from evalkit.did.panel import NEVER, Panel
from evalkit.did.placebo import placebo_dates, placebo_groups, placebo_outcome
from evalkit.did.spillover import FAR, exposure, given_rings, of_exposure, spillover_rings
from evalkit.effects import Covariance, Intervals
from evalkit.errors import DataError, DesignError, Fault, UsageError


def cells(panel):
    return group_time(panel, method="means").aggregate("event")


def drawn(seed=1, units=60, periods=8, effect=1.0, noise=1.0, cluster=None, dates=(5, 7), never=0.5):
    rng = np.random.default_rng(seed)
    first = rng.choice([*dates, 0], units, p=[(1 - never) / len(dates)] * len(dates) + [never])
    if cluster is not None:
        groups = np.arange(units) % cluster
        first = first[groups]
    unit, time = (a.ravel() for a in np.meshgrid(np.arange(units), np.arange(1, periods + 1), indexing="ij"))
    begun = first[unit]
    y = rng.normal(size=len(unit)) * noise + 0.2 * unit + 0.5 * time + effect * ((time >= begun) & (begun > 0))
    return Panel.of(unit, time, y, begun, cluster=None if cluster is None else groups[unit],
                    level="unit" if cluster is None else "place")  # fmt: skip


def two_period(panel):
    """Mean after less mean before, of one cohort and the others: an estimator that says what it is given."""
    y, t = panel.wide(), panel.periods
    g = int(panel.cohorts[0])
    change = y[:, t >= g].mean(axis=1) - y[:, t < g].mean(axis=1)
    treated = panel.first == g
    influence = np.where(treated, (change - change[treated].mean()) / treated.sum(),
                         -(change - change[~treated].mean()) / (~treated).sum())  # fmt: skip
    return Effects("simple", np.zeros(1, int), np.array([change[treated].mean() - change[~treated].mean()]),
                   np.array([np.nan]), np.array([treated.sum()]), np.array([(~treated).sum()]),
                   by_cluster(panel, influence[:, None]))  # fmt: skip


# the overall effect


def event_study(uncertainty, estimate=(0.3, 0.0, 1.0, np.nan, 2.0)):
    n = np.arange(5)
    return Effects("event", n - 2, np.array(estimate), np.ones(5), n + 1, n + 2, uncertainty, base=(-1,))


def test_overall_is_the_mean_from_the_start_on():
    vcov = np.diag([1.0, 0.0, 4.0, 0.0, 9.0])
    made = overall(event_study(Covariance(vcov)))
    assert made.estimate[0] == pytest.approx(1.5)
    assert made.std_error[0] == pytest.approx(np.sqrt(13) / 2)
    assert made.n_treated[0] == 5
    found = cells(drawn())
    assert overall(found) is found.overall and overall(found.overall) is found.overall
    assert np.isnan(overall(event_study(Intervals(np.zeros(5), np.ones(5), 0.9, "x"))).std_error[0])
    with pytest.raises(DesignError, match="did.no_overall"):
        overall(event_study(Covariance(vcov), (0.1, 0.0, np.nan, np.nan, np.nan)))


def test_combining_counts_shared_units_and_bounds_without_influence():
    panel = drawn(cluster=12)
    one, two = two_period(panel), two_period(panel.with_outcome(panel.outcome + np.sin(panel.unit * panel.time)))
    total = combine([one, two], np.array([1.0, -1.0]))
    rows_of = one.uncertainty.values - two.uncertainty.values
    assert total.std_error[0] == pytest.approx(np.sqrt((rows_of**2).sum()), rel=SOLVED)
    assert combine([one, one], np.array([1.0, -1.0])).std_error[0] == pytest.approx(0, abs=EXACT)
    bare = [Effects("simple", e.at, e.estimate, e.counterfactual, e.n_treated, e.n_comparison, Covariance(e.vcov))
            for e in (one, two)]  # fmt: skip
    bound = combine(bare, np.array([1.0, -1.0]))
    assert bound.std_error[0] == pytest.approx(one.std_error[0] + two.std_error[0], rel=SOLVED)
    assert "bound" in bound.se_kind


# placebo dates


def test_placebo_dates_leave_out_every_treated_row_and_use_units_not_yet_treated():
    panel = drawn(dates=(5, 7))
    given = []

    def spy(part):
        given.append(part)
        return two_period(part)

    found = placebo_dates(panel, spy, shift=2)
    assert found.at.tolist() == [5, 7] and not found.missing
    for g, part in zip((5, 7), given, strict=True):
        assert part.periods.tolist() == list(range(1, g))
        assert part.cohorts.tolist() == [g - 2]
        inside = np.isin(panel.ids, part.ids)
        assert np.array_equal(inside, panel.first >= g)
        assert np.array_equal(part.ids[part.first < NEVER], panel.ids[panel.first == g])
        wide = panel.wide()[inside][:, : g - 1]
        assert np.array_equal(part.wide(), wide)
        begun = panel.first[inside] == g
        change = wide[:, g - 3 :].mean(axis=1) - wide[:, : g - 3].mean(axis=1)
        place = found.at.tolist().index(g)
        assert found.estimate[place] == pytest.approx(change[begun].mean() - change[~begun].mean(), rel=SOLVED)
    weight = found.n_treated / found.n_treated.sum()
    assert found.combined.estimate[0] == pytest.approx(weight @ found.estimate, rel=SOLVED)
    assert 0 < found.combined.std_error[0] < weight @ found.std_error


def test_placebo_dates_reach_for_anticipation_and_name_what_is_too_short():
    panel = drawn(dates=(3, 7))
    early = placebo_dates(panel, two_period, shift=2)
    assert early.at.tolist() == [7]
    assert [(m.group, m.code) for m in early.missing] == [(3, "placebo_no_before")]
    given = []
    placebo_dates(panel, lambda part: (given.append(part), two_period(part))[1], shift=1, anticipation=1)
    assert given[-1].periods.tolist() == [1, 2, 3, 4, 5] and given[-1].cohorts.tolist() == [5]
    with pytest.raises(DesignError, match="did.placebo_no_before"):
        placebo_dates(panel, two_period, shift=6)
    with pytest.raises(UsageError, match="did.placebo_shift"):
        placebo_dates(panel, two_period, shift=0)
    with pytest.raises(DesignError, match="did.placebo_none"):
        placebo_dates(panel, lambda part: cells(part.with_first(np.full(part.units, NEVER))))


def test_a_cohort_that_the_estimator_cannot_do_is_named_and_the_others_stand():
    panel = drawn(dates=(5, 7))

    def fussy(part):
        if part.cohorts[0] == 3:
            raise DesignError(Fault("did.no_overall"))
        return two_period(part)

    found = placebo_dates(panel, fussy, shift=2)
    assert found.missing == (Missing(5, 3, "placebo_none"),)
    assert found.at.tolist() == [5, 7] and np.isfinite(found.estimate).tolist() == [False, True]
    assert found.n_treated.tolist() == [0, (panel.first == 7).sum()] and np.isnan(found.std_error[0])
    assert len(found.effects) == 1 and found.combined.estimate[0] == found.estimate[1]


def test_placebo_dates_find_a_pre_trend_and_nothing_else():
    rejected = []
    for seed in range(120):
        panel = drawn(seed + 1000, units=40)
        found = placebo_dates(panel, cells, shift=2)
        z = found.combined.estimate[0] / found.combined.std_error[0]
        rejected.append(abs(z) > 1.96)
    # binomial with 120 draws: 0.05 and three standard errors of 0.02, and a little for 10 units a cohort
    assert 0.005 < np.mean(rejected) < 0.13
    trend = panel.outcome + 3.0 * panel.time * (panel.first[panel.unit] < NEVER)
    assert (placebo_dates(panel.with_outcome(trend), cells, shift=1).combined.estimate / 3 > 0.5).all()


# placebo groups


def test_placebo_groups_use_untreated_clusters_as_wholes():
    panel = drawn(seed=3, units=90, cluster=30)
    given = []

    def spy(part):
        given.append(part)
        return cells(part)

    found = placebo_groups(panel, spy, draws=12, seed=4)
    assert len(found) == 12 and np.isfinite(found.estimate).sum() > 6
    untreated = np.unique(panel.cluster[panel.first == NEVER])
    for part in given:
        assert np.array_equal(part.ids, panel.ids[panel.first == NEVER])
        assert set(part.cohorts) <= {5, 7}
        for c in range(len(part.cluster_ids)):
            assert len(set(part.first[part.cluster == c])) == 1
        treated = len(np.unique(part.cluster[part.first < NEVER]))
        assert 1 <= treated <= len(untreated) / 2
    assert len({tuple(part.first) for part in given}) > 6
    again = placebo_groups(panel, cells, draws=12, seed=4)
    assert np.array_equal(found.estimate, again.estimate)
    assert not np.array_equal(found.estimate, placebo_groups(panel, cells, draws=12, seed=5).estimate)
    assert found.rank(1e9) == pytest.approx(1 / 13) and found.rank(0.0) == 1.0


def test_placebo_groups_reject_as_often_as_they_should():
    panel = drawn(seed=11, units=160)
    found = placebo_groups(panel, cells, draws=200, seed=1)
    assert 0.0 < found.rejected(0.05) < 0.12
    assert found.rejected(0.05) == np.mean(found.p_value < 0.05)


def test_a_named_placebo_group():
    panel = drawn(seed=5, cluster=20)
    never = np.unique(panel.cluster_ids[panel.cluster[panel.first == NEVER]])
    named = placebo_groups(panel, two_period, pretend=never[:3])
    mask = np.isin(panel.cluster_ids[panel.cluster], never[:3])
    masked = placebo_groups(panel, two_period, pretend=mask, date=5)
    assert named.estimate[0] == masked.estimate[0]
    pool = panel.take_units(panel.first == NEVER)
    direct = two_period(pool.with_first(np.where(np.isin(pool.cluster_ids, never[:3])[pool.cluster], 5, NEVER)))
    assert named.estimate[0] == direct.estimate[0] and named.combined.std_error[0] == direct.std_error[0]
    for wrong in (np.zeros(panel.units, bool), np.ones(panel.units, bool)):
        with pytest.raises(DesignError, match="did.placebo_untreated"):
            placebo_groups(panel, two_period, pretend=wrong)
    with pytest.raises(DesignError, match="did.placebo_untreated"):
        placebo_groups(panel.take_units(panel.first < NEVER), two_period)


def test_placebo_outcome_is_the_estimator_on_it():
    panel = drawn()
    other = np.cos(np.arange(len(panel)))
    assert placebo_outcome(panel, other, two_period).estimate == two_period(panel.with_outcome(other)).estimate


# leaving out


@pytest.mark.parametrize("level", ["unit", "cluster", "cohort"])
def test_leaving_out_is_estimating_without(level):
    panel = drawn(seed=2, units=36, cluster=12)
    found = leave_one_out(panel, cells, level)
    codes = {"unit": panel.ids, "cluster": panel.cluster, "cohort": panel.first}[level]
    twin = []
    for code in np.unique(codes):
        part = panel.take_units(codes != code)
        try:
            made = cells(part).overall
            twin.append((made.estimate[0], made.std_error[0], (codes == code).sum(),
                         ((codes == code) & (panel.first < NEVER)).sum()))  # fmt: skip
        except DesignError:
            twin.append((np.nan, np.nan, (codes == code).sum(), 0))
    if level != "cohort":
        twin.sort()
        assert len(found.cohort) == 0
    else:
        assert found.cohort.tolist() == [5, 7, NEVER]
    mine = np.column_stack([found.estimate, found.std_error, found.units, found.treated])
    assert mine == pytest.approx(np.array(twin, float), rel=SOLVED, nan_ok=True)
    assert found.full.estimate == cells(panel).overall.estimate
    assert found.change[found.largest] == max(found.change, key=abs)
    if level == "cluster":
        assert found.jackknife == pytest.approx(np.sqrt(11 * np.var(found.estimate)), rel=SOLVED)
        assert found.jackknife == pytest.approx(found.full.std_error[0], rel=0.35)
    if level == "cohort":
        assert np.isnan(found.jackknife)


def test_leaving_out_needs_few():
    panel = drawn(units=501)
    with pytest.raises(UsageError, match="did.leave_too_many"):
        leave_one_out(panel, cells, "unit")
    assert leave_one_out(panel, cells, "cohort").sign_changes == 0


def test_leaving_out_all_that_is_treated_is_missing():
    panel = drawn(units=30, dates=(5,), never=0.6)
    found = leave_one_out(panel, cells, "cohort")
    assert np.isnan(found.estimate).all() and found.largest == -1


# spillovers


def town(seed=1, noise=0.1, units=400, near=0.5, farther=0.2, periods=6):
    """Units on a line; treated ones at both ends of it, dates 4 (left) and 5 (right)."""
    rng = np.random.default_rng(seed)
    place = np.sort(rng.uniform(0, 100, units))
    first = np.where(place < 15, 4, np.where(place > 85, 5, 0))
    gap = np.where(place < 50, place - place[first == 4].max(), place[first == 5].min() - place)
    begun = np.where(place < 50, 4, 5)
    spill = np.where(first > 0, 0.0, np.where(gap <= 5, near, np.where(gap <= 15, farther, 0.0)))
    unit, time = (a.ravel() for a in np.meshgrid(np.arange(units), np.arange(1, periods + 1), indexing="ij"))
    y = (
        rng.normal(size=len(unit)) * noise
        + 0.3 * time
        + ((first[unit] > 0) * 1.0 + spill[unit]) * (time >= begun[unit])
    )
    return Panel.of(unit, time, y, first[unit]), place, gap, begun


def test_rings_recover_spillovers_and_clean_the_main_effect():
    panel, place, gap, _ = town()
    found = spillover_rings(panel, (5, 15), cells, coordinates=place[:, None])
    estimate, std_error = found.table()
    assert (np.abs(estimate - [0.5, 0.2]) < 4 * std_error).all() and (std_error < 0.03).all()
    assert abs(overall(found.without).estimate[0] - 1) < 4 * overall(found.without).std_error[0]
    assert overall(found.main).estimate[0] < 1 - 0.05
    assert found.difference.estimate[0] == pytest.approx(
        overall(found.main).estimate[0] - overall(found.without).estimate[0], rel=SOLVED
    )
    assert abs(found.difference.estimate[0]) > 4 * found.difference.std_error[0] > 0
    never = panel.first == NEVER
    assert found.units.tolist() == [(never & (gap <= 5)).sum(), (never & (gap > 5) & (gap <= 15)).sum()]
    assert found.far == (never & (gap > 15)).sum()
    assert found.low.tolist() == [0, 5] and found.high.tolist() == [5, 15]


def test_rings_from_a_matrix_coordinates_and_a_column_are_the_same():
    panel, place, _, begun = town(units=80)
    full = np.abs(place[:, None] - place)
    one = exposure(panel, (5, 15), coordinates=place[:, None])
    for distance in (full, full[:, panel.first < NEVER]):
        two = exposure(panel, (5, 15), distance=distance)
        assert np.array_equal(one.ring, two.ring) and np.array_equal(one.onset, two.onset)
    inside = one.ring != FAR
    assert np.array_equal(one.onset[inside], begun[inside])
    given = given_rings(panel, one.ring, one.onset)
    assert np.array_equal(given.ring, one.ring) and np.array_equal(given.onset, one.onset)
    made = of_exposure(panel, given, cells)
    assert np.isnan(made.low).all()
    assert made.table()[0] == pytest.approx(spillover_rings(panel, (5, 15), cells, distance=full).table()[0], rel=EXACT)


def test_a_ring_has_its_own_date():
    """Nearest is 3 away and treated in 7; another, 4 away in the same ring, in 5; a far one in 6 is outside."""
    x = np.array([0.0, 3.0, -4.0, 9.0, 100.0])
    first = np.array([0, 7, 5, 6, 0])
    unit, time = (a.ravel() for a in np.meshgrid(np.arange(5), np.arange(1, 9), indexing="ij"))
    panel = Panel.of(unit, time, np.zeros(40), first[unit])
    both = [exposure(panel, (5.0, 20.0), coordinates=x[:, None], onset=o) for o in ("first", "nearest")]
    assert [e.ring.tolist() for e in both] == [[0, FAR, FAR, FAR, FAR]] * 2
    assert [e.onset[0] for e in both] == [5, 7]
    edge = exposure(panel, (3.0, 20.0), coordinates=x[:, None])
    assert edge.ring[0] == 0 and edge.onset[0] == 7


def test_spillover_faults():
    panel, place, _, _ = town(units=60)
    at = place[:, None]
    for rings in ((), (5, 5), (0, 5), (9, 4)):
        with pytest.raises(UsageError, match="did.spillover_rings"):
            exposure(panel, rings, coordinates=at)
    full = np.abs(at - place)
    for wrong in ({}, {"coordinates": at, "distance": full}, {"distance": full[:, :7]}, {"distance": -full},
                  {"coordinates": at[:9]}, {"coordinates": at * np.nan}):  # fmt: skip
        with pytest.raises(UsageError, match="did.spillover_distance"):
            exposure(panel, (5,), **wrong)
    with pytest.raises(DesignError, match="did.spillover_no_far"):
        spillover_rings(panel, (500,), cells, coordinates=at)
    with pytest.raises(DesignError, match="did.spillover_no_ring"):
        spillover_rings(panel, (1e-9,), cells, coordinates=at)
    with pytest.raises(UsageError, match="did.spillover_onset"):
        given_rings(panel, np.zeros(60))
    alone = panel.with_first(np.full(60, NEVER))
    with pytest.raises(DesignError, match="did.spillover_no_treated"):
        exposure(alone, (5,), coordinates=at)
    with pytest.raises(DesignError, match="did.spillover_no_treated"):
        given_rings(alone, np.zeros(60))
    gap = spillover_rings(panel, (1e-9, 15), cells, coordinates=at)
    assert gap.effects[0] is None and np.isnan(gap.table()[0][0])
    assert [(m.group, m.code) for m in gap.missing] == [(0, "spillover_ring_empty")]


# composition


def people(seed=1, shift=0.0, places=24, n=6000):
    """Cross-sections of people in places; treatment changes how many young ones there are."""
    rng = np.random.default_rng(seed)
    place, time = rng.integers(0, places, n), rng.integers(1, 5, n)
    first = np.where(np.arange(places) < places / 2, 3, 0)
    treated = (first[place] > 0) & (time >= 3)
    young = rng.uniform(size=n) < 0.4 + shift * treated
    x = np.column_stack([young, rng.normal(size=(n, 2))])
    return Panel.of(np.arange(n), time, rng.normal(size=n), first[place], x=x, names=("young", "a", "b"),
                    cluster=place, level="place", repeated=True)  # fmt: skip


def test_composition_finds_the_trait_that_moves():
    panel = people(shift=0.15)
    found = composition(panel, cells)
    assert found.names == ("young", "a", "b")
    assert abs(found.estimate[0] - 0.15) < 4 * found.std_error[0]
    assert found.p_holm[0] < 0.01 < found.p_holm[1:].min() and found.joint == found.p_holm.min()
    p = np.sort(found.p_value)
    assert np.sort(found.p_holm) == pytest.approx(np.minimum(np.maximum.accumulate(p * [3, 2, 1]), 1), rel=EXACT)
    values = panel.x[~panel.treated, 0]
    assert found.scale[0] == pytest.approx(values.std(), rel=SOLVED)
    assert found.standardised[0] == pytest.approx(found.estimate[0] / values.std(), rel=SOLVED)
    bare = composition(panel, cells, names=["young"])
    assert bare.estimate[0] == found.estimate[0] and bare.p_holm[0] == bare.p_value[0]


def test_composition_is_the_estimator_on_the_covariate_without_covariates():
    panel = people()
    seen = []
    composition(panel, lambda part: (seen.append(part), cells(part))[1], names=["b"])
    assert seen[0].names == () and np.array_equal(seen[0].outcome, panel.x[:, 2])


def test_traits_fixed_within_units_are_no_change():
    base = drawn(units=30)
    x = np.repeat(np.arange(30.0), 8)
    panel = Panel.of(base.unit, base.period, base.outcome, base.first[base.unit], x=x, names=("age",))
    found = composition(panel, cells)
    assert found.estimate[0] == pytest.approx(0, abs=EXACT) and found.p_holm[0] == 1
    with pytest.raises(UsageError, match="did.composition_traits"):
        composition(base, cells)
    with pytest.raises(UsageError, match="did.composition_traits"):
        composition(panel, cells, names=["income"])


def test_presence_is_a_difference_in_shares_seen():
    full = drawn(seed=4, units=200, periods=4, dates=(3,))
    rng = np.random.default_rng(2)
    keep = ~(full.treated & (rng.uniform(size=len(full)) < 0.3))
    found = overall(presence(full.take_rows(keep), cells))
    seen = np.zeros((200, 4))
    seen[full.unit[keep], full.time[keep]] = 1
    change = seen[:, 2:].mean(axis=1) - seen[:, 1]
    begun = full.first < NEVER
    assert found.estimate[0] == pytest.approx(change[begun].mean() - change[~begun].mean(), rel=SOLVED)
    assert found.estimate[0] < -0.2
    with pytest.raises(UsageError, match="did.composition_cross_sections"):
        presence(people(), cells)


def test_rows_are_counted_by_cluster():
    panel = people(n=4000)
    place, time = panel.cluster[panel.unit], panel.time
    keep = np.ones(len(panel), bool)
    keep[np.flatnonzero(panel.treated)[::2]] = False  # half of the treated rows go
    less = panel.take_rows(keep)
    number = np.zeros((24, 4))
    np.add.at(number, (place[keep], time[keep]), 1)
    begun = np.arange(24) < 12
    for scale, values in (("count", number), ("log", np.log(number))):
        found = overall(rows(less, cells, scale))
        change = values[:, 2:].mean(axis=1) - values[:, 1]
        assert found.estimate[0] == pytest.approx(change[begun].mean() - change[~begun].mean(), rel=SOLVED)
        assert found.n_treated[0] == 12
    assert np.exp(overall(rows(less, cells)).estimate[0]) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(DesignError, match="did.composition_zero"):
        rows(panel.take_rows(~((place == 0) & (time == 1))), cells)
    mixed = panel.with_first(np.where(np.arange(panel.units) == 5, 4, panel.first))
    with pytest.raises(DataError, match="did.composition_mixed"):
        rows(mixed, cells)
