"""Difference-in-differences for exit rates: against plain loops, statsmodels, a jackknife, and a law that is known."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from naive import did_hazards as naive
from sample_example import protocol
from simulation.cover_hazards import CAUSES, DESIGNS, draw, truth
from test_sample_twin import FIRST, LAST, crooked
from tolerances import EXACT, MONTE_CARLO, SOLVED

from evalkit import register
from evalkit.did.hazards import AtRisk, hazard_did, leads_test, model, spells_at_risk
from evalkit.did.panel import NEVER
from evalkit.effects import generator
from evalkit.errors import DataError, DesignError, EvalkitError, UsageError
from evalkit.sample.shapes import spell_table
from evalkit.text import LANGUAGES, catalogue

WINDOW = (13, 34)
BANDS = (0, 2, 4, 8)
DERIVED = 1e-8
"""Central differences of a smooth function with step 1e-5 have ten digits; squared in a covariance, eight are asked."""


def band(t: int) -> int:
    return sum(t >= low for low in BANDS)


def people(number: int, seed: int = 3, adopted: dict[int, int] | None = None, groups: int = 6) -> list[dict]:
    """Spells of a small place: stock and inflow, two exits, two covariate cells, two spells a cluster."""
    rng = generator(seed, "hazards")
    when = {0: 24, 1: 24, 2: 27} if adopted is None else adopted
    out = []
    for i in range(number):
        group, begin, cell = int(rng.integers(0, groups)), int(rng.integers(1, 35)), int(rng.integers(0, 2))
        first, t, cause = when.get(group, 0), 0, None
        while begin + t <= WINDOW[1] and cause is None:
            treated = first > 0 and begin + t >= first
            h = 1 - np.exp(-np.exp(-2.0 - 0.3 * np.log1p(t) + 0.03 * group + 0.3 * cell + 0.4 * treated))
            u = rng.random()
            cause = "work" if u < 0.6 * h else "other" if u < h else None
            t += 1
        if t > max(0, WINDOW[0] - begin):
            out.append(dict(begin=begin, entry=max(0, WINDOW[0] - begin), stop=t, cause=cause, group=group,
                            adopted=first, cluster=i // 2, cell=cell))  # fmt: skip
    return out


def columns(spells: list[dict]) -> dict[str, np.ndarray]:
    def of(name: str) -> np.ndarray:
        return np.array([spell[name] for spell in spells], object if name == "cause" else None)

    return dict(entry_month=of("begin"), entry_offset=of("entry"), stop=of("stop"),
                event=np.array([spell["cause"] is not None for spell in spells]), cause=of("cause"), group=of("group"),
                adopted=of("adopted"))  # fmt: skip


def built(spells: list[dict], cell: bool = True, **changed) -> AtRisk:
    given = columns(spells)
    extra = dict(cluster=np.array([s["cluster"] for s in spells]), person=np.array([s["cluster"] for s in spells]))
    if cell:
        extra["cell"] = np.array([s["cell"] for s in spells])
    return spells_at_risk(**{**given, **extra, "window": WINDOW, **changed})


@pytest.fixture(scope="module")
def town() -> list[dict]:
    return people(320)


# -- against plain loops --------


@pytest.mark.parametrize(
    "link, own, anticipation",
    [("cloglog", False, 0), ("cloglog", True, 2), ("identity", False, 2), ("identity", True, 0)],
)
def test_estimate_and_influence_are_those_of_loops_and_statsmodels(town, link, own, anticipation, monkeypatch) -> None:
    monkeypatch.setattr("evalkit.did.hazards.estimate.OUTSIDE", 1.0)  # few people: identity predicts some below zero
    bands = (0, 6) if own else BANDS
    found = hazard_did(
        built(town), link=link, horizon=3, duration=bands, group_durations=own, anticipation=anticipation, placebo=0
    )
    estimate, without, number, influence = naive.effect(
        town, WINDOW, ("other", "work"), 3, link, lambda t: sum(t >= low for low in bands), own, anticipation, True
    )
    assert found.n["spells"] == number > 50
    assert found.missing == ()
    for d, cause in enumerate(("other", "work")):
        effects = found.effects[cause]
        np.testing.assert_allclose(effects.estimate, estimate[d], atol=SOLVED)
        np.testing.assert_allclose(effects.counterfactual, without[d], atol=SOLVED)
        expected = np.array([influence[i][d] for i in effects.uncertainty.ids])
        np.testing.assert_allclose(effects.uncertainty.values, expected, atol=DERIVED * np.abs(expected).max())
        np.testing.assert_allclose(effects.vcov, expected.T @ expected, rtol=DERIVED, atol=DERIVED * effects.vcov.max())


def test_placebo_is_exposure_pretended_earlier(town) -> None:
    length, ahead = 4, 1
    found = hazard_did(built(town), horizon=3, duration=BANDS, placebo=length, anticipation=ahead)
    moved = [{**s, "adopted": s["adopted"] and s["adopted"] - length - ahead} for s in town]
    estimate, without, number = naive.effect(
        moved, WINDOW, ("other", "work"), length, band=band, until=lambda s: s["adopted"] + length - 1
    )
    effects = found.placebo["work"]
    assert effects.at.tolist() == [-4, -3, -2, -1]
    assert number > 20
    np.testing.assert_allclose(effects.estimate, estimate[1], atol=SOLVED)
    np.testing.assert_allclose(effects.counterfactual, without[1], atol=SOLVED)
    again = hazard_did(built(town), horizon=3, duration=BANDS, placebo=0, anticipation=ahead)
    assert again.placebo == {}


def test_the_covariance_is_that_of_a_jackknife() -> None:
    spells = people(2500, seed=9)
    given, block = columns(spells), np.arange(len(spells)) % 50

    def estimated(keep: np.ndarray):
        part = {name: values[keep] for name, values in given.items()}
        at_risk = spells_at_risk(**part, window=WINDOW, cluster=block[keep])
        return hazard_did(at_risk, horizon=5, duration=BANDS, placebo=0, destination="work").effects["work"]

    whole = estimated(block >= 0)
    each = [estimated(block != left).estimate for left in range(50)]
    spread = np.array(each) - np.mean(each, axis=0)
    jackknife = 49 / 50 * (spread**2).sum(axis=0)
    ratio = whole.std_error / np.sqrt(jackknife)
    # the jackknife is larger by terms of order parameters / clusters
    assert ((ratio > 0.97) & (ratio < 1.0)).all(), ratio


def test_leads_are_those_of_statsmodels(town) -> None:
    at_risk = built(town, cell=False)
    found = leads_test(at_risk, 3, duration=BANDS)
    rows = naive.person_months(town, WINDOW)
    ahead = [town[n]["adopted"] - c for n, _, c, _ in rows]
    frame = pd.DataFrame({
        "band": [band(t) for _, t, _, _ in rows], "group": [town[n]["group"] for n, *_ in rows],
        "c": [c for _, _, c, _ in rows], "lead": [lead if 0 < lead <= 3 else 0 for lead in ahead],
        "cluster": [town[n]["cluster"] for n, *_ in rows], "y": [float(why is not None) for *_, why in rows],
    })  # fmt: skip
    x = pd.get_dummies(frame[["band", "group", "c", "lead"]].astype("category"), drop_first=True).astype(float)
    x.insert(0, "one", 1.0)
    glm = sm.GLM(frame["y"], x, family=sm.families.Binomial(link=sm.families.links.CLogLog()))
    fit = glm.fit(tol=1e-14, maxiter=200, tol_criterion="params")
    names = ["lead_3", "lead_2", "lead_1"]
    score = pd.DataFrame(glm.score_obs(fit.params, scale=1.0), columns=x.columns).groupby(frame["cluster"]).sum()
    bread = np.linalg.inv(-glm.hessian(fit.params, scale=1.0, observed=True))
    vcov = pd.DataFrame(bread @ (score.T.to_numpy() @ score.to_numpy()) @ bread, x.columns, x.columns)
    assert found.at.tolist() == [-3, -2, -1]
    np.testing.assert_allclose(found.estimate, fit.params[names], rtol=1e-7, atol=SOLVED)
    np.testing.assert_allclose(found.vcov, vcov.loc[names, names], rtol=1e-7, atol=SOLVED)
    expected = fit.params[names] @ np.linalg.solve(vcov.loc[names, names], fit.params[names]) / 3
    assert found.statistic == pytest.approx(expected, rel=1e-6)
    assert found.df == (3, len(at_risk.cluster_ids) - 1)
    np.testing.assert_allclose(found.std_error, np.sqrt(np.diag(found.vcov)))


# -- a law whose effect is known --------


def as_spells(at_risk: AtRisk) -> list[dict]:
    """Spells of the data as loops want them."""
    group, elapsed = at_risk.group[at_risk.row], at_risk.elapsed[at_risk.row]
    first = at_risk.first[group]
    return [
        dict(begin=c - t, entry=t, stop=t + m, cause=None if d < 0 else at_risk.causes[d], group=g, adopted=a)
        for c, t, m, d, g, a in zip(
            at_risk.calendar[at_risk.row].tolist(), elapsed.tolist(), at_risk.months.tolist(), at_risk.cause.tolist(),
            group.tolist(), np.where(first < NEVER, first, 0).tolist(), strict=True,
        )
    ]  # fmt: skip


def test_a_plain_comparison_of_exit_rates_is_biased_and_this_is_not() -> None:
    """No effect, but the mix of durations moves differently in adopting groups."""
    design = DESIGNS["null"]
    plain, ours = [], []
    for rep in range(16):
        at_risk = draw(design, generator(rep, "hazards-null"))
        first = int(at_risk.first.min())
        window = at_risk.window
        plain.append(naive.plain_did(as_spells(at_risk), window, (window[0], first - 1), (first, window[1])))
        ours.append(hazard_did(at_risk, horizon=8, placebo=0).effects["any"].estimate)
    bias, error = np.mean(plain), np.std(plain, ddof=1) / np.sqrt(len(plain))
    assert bias > 5 * error  # the rate of adopters seems to rise
    assert 8 * bias > 0.04  # and cumulated over eight months that is more than four points
    ours = np.array(ours)
    assert (np.abs(ours.mean(axis=0)) < MONTE_CARLO * ours.std(axis=0, ddof=1) / np.sqrt(len(ours))).all()


def test_an_effect_is_found_with_the_spread_that_its_standard_error_tells() -> None:
    design = DESIGNS["persons"]
    exact = truth(design)
    estimate, error = [], []
    for rep in range(40):
        found = hazard_did(draw(design, generator(rep, "hazards-effect")), horizon=8, placebo=0)
        estimate.append([found.effects[cause].estimate for cause in CAUSES])
        error.append([found.effects[cause].std_error for cause in CAUSES])
    z = (np.array(estimate) - exact) / np.array(error)
    assert exact[1, 7] > 0.04
    assert (np.abs(z.mean(axis=0)) < MONTE_CARLO / np.sqrt(40)).all()
    # 99.9 % of chi-squared with 40 degrees of freedom lies within 0.42 and 1.87 times 40; many more draws than fit here
    # are in the coverage table (tests/simulation/cover_hazards.py)
    spread = (z**2).mean(axis=0)[:, [0, 7]]
    assert ((spread > 0.42) & (spread < 1.87)).all(), spread


def test_groups_with_shocks_need_groups_as_clusters() -> None:
    found = draw(replace(DESIGNS["groups"], shock=0.4), generator(1, "shocks"))
    assert found.level == "group" and len(found.cluster_ids) == 40
    by_group = hazard_did(found, horizon=8, placebo=0).effects["work"]
    by_person = hazard_did(replace(found, cluster=found.person, cluster_ids=found.person_ids, level="person"),
                           horizon=8, placebo=0).effects["work"]  # fmt: skip
    np.testing.assert_array_equal(by_group.estimate, by_person.estimate)
    assert by_group.se_kind == "influence function, clustered on group"
    assert by_group.std_error[-1] > 1.3 * by_person.std_error[-1]


def test_leads_find_a_trend_that_is_not_parallel() -> None:
    at_risk = draw(DESIGNS["null"], generator(4, "leads"))
    assert leads_test(at_risk, 4).p_value > 0.01
    # four in five of the adopters who left in the three months before adoption stay: hazards drop before adoption
    spells = as_spells(at_risk)
    rng = generator(4, "drop")
    for spell in spells:
        close = spell["begin"] + spell["stop"] - 1
        if spell["adopted"] and spell["cause"] and 0 < spell["adopted"] - close <= 3 and rng.random() < 0.8:
            spell.update(cause=None, stop=at_risk.window[1] + 1 - spell["begin"])
    changed = spells_at_risk(**columns(spells), window=at_risk.window)
    found = leads_test(changed, 3)
    assert (found.estimate < -0.5).all() and found.p_value < 1e-3
    assert hazard_did(changed, horizon=4, placebo=3).placebo["any"].estimate[-1] < -0.01


# -- parts that belong together --------


def test_destinations_add_up(town) -> None:
    found = hazard_did(built(town), horizon=4, duration=BANDS, placebo=3)
    for each in (found.effects, found.placebo):
        assert sorted(each) == ["any", "other", "work"]
        for name in ("estimate", "counterfactual"):
            parts = [getattr(each[cause], name) for cause in ("other", "work")]
            np.testing.assert_allclose(getattr(each["any"], name), np.sum(parts, axis=0), atol=EXACT)
        values = each["other"].uncertainty.values + each["work"].uncertainty.values
        np.testing.assert_allclose(each["any"].uncertainty.values, values, atol=EXACT)
    pooled = hazard_did(built(town), horizon=4, duration=BANDS, placebo=0, destination="work")
    assert sorted(pooled.effects) == ["any", "competing", "work"]
    np.testing.assert_allclose(pooled.effects["work"].vcov, found.effects["work"].vcov, rtol=SOLVED, atol=EXACT)
    np.testing.assert_array_equal(pooled.effects["work"].overall.estimate, found.effects["work"].estimate[-1:])
    assert set(pooled.models) == {"work", "competing"}
    summary = pooled.models["work"]
    fitted = [why for *_, why in naive.person_months(town, WINDOW)]
    assert (summary.person_months, summary.exits) == (len(fitted), fitted.count("work"))


def test_available_uses_whoever_is_followed_so_long(town) -> None:
    at_risk = built(town)
    found = hazard_did(at_risk, horizon=6, duration=BANDS, follow_up="available", placebo=0)
    assert found.composition == "varying"
    for k in (1, 3, 6):
        fixed = hazard_did(at_risk, horizon=k, duration=BANDS, placebo=0)
        assert fixed.composition == "fixed"
        for name in ("estimate", "counterfactual", "n_treated"):
            values = getattr(found.effects["work"], name)[k - 1], getattr(fixed.effects["work"], name)[k - 1]
            assert values[0] == pytest.approx(values[1], abs=EXACT)
        assert found.effects["work"].std_error[k - 1] == pytest.approx(
            fixed.effects["work"].std_error[k - 1], rel=SOLVED
        )
    assert (np.diff(found.effects["work"].n_treated) < 0).any()


def test_cohorts_and_populations_average_to_the_whole(town) -> None:
    at_risk = built(town)
    found = hazard_did(at_risk, horizon=4, duration=BANDS, placebo=0, by_cohort=True)
    parts = found.by_cohort["work"]
    assert sorted(parts) == [24, 27]
    split = {p: hazard_did(at_risk, horizon=4, duration=BANDS, placebo=0, population=p) for p in ("stock", "inflow")}

    def spells(first: int, population: str) -> int:
        return sum(
            s["adopted"] == first and naive.exposure(s, WINDOW) is not None
            and s["begin"] + naive.exposure(s, WINDOW) + 3 <= WINDOW[1]
            and (population == "any" or (s["begin"] < first) == (population == "stock"))
            for s in town
        )  # fmt: skip

    number = np.array([spells(24, "any"), spells(27, "any")])
    assert number.sum() == found.n["spells"]
    mean = number @ np.array([parts[24].estimate, parts[27].estimate]) / number.sum()
    np.testing.assert_allclose(found.effects["work"].estimate, mean, atol=EXACT)
    number = np.array([split[p].n["spells"] for p in ("stock", "inflow")])
    assert number[1] == spells(24, "inflow") + spells(27, "inflow") > 0
    mean = number @ np.array([split[p].effects["work"].estimate for p in ("stock", "inflow")]) / number.sum()
    np.testing.assert_allclose(found.effects["work"].estimate, mean, atol=EXACT)


def test_numbers_of_persons(town) -> None:
    """Two spells of one person count once, as treated and as comparison."""
    found = hazard_did(built(town), horizon=4, duration=BANDS, placebo=0)
    exposed = {
        s["cluster"] for s in town
        if naive.exposure(s, WINDOW) is not None and s["begin"] + naive.exposure(s, WINDOW) + 3 <= WINDOW[1]
    }  # fmt: skip
    assert set(found.effects["work"].n_treated.tolist()) == {len(exposed)} == {found.n["persons"]}
    assert found.n["spells"] > found.n["persons"]
    months = [max(s["adopted"], s["begin"]) for s in town if s["adopted"] and naive.exposure(s, WINDOW) is not None]
    months = [m for m in months if m + 3 <= WINDOW[1]]
    for e in range(4):
        persons = {
            town[n]["cluster"]
            for n, _, c, _ in naive.person_months(town, WINDOW)
            if min(months) <= c <= max(months) + e
        }
        assert found.effects["work"].n_comparison[e] == len(persons)


def test_rows_in_any_order_give_the_same_bits(town) -> None:
    at_risk = built(town)
    order = generator(2, "order").permutation(len(town))
    again = built([town[i] for i in order])
    for name in ("stratum", "at_risk", "exits", "row", "months", "cause", "cluster"):
        np.testing.assert_array_equal(getattr(at_risk, name), getattr(again, name))
    one, two = (hazard_did(a, horizon=4, duration=BANDS) for a in (at_risk, again))
    np.testing.assert_array_equal(one.effects["work"].estimate, two.effects["work"].estimate)
    np.testing.assert_array_equal(one.effects["work"].uncertainty.values, two.effects["work"].uncertainty.values)


# -- the data --------


def test_counts_give_what_spells_give(town) -> None:
    at_risk = built(town, cluster="person", person=np.arange(len(town)))
    seen = at_risk.at_risk > 0
    order = generator(1, "rows").permutation(int(seen.sum()))

    def of(values: np.ndarray) -> np.ndarray:
        return values[seen][order]

    first = np.where(at_risk.first < NEVER, at_risk.first, 0)[at_risk.group]
    counts = AtRisk.of_counts(
        of(at_risk.group), of(at_risk.calendar), of(at_risk.elapsed), of(at_risk.at_risk), of(at_risk.exits), of(first),
        causes=at_risk.causes, cell=of(at_risk.cell), cluster="person",
    )  # fmt: skip
    one, two = (hazard_did(a, horizon=4, duration=BANDS) for a in (at_risk, counts))
    for cause in ("other", "work"):
        np.testing.assert_array_equal(one.effects[cause].estimate, two.effects[cause].estimate)
        np.testing.assert_allclose(one.effects[cause].vcov, two.effects[cause].vcov, rtol=SOLVED)
    grouped = AtRisk.of_counts(
        of(at_risk.group), of(at_risk.calendar), of(at_risk.elapsed), of(at_risk.at_risk), of(at_risk.exits), of(first),
        causes=at_risk.causes, cluster=of(at_risk.group) // 2, level="region", cell=of(at_risk.cell),
    )  # fmt: skip
    assert (grouped.level, len(grouped.cluster_ids)) == ("region", 3)


def test_a_frame_of_spells(town) -> None:
    frame = pd.DataFrame(columns(town))
    frame["person"] = frame.index
    names = {name: name for name in frame.columns}
    found = AtRisk.from_frame(frame, WINDOW, **names)
    np.testing.assert_array_equal(found.exits, spells_at_risk(**columns(town), window=WINDOW).exits)
    assert found.level == "person"  # six groups are few


def test_months_at_risk_are_those_of_loops(town) -> None:
    """Left truncation, the end of the window, exits by cause."""
    window = (16, 31)
    at_risk = built(town, cell=False, window=window)
    risk: dict[tuple, list[int]] = {}
    for s in town:
        for t in range(s["entry"], s["stop"]):
            if window[0] <= s["begin"] + t <= window[1]:
                own = risk.setdefault((s["group"], s["begin"] + t, t), [0, 0, 0])
                own[0] += 1
                if t == s["stop"] - 1 and s["cause"]:
                    own[1 + ("other", "work").index(s["cause"])] += 1
    seen = at_risk.at_risk > 0
    found = {
        (g, c, t): [n, *y]
        for g, c, t, n, y in zip(*(v[seen].tolist() for v in (at_risk.group, at_risk.calendar, at_risk.elapsed,
                                                              at_risk.at_risk, at_risk.exits)), strict=True)
    }  # fmt: skip
    assert found == risk


def test_the_spell_table_fits() -> None:
    """A register with real days: the spell table's columns are the arguments, and nobody is lost."""
    tables = crooked(3, 300)
    made = protocol(seed=5, first=str(FIRST), last=str(LAST), spells="", eligibility='stock = "include"')
    rows = spell_table(register.from_frames(made, **tables), made).collect("pandas").to_native()
    after = LAST + dt.timedelta(days=1)
    first = (FIRST.year - 1970) * 12 + FIRST.month - 1
    last = (after.year - 1970) * 12 + after.month - 1 - 2 - made.spells.merge_gap_months
    team = rows["place"].to_numpy() % 3
    adopted = np.where(team == 0, first + 30, 0)
    at_risk = spells_at_risk(
        rows["month"], rows["entry"], rows["stop"], rows["event"], rows["reason"], team, adopted, (first, last),
        person=rows["place"],
    )  # fmt: skip
    assert at_risk.at_risk.max() > 1 and at_risk.exits.sum() > 50 and (rows["entry"] > 0).any()
    assert at_risk.calendar.min() >= first and at_risk.calendar.max() <= last
    with pytest.raises(DataError) as error:
        spells_at_risk(rows["month"], rows["entry"], rows["stop"], rows["event"], rows["reason"], team, adopted,
                       (first, last + 3))  # fmt: skip
    assert error.value.faults[0].code == "did.hazards_lost"


# -- what cannot be known --------


def test_without_groups_that_never_adopt_late_months_are_missing() -> None:
    spells = people(900, seed=5, adopted={0: 20, 1: 20, 2: 28, 3: 28}, groups=4)
    found = hazard_did(built(spells), horizon=4, duration=BANDS, placebo=0)
    assert {m.code for m in found.missing} == {"hazards_no_comparison"}
    # the first cohort has a counterfactual while the second has not adopted: exposed in months 20..24 for four months
    assert {m.time for m in found.missing if m.group == 20} == set(range(25, 32))
    assert {m.group for m in found.missing} == {20, 28}
    kept = sum(
        s["adopted"] == 20 and naive.exposure(s, WINDOW) is not None and max(20, s["begin"]) <= 24 for s in spells
    )
    assert found.n["spells"] == kept > 0 and found.n["not_estimable"] > 0
    only = [s for s in spells if s["adopted"] == 20]
    with pytest.raises(DesignError) as error:
        hazard_did(built(only), horizon=4, duration=BANDS)
    assert error.value.faults[0].code == "did.hazards_not_estimable"


def test_a_group_treated_from_the_beginning_is_left_out(town) -> None:
    early = [{**s, "adopted": 10} if s["group"] == 5 else s for s in town]
    without = [s for s in town if s["group"] != 5]
    one, two = (hazard_did(built(x), horizon=4, duration=BANDS, placebo=0) for x in (early, without))
    np.testing.assert_allclose(one.effects["work"].estimate, two.effects["work"].estimate, atol=EXACT)
    assert {(m.group, m.code) for m in one.missing} <= {(10, "hazards_no_before")}
    late = [{**s, "adopted": 13} if s["group"] == 5 else s for s in town]  # its stock is seen at exposure
    found = hazard_did(built(late), horizon=4, duration=BANDS, placebo=0)
    np.testing.assert_allclose(found.effects["work"].estimate, two.effects["work"].estimate, atol=EXACT)
    assert {(m.group, m.code) for m in found.missing} == {(13, "hazards_no_before")}


def test_a_level_in_which_nobody_left_has_hazard_zero() -> None:
    codes = np.array([[0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]])
    n, y = np.array([50, 40, 30, 60, 9, 3]), np.array([5, 6, 2, 8, 0, 0])
    everyone = np.ones(6, bool)
    found = model.fit(codes, (4, 2), n, y, everyone, "cloglog")
    fewer = model.fit(codes[:, :4], (4, 2), n[:4], y[:4], everyone[:4], "cloglog")
    h, slope, known = found.hazard(codes)
    np.testing.assert_allclose(h[:4], fewer.hazard(codes[:, :4])[0], rtol=SOLVED)
    assert h[4:].tolist() == [0, 0] and slope[4:].tolist() == [0, 0] and known.all()
    assert not found.hazard(np.array([[3], [0]]))[2].any()  # a level that is not in the data
    assert found.log_likelihood == pytest.approx(fewer.log_likelihood, rel=SOLVED)


def test_what_the_data_do_not_connect_is_not_estimable() -> None:
    """Levels 0, 1 of the first factor are only seen with 0 of the second, 2 only with 1."""
    codes = np.array([[0, 1, 2, 2], [0, 0, 1, 2]])
    n, y = np.array([50, 40, 30, 60]), np.array([5, 6, 2, 8])
    for link in ("cloglog", "identity"):
        found = model.fit(codes, (3, 3), n, y, np.ones(4, bool), link)
        h, _, known = found.hazard(np.array([[0, 1, 2, 0, 2], [0, 0, 2, 1, 0]]))
        assert known.tolist() == [True, True, True, False, False]
        np.testing.assert_allclose(h[:3], [0.1, 0.15, 8 / 60], rtol=1e-7)


def test_no_best_fit_is_named() -> None:
    """Two cells of two factors in two levels are without exits, or without stayers: no level is."""
    codes = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    for n, y in (([40, 30, 30, 0], [0, 5, 4, 0]), ([4000, 3000, 3000, 3000], [0, 500, 400, 3000])):
        with pytest.raises(DesignError) as error:
            model.fit(codes, (2, 2), np.array(n), np.array(y), np.ones(4, bool), "cloglog")
        assert error.value.faults[0].code == "did.hazards_not_converged"


# -- faults --------


def refused(kind: type[EvalkitError], code: str, call) -> None:
    with pytest.raises(kind) as error:
        call()
    fault = error.value.faults[0]
    assert fault.code == code
    for lang in LANGUAGES:
        assert "{" not in fault.text(lang)


def test_faults_of_data(town) -> None:
    given = columns(town)
    cut = {**given, "stop": np.where(given["event"], given["stop"], given["stop"] - 1)}
    refused(DataError, "did.hazards_lost", lambda: spells_at_risk(**cut, window=WINDOW))
    two = {**given, "adopted": np.where(np.arange(len(town)) == 0, 25, given["adopted"])}
    refused(DataError, "did.hazards_adoption", lambda: spells_at_risk(**two, window=WINDOW))
    refused(DataError, "did.hazards_nobody", lambda: spells_at_risk(**given, window=(90, 95)))
    refused(UsageError, "did.hazards_destination", lambda: spells_at_risk(**given, window=WINDOW, causes=("work",)))
    refused(UsageError, "did.hazards_setting", lambda: spells_at_risk(**given, window=WINDOW, cluster="street"))

    def counts(calendar, at_risk, exits, last):
        elapsed = [c - 1 for c in calendar]
        return AtRisk.of_counts([0, 0], calendar, elapsed, at_risk, exits, [0, 0], window=(1, last))

    assert len(counts([1, 2], [5, 4], [1, 4], 9)) == 2
    for wrong in (
        ([1, 2], [5, 5], [1, 5], 9),  # someone appears
        ([1, 2], [5, 4], [1, 3], 9),  # someone is lost
        ([1, 3], [5, 4], [1, 4], 9),  # a month is lacking
        ([1, 2], [5, 4], [6, 0], 2),  # more leave than are there
    ):
        refused(DataError, "did.hazards_counts", lambda w=wrong: counts(*w))


def test_faults_of_settings(town) -> None:
    at_risk = built(town)
    for wrong in (
        dict(horizon=0), dict(link="logit"), dict(follow_up="some"), dict(population="all"), dict(duration="weekly"),
        dict(duration=(1, 3)), dict(duration=(0, 3, 3)), dict(anticipation=-1), dict(placebo=-1),
    ):  # fmt: skip
        refused(UsageError, "did.hazards_setting", lambda w=wrong: hazard_did(at_risk, **{"duration": BANDS, **w}))
    refused(UsageError, "did.hazards_setting", lambda: leads_test(at_risk, 0))
    refused(UsageError, "did.hazards_destination", lambda: hazard_did(at_risk, destination="moon"))


def test_faults_of_design(town) -> None:
    at_risk = built(town)
    refused(DesignError, "did.hazards_horizon", lambda: hazard_did(at_risk, horizon=30, duration=BANDS))
    never = built([{**s, "adopted": 0} for s in town])
    refused(DesignError, "did.hazards_nobody_treated", lambda: hazard_did(never, horizon=4))
    rare = [
        {**s, "cause": "moved"} if s["cause"] and s["adopted"] and s["begin"] + s["stop"] > s["adopted"] else s
        for s in town
    ]
    refused(DesignError, "did.hazards_no_exits", lambda: hazard_did(built(rare), horizon=4, duration=BANDS))
    refused(DesignError, "did.hazards_outside",
            lambda: hazard_did(at_risk, horizon=4, link="identity", destination="other"))  # fmt: skip
    refused(DesignError, "did.hazards_leads", lambda: leads_test(at_risk, 14, duration=BANDS))
    refused(DesignError, "did.hazards_leads", lambda: leads_test(built(town, cluster="group"), 6, duration=BANDS))


def test_a_placebo_that_is_not_estimable_says_so(town) -> None:
    found = hazard_did(built(town), horizon=4, duration=BANDS, placebo=14)
    assert found.placebo == {}
    assert {(m.group, m.time, m.code) for m in found.missing} == {
        (24, 10, "hazards_nobody_treated"), (27, 13, "hazards_nobody_treated")
    }  # fmt: skip


def test_every_reason_has_its_sentences() -> None:
    for code in ("hazards_no_before", "hazards_no_comparison"):
        for lang in LANGUAGES:
            assert {f"fault.did.{code}.say", f"fault.did.{code}.fix"} <= set(catalogue(lang))
