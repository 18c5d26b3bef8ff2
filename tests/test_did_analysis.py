"""Difference-in-differences from study file to results: what the line reports is what the estimators say."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import did_example as example
import numpy as np
import pandas as pd
import pytest
from did_example import COUNT, SHARE, codes, document, months, panel_study, ready_panel, register_study

from evalkit import did
from evalkit.did.few import conley_taber, ferman_pinto, randomisation, wild_influence, wild_two_way
from evalkit.did.frame import panel_from_frame
from evalkit.did.honest import honest
from evalkit.did.leave_out import overall
from evalkit.errors import DataError, DesignError, EvalkitError, StudyError
from evalkit.report import render

QUICK = "before = 3\nleave_out = false\nhonest = { relative = [] }\n"
"""Without what takes seconds."""
OPEN = 'profile = "open"'
CLOSE = dict(rel=1e-9, abs=1e-10)
X = '[covariates]\nnumeric = ["x"]\n'
PERSONS = 400


def library(frame: pd.DataFrame, outcome: str = "amount", **keys: object):
    """The panel of the ready file by the door for frames."""
    return panel_from_frame(
        frame, unit=keys.pop("unit", "place"), period="year", outcome=outcome, first_treated="first", **keys
    ).panel  # fmt: skip


def profile(found: dict) -> dict:
    (one,) = [p for p in found["profiles"] if not p["labels"]["subgroup"]]
    return one


def few_treated(places: tuple[str, ...] = ("m00", "m04")) -> pd.DataFrame:
    frame = ready_panel().frame
    return frame[(frame["first"] == 0) | frame.place.isin(places)]


def exhibit(found: dict, name: str) -> dict:
    return next(e for e in found["exhibits"] if e.get("id") == name)


def same(found: dict, effects: did.Effects, **labels: str) -> pd.DataFrame:
    """The months of a profile are the effects: event time e is month e + 1."""
    table = months(found, **labels)
    known = np.isfinite(effects.estimate)
    assert table.index.tolist() == (effects.at + 1).tolist()
    assert table.estimate.to_numpy(float)[known] == pytest.approx(effects.estimate[known], **CLOSE)
    assert table.counterfactual.to_numpy(float)[known] == pytest.approx(effects.counterfactual[known], **CLOSE)
    if effects.vcov is not None:
        assert table.std_error.to_numpy(float)[known] == pytest.approx(effects.std_error[known], **CLOSE)
    return table


# -- every estimator --------------------------------------------------------------------------------------------------

ESTIMATORS = {
    "group_time": {},
    "group_time, never": {"control": "never"},
    "group_time, covariate": {"adjust": "dr"},
    "group_time, weights": {"adjust": "ipw"},
    "group_time, regression": {"adjust": "reg"},
    "group_time, improved": {"adjust": "dr_improved"},
    "group_time, varying base": {"base": "varying"},
    "sun_abraham": {},
    "imputation": {},
    "extended": {},
    "stacked": {},
    "two_way": {},
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_profile_is_the_estimator_and_finds_the_truth(name, tmp_path):
    settings = ESTIMATORS[name]
    estimator = name.partition(",")[0]
    said = "".join(f'{key} = "{value}"\n' for key, value in settings.items())
    quick = QUICK if "base" not in settings else "before = 3\nleave_out = false\n"
    adjusted = "adjust" in settings
    study = panel_study(
        tmp_path, quick + f'estimator = "{estimator}"\n' + said, more=X if adjusted else "", disclosure=OPEN
    )
    found = document(study)
    made = ready_panel()
    panel = library(made.frame, covariates=["x"] if adjusted else [])
    table = same(found, did.Choice(estimator, before=3, after=2, complete=True, **settings)(panel))

    one = profile(found)
    assert one["composition"] == "fixed"
    assert one["se_kind"] == "influence function, clustered on place"
    assert one["labels"]["unit_of_panel"] == "place" and one["labels"]["period_months"] == "12"
    estimand = one["estimand"]
    assert (estimand["population"], estimand["versus"], estimand["clock"]) == ("exposed", "no_adoption", "adoption")
    assert estimand["identification"] == ("conditional_" if adjusted else "") + "parallel_trends"
    if estimator not in ("imputation", "extended") and "base" not in settings:
        assert table.estimate[0] == 0 and table.std_error[0] == 0
    assert set(table.n_treated[table.index >= 1]) == {30 * PERSONS}
    truth = made.effect("amount", [0, 1, 2], horizon=3)
    since = table[table.index >= 1]
    assert (np.abs(since.estimate.to_numpy() - truth) < 4 * since.std_error.to_numpy()).all()
    before = table[(table.index < 1) & (table.std_error > 0)]
    assert (np.abs(before.estimate) < 4 * before.std_error).all()


@pytest.mark.parametrize(("family", "outcome", "column"), [("logit", SHARE, "share"), ("poisson", COUNT, "count")])
def test_shares_and_counts(family, outcome, column, tmp_path):
    settings = QUICK + f'estimator = "extended"\nfamily = "{family}"\n'
    found = document(panel_study(tmp_path, settings, outcome=outcome, disclosure=OPEN))
    made = ready_panel()
    choice = did.Choice("extended", family=family, before=3, after=2, complete=True)
    table = same(found, choice(library(made.frame, column)))
    truth = made.effect(column, [0, 1, 2], horizon=3)
    assert (np.abs(table.estimate.to_numpy() - truth) < 4 * table.std_error.to_numpy()).all()


def halves() -> pd.DataFrame:
    """Each place in two halves: those who can be affected, and others whose trend jumps as theirs would have."""
    frame = ready_panel().frame
    jump = 0.7 * ((frame["first"] > 0) & (frame.year >= frame["first"]))
    effect = ready_panel().truth["amount"]
    rng = np.random.default_rng(3)
    other = frame.amount - effect + jump + rng.normal(0, 0.3, len(frame))
    parts = [frame.assign(who=frame.place + "y", eligible=1, amount=frame.amount + jump),
             frame.assign(who=frame.place + "n", eligible=0, amount=other)]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_triple_differences(tmp_path):
    frame = halves()
    study = panel_study(
        tmp_path, QUICK + 'estimator = "triple"\neligible = "eligible"\n', frame=frame, disclosure=OPEN,
        panel='cluster = "place"', more='[covariates]\nnumeric = ["eligible"]\n',
    )  # fmt: skip
    study.write_text(study.read_text("utf-8").replace('unit = "place"', 'unit = "who"'), "utf-8")
    found = document(study)
    panel = library(frame, unit="who", cluster="place", covariates=["eligible"])
    choice = did.Choice("triple", eligible="eligible", before=3, after=2, complete=True)
    table = same(found, choice(panel))
    assert profile(found)["estimand"]["identification"] == "parallel_gaps"
    assert profile(found)["se_kind"] == "influence function, clustered on place"
    since = table[table.index >= 1]
    truth = ready_panel().effect("amount", [0, 1, 2], horizon=3)
    assert (np.abs(since.estimate.to_numpy() - truth) < 4 * since.std_error.to_numpy()).all()
    plain = did.Choice("group_time", before=3, after=2, complete=True)(library(frame[frame.eligible == 1]))
    assert (plain.estimate[-3:] - truth > 0.4).all()  # two differences are not enough here


@pytest.mark.parametrize("errors", ["placebo", "jackknife", "bootstrap"])
def test_synthetic(errors, tmp_path):
    frame = few_treated(("m00", "m04", "m08"))
    study = panel_study(
        tmp_path, QUICK + f'estimator = "synthetic"\nerrors = "{errors}"\ndraws = 99\n', frame=frame, disclosure=OPEN
    )
    found = document(study)
    choice = did.Choice("synthetic", before=3, after=2, complete=True, repetitions=errors, draws=99, seed=7)
    table = same(found, choice(library(frame)))
    assert profile(found)["estimand"]["identification"] == "synthetic_control"
    since = table[table.index >= 1]
    assert (np.abs(since.estimate.to_numpy() - [1.0, 1.25, 1.5]) < 4 * since.std_error.to_numpy()).all()


# -- uncertainty ------------------------------------------------------------------------------------------------------


def test_multiplier_bootstrap_changes_the_size_of_errors_only(tmp_path):
    tables = {}
    for errors in ("influence", "multiplier"):
        found = document(panel_study(tmp_path / errors, QUICK + f'errors = "{errors}"\n', disclosure=OPEN))
        tables[errors] = months(found)
    one, other = tables.values()
    assert np.array_equal(one.estimate, other.estimate)
    known = one.std_error > 0
    ratio = (other.std_error / one.std_error)[known]
    assert ratio.between(0.85, 1.15).all() and not np.allclose(ratio, 1)
    assert profile(found)["se_kind"] == "multiplier bootstrap, clustered on place"


def by_library(errors: str, panel):
    """The test by the library, and the frame it is for."""
    keys = dict(draws=99, seed=7)
    choice = did.Choice(before=3, after=2, complete=True, seed=7, draws=99)
    if errors == "randomisation":
        return randomisation(panel, choice, **keys)
    if errors == "wild":
        return wild_influence(choice(panel), blocks=panel.first, **keys)
    if errors == "wild, two_way":
        return wild_two_way(panel, by="event", **keys)
    test = conley_taber if errors == "conley_taber" else ferman_pinto
    return test(panel, base="last", window=(-3, 2), **keys)


@pytest.mark.parametrize("errors", ["wild", "wild, two_way", "randomisation", "conley_taber", "ferman_pinto"])
def test_a_test_gives_intervals_and_nothing_else(errors, tmp_path):
    few = errors in ("conley_taber", "ferman_pinto")
    frame = few_treated() if few else ready_panel().frame
    name, _, estimator = errors.partition(", ")
    settings = QUICK + f'errors = "{name}"\ndraws = 99\ncontrol = "{"never" if few else "not_yet"}"\n'
    study = panel_study(tmp_path, settings + f'estimator = "{estimator or "group_time"}"\n', frame=frame)
    study.write_text(study.read_text("utf-8").replace('"municipal"', '"open"'), "utf-8")
    found = document(study)
    tested = by_library(errors, library(frame, persons="persons") if few else library(frame))
    table = months(found)
    at = tested.effects.at
    shown = np.isin(at, table.index - 1)
    assert table.estimate.to_numpy() == pytest.approx(tested.estimate[shown], **CLOSE)
    assert table.std_error.isna().all()
    ends = table[["ci_low", "ci_high"]].to_numpy(float)
    expected = np.column_stack([tested.low, tested.high])[shown]
    finite = np.isfinite(expected)
    assert ends[finite] == pytest.approx(expected[finite], **CLOSE)
    rows = {row["month"]: row for row in exhibit(found, "did_tested")["rows"]}
    p_values = dict(zip((at + 1).tolist(), tested.p_value.tolist(), strict=True))
    for month in table.index[table.index != 0]:
        assert rows[str(month)]["p_value"] == pytest.approx(p_values[month], **CLOSE)
    if estimator:  # the regression by event time has no number for all of them
        assert tested.overall is None and "column.overall" not in rows
    else:
        assert rows["column.overall"]["p_value"] == pytest.approx(tested.overall.p_value[0], **CLOSE)
    assert "did_test" in codes(found)
    assert not {"did_few_clusters", "did_few_treated"} & set(codes(found))
    assert all(row["estimate"] is None for row in profile(found)["summary"])


def test_few_treated_are_warned_about_and_told_what_to_do(tmp_path):
    frame = few_treated()
    found = {}
    for errors in ("influence", "multiplier", "conley_taber", "randomisation"):
        settings = QUICK + f'errors = "{errors}"\ndraws = 200\ncontrol = "never"\n'
        found[errors] = document(panel_study(tmp_path / errors, settings, frame=frame, disclosure=OPEN))
    warned = {errors: "did_few_treated" in codes(one) for errors, one in found.items()}
    assert warned == {"influence": True, "multiplier": True, "conley_taber": False, "randomisation": False}
    (finding,) = [f for f in found["influence"]["findings"] if f["code"] == "did_few_treated"]
    assert finding["verdict"] == "warn" and finding["params"]["treated"] == 2
    assert found["influence"]["gates"][0]["verdict"] == "warn"


def test_a_test_that_can_never_reject_says_so(tmp_path):
    frame = few_treated(("m00",))
    frame = frame[frame.place.isin(["m00", "m02", "m03", "m06", "m07", "m10"])]
    settings = QUICK + 'errors = "randomisation"\n'
    found = document(panel_study(tmp_path, settings, frame=frame, disclosure=OPEN))
    (finding,) = [f for f in found["findings"] if f["code"] == "did_test_cannot_reject"]
    assert finding["verdict"] == "warn"
    assert finding["params"]["smallest"] == pytest.approx(1 / 6)
    assert months(found).ci_low.isna().sum() == len(months(found)) - 1  # the base is zero by construction


# -- who is followed, and from when --------------------------------------------------------------------------------


def test_follow_up(tmp_path):
    """Complete: the same units in every period, of the cohort that is seen so long; available: what there is."""
    made = ready_panel()
    parts = {}
    for follow_up in ("complete", "available"):
        time = f'horizon = 6\nfollow_up = "{follow_up}"'
        study = panel_study(tmp_path / follow_up, QUICK, time=time, disclosure=OPEN)
        found = document(study)
        choice = did.Choice(before=3, after=5, complete=follow_up == "complete")
        parts[follow_up] = found, same(found, choice(library(made.frame)))
    (whole, table), (some, other) = parts.values()
    assert set(table.n_treated) == {15 * PERSONS}
    assert other.n_treated[other.index >= 1].tolist() == [30 * PERSONS] * 4 + [15 * PERSONS] * 2
    assert (profile(whole)["composition"], profile(some)["composition"]) == ("fixed", "varying")
    assert profile(whole)["estimand"]["restriction"] == "follow_up" and not profile(some)["estimand"]["restriction"]
    assert "did_composition_varying" in codes(some) and "did_composition_varying" not in codes(whole)
    for table, horizon in ((parts["complete"][1], 6), (parts["available"][1], None)):
        truth = made.effect("amount", list(range(6)), horizon)
        since = table[table.index >= 1]
        assert (np.abs(since.estimate.to_numpy() - truth) < 4 * since.std_error.to_numpy()).all()


def test_anticipation_moves_the_base(tmp_path):
    frame = ready_panel().frame.copy()
    ahead = (frame["first"] > 0) & (frame.year == frame["first"] - 1)
    frame["amount"] += 0.8 * ahead
    found = document(panel_study(tmp_path, QUICK + "anticipation = 1\n", frame=frame, disclosure=OPEN))
    table = same(found, did.Choice(before=3, after=2, complete=True, anticipation=1)(library(frame)))
    assert table.estimate[-1] == 0 and table.std_error[-1] == 0
    assert abs(table.estimate[0] - 0.8) < 4 * table.std_error[0]
    assert {f["params"]["months"] for f in found["findings"] if f["code"].startswith("did_pretrends")} == {1}


def test_before_is_what_is_shown(tmp_path):
    for before, shown in ((1, 1), (5, 5)):  # one cohort is seen for four
        settings = f"before = {before}\nleave_out = false\nhonest = {{ relative = [] }}\n"
        table = months(document(panel_study(tmp_path, settings)))
        assert table.index.tolist() == list(range(1 - shown, 4))


@pytest.mark.parametrize("unbalanced", ["complete", "by_pair", "cross_sections"])
def test_units_with_gaps(unbalanced, tmp_path):
    frame = ready_panel().frame.drop(index=[3, 77, 415])
    found = document(panel_study(tmp_path, QUICK + f'unbalanced = "{unbalanced}"\n', frame=frame, disclosure=OPEN))
    same(found, did.Choice(before=3, after=2, complete=True, unbalanced=unbalanced)(library(frame)))
    assert "panel_gaps" in codes(found)
    gone = [row for row in found["flow"] if row["reason"] == "not_every_period"]
    assert bool(gone) == (unbalanced == "complete")


def test_covariates_can_be_left_out(tmp_path):
    found = document(panel_study(tmp_path, QUICK + "covariates = false\n", more=X, disclosure=OPEN))
    same(found, did.Choice(before=3, after=2, complete=True)(library(ready_panel().frame)))
    assert profile(found)["estimand"]["identification"] == "parallel_trends"


def test_rows_in_another_order_give_the_same_bits(tmp_path):
    frame = ready_panel().frame
    settings = QUICK + 'errors = "wild"\ndraws = 99\nplacebo = { margin = 0.6 }\n'
    one = document(panel_study(tmp_path / "one", settings, more=X))
    two = document(panel_study(tmp_path / "two", settings, more=X, frame=frame.sample(frac=1, random_state=2)))
    for part in ("profiles", "exhibits", "findings", "flow", "gates"):
        assert one[part] == two[part], part


def test_clusters_above_units(tmp_path):
    frame = ready_panel().frame.assign(block=lambda f: np.where(f["first"] > 0, f.place, "n" + f.block))
    found = document(panel_study(tmp_path, QUICK, frame=frame, panel='cluster = "block"', disclosure=OPEN))
    same(found, did.Choice(before=3, after=2, complete=True)(library(frame, cluster="block")))
    assert profile(found)["se_kind"] == "influence function, clustered on block"


# -- to be believed? ----------------------------------------------------------------------------------------------


def test_placebo_is_judged_by_its_margin(tmp_path):
    parts = {}
    for margin in (0.6, 0.01):
        settings = (
            f"before = 3\nplacebo = {{ margin = {margin} }}\nplacebo_dates = 1\nhonest = {{ relative = [1.0] }}\n"
        )
        outcome = example.outcome_of(panel_study(tmp_path / str(margin), settings, disclosure=OPEN))
        parts[margin] = outcome, dict(outcome.results.document)
    (passed, whole), (failed, empty) = parts.values()
    assert passed.primary_shown and not failed.primary_shown
    assert whole["gates"][0]["verdict"] == "pass" and empty["gates"][0]["verdict"] == "fail"
    shown, hidden = months(whole), months(empty)
    before = shown.index < 1
    single = [name for name in shown.columns if not name.startswith("band_")]  # a band is that of what is shown
    assert hidden.loc[before, single].equals(shown.loc[before, single])
    assert set(hidden.status[~before]) == {"withheld"} and hidden.estimate[~before].isna().all()
    (finding,) = [f for f in empty["findings"] if f["code"] == "placebo_amount"]
    estimates = did.Choice(before=3, after=2, complete=True)(library(ready_panel().frame))
    early = np.isin(estimates.at, [-3, -2])
    assert finding["value"] == pytest.approx(estimates.estimate[early].mean(), **CLOSE)
    told = json.dumps(empty)
    for name in ("did_totals", "did_groups", "did_honest", "did_leave_out", "did_bacon", "did_power", "did_breakdown"):
        assert f'"{name}"' in json.dumps(whole) and f'"{name}"' not in told
    assert "did_pretrends" in codes(empty) and "did_placebo_dates" in codes(empty)


def test_a_placebo_that_a_reason_overrides_is_shown(tmp_path):
    settings = QUICK + "placebo = { margin = 0.01 }\n"
    study = panel_study(tmp_path, settings, more='[gate]\nshow_anyway = "for a test"\n')
    outcome = example.outcome_of(study)
    assert outcome.primary_shown and outcome.results.document["gates"][0]["verdict"] == "fail"


def test_pretended_dates_and_groups(tmp_path):
    settings = QUICK + "placebo_dates = 2\nplacebo_groups = true\ndraws = 99\n"
    found = document(panel_study(tmp_path, settings))
    assert {"did_placebo_dates", "did_placebo_groups"} <= set(codes(found))
    assert exhibit(found, "did_placebo_dates")["rows"]
    frame = ready_panel().frame.copy()
    frame["amount"] += 0.6 * (frame["first"] > 0) * (frame.year - 2010)  # they moved apart all along
    drifting = document(panel_study(tmp_path, settings, frame=frame))
    verdicts = {f["code"]: f["verdict"] for f in drifting["findings"]}
    assert verdicts["did_placebo_dates"] == "warn"
    assert verdicts["did_pretrends_differ"] == "warn"
    none = document(panel_study(tmp_path, QUICK + "placebo_dates = 9\n"))
    (note,) = [e for e in none["exhibits"] if e.get("key") == "did_placebo_not"]
    assert note["params"]["why"].startswith("did.placebo")


def test_honest_intervals_of_both_kinds(tmp_path):
    settings = "before = 3\nleave_out = false\nhonest = { relative = [0.5, 1.0], smooth = [0.0, 0.1] }\n"
    found = document(panel_study(tmp_path, settings, disclosure=OPEN))
    effects = did.Choice(before=3, after=2, complete=True)(library(ready_panel().frame))
    rows = {(r["restriction"], r["m"], r["contrast"]): r for r in exhibit(found, "did_honest")["rows"]}
    assert len(rows) == 8
    for kind, bounds in (("relative_magnitudes", (0.5, 1.0)), ("smoothness", (0.0, 0.1))):
        for one in honest(effects, restriction=kind, m=bounds, contrast="average"):
            row = rows[f"column.{kind}", one.m, "column.effect_average"]
            assert (row["ci_low"], row["ci_high"]) == pytest.approx((one.low, one.high), **CLOSE)
    assert any(code.startswith("did_breakdown") for code in codes(found))


def test_a_varying_base_has_no_honest_intervals(tmp_path):
    found = document(panel_study(tmp_path, 'before = 3\nleave_out = false\nbase = "varying"\n'))
    (note,) = [e for e in found["exhibits"] if e.get("key") == "did_honest_not"]
    assert note["params"]["why"] == "did.honest_needs_universal_base"
    assert "did_pretrends" in codes(found)


def test_rings(tmp_path):
    """Neighbours of treated units that gain too; they are no covariate, and no longer in the comparison."""
    frame = ready_panel().frame.copy()
    near = (frame.ring == 0) & (frame.year >= 2014)
    frame["amount"] += 0.9 * near
    settings = QUICK + 'rings = "ring"\n'
    found = document(panel_study(tmp_path, settings, frame=frame, more='[covariates]\nnumeric = ["ring"]\n',
                                 disclosure=OPEN))  # fmt: skip
    same(found, did.Choice(before=3, after=2, complete=True)(library(frame)))
    rows = exhibit(found, "did_rings")["rows"]
    ring = next(row for row in rows if "0" in str(row["ring"]))
    assert ring["ci_low"] < 0.9 < ring["ci_high"]
    without = next(row for row in rows if row["ring"] == "column.main_without_rings")
    truth = ready_panel().effect("amount", [0, 1, 2], horizon=3).mean()
    assert without["ci_low"] < truth < without["ci_high"]
    assert profile(found)["estimand"]["identification"] == "parallel_trends"
    unknown = document(panel_study(tmp_path, QUICK + 'rings = "far"\n'))
    assert any(e.get("key") == "did_no_rings" for e in unknown["exhibits"])


def test_totals_and_cohorts_are_those_of_the_estimator(tmp_path):
    found = document(panel_study(tmp_path, QUICK, disclosure=OPEN))
    panel, choice = library(ready_panel().frame), did.Choice(before=3, after=2, complete=True)
    totals = {row["total"]: row for row in exhibit(found, "did_totals")["rows"]}
    for by in ("simple", "group", "calendar"):
        one = overall(choice.by(panel, by))
        assert totals[f"column.overall_{by}"]["estimate"] == pytest.approx(one.estimate[0], **CLOSE)
        assert totals[f"column.overall_{by}"]["std_error"] == pytest.approx(one.std_error[0], **CLOSE)
    groups = choice.by(panel, "group")
    rows = exhibit(found, "did_groups")["rows"]
    assert [row["first"] for row in rows] == ["2014", "2016"]
    assert [row["estimate"] for row in rows] == pytest.approx(groups.estimate.tolist(), **CLOSE)
    cohorts = exhibit(found, "did_cohorts")["rows"]
    assert [(row["first"], row["units"], row["persons"]) for row in cohorts] == [
        ("2014", 15, 15 * PERSONS), ("2016", 15, 15 * PERSONS), ("column.never_treated", 30, 30 * PERSONS)
    ]  # fmt: skip


def test_check_shows_the_months_before_and_no_effect(tmp_path):
    study = panel_study(tmp_path, "before = 3\nplacebo_dates = 1\n", disclosure=OPEN)
    blind = document(study, blind=True)
    table = months(blind)
    since = table.index >= 1
    assert table.estimate[since].isna().all() and table.ci_low[since].isna().all()
    assert set(table.status[since]) == {"withheld"}
    assert table.estimate[~since].notna().all()
    for name in ("did_totals", "did_groups", "did_honest", "did_leave_out", "did_bacon", "did_power", "did_tested"):
        assert f'"{name}"' not in json.dumps(blind)
    assert "did_pretrends" in codes(blind) and exhibit(blind, "did_cohorts")
    tested = document(panel_study(tmp_path, QUICK + 'errors = "wild"\ndraws = 199\n'), blind=True)
    assert "did_tested" not in json.dumps(tested["exhibits"])


# -- statements that must be true -------------------------------------------------------------------------------------


def test_the_test_before_the_start_holds_with_few_groups(tmp_path):
    """24 groups that move alike, 8 periods before: about one in twenty is told that they moved apart."""
    told = []
    rng = np.random.default_rng(8)
    for _ in range(60):
        frame = ready_panel().frame
        frame = frame[frame.place.isin([f"m{i:02d}" for i in range(24)])]
        frame = frame.assign(
            first=np.where(frame["first"] > 0, 2019, 0), amount=rng.normal(0, 1, len(frame)) + 0.1 * frame.year
        )
        told.append(_before_the_start(frame))
    share = np.mean([code == "did_pretrends_differ" for code in told])
    assert set(told) <= {"did_pretrends", "did_pretrends_differ"}
    assert share < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 60)  # a chi-squared distribution tells a third of them


def _before_the_start(frame: pd.DataFrame) -> str:
    """What is said of the groups' joint movement before the start."""
    from types import SimpleNamespace

    from evalkit.analyses.did import Estimated
    from evalkit.analyses.did_credible import _joint

    panel = library(frame, persons="persons")
    choice = did.Choice(before=8, after=0, complete=True)
    data = SimpleNamespace(panel=panel, persons=np.full(panel.units, PERSONS), unit="place", labels=())
    outcome = SimpleNamespace(name="amount", unit="euro")
    (finding,) = _joint(Estimated(outcome, data, choice, choice(panel)))  # type: ignore[arg-type]
    return finding.code


def test_too_few_treated_for_a_test_before_the_start(tmp_path):
    said = codes(document(panel_study(tmp_path, QUICK, frame=few_treated())))
    assert "did_pretrends_few" in said and not {"did_pretrends", "did_pretrends_differ"} & set(said)


@pytest.mark.parametrize("errors", ["wild", "randomisation"])
def test_a_margin_is_judged_whatever_the_errors(errors, tmp_path):
    """A margin that was named beforehand is judged also where a test gives no covariance."""
    shown = {}
    for margin in (0.6, 0.01):
        settings = QUICK + f'errors = "{errors}"\ndraws = 99\nplacebo = {{ margin = {margin} }}\n'
        made = example.outcome_of(panel_study(tmp_path / str(margin), settings))
        shown[margin] = made.primary_shown
        assert "placebo_not_estimable" not in codes(dict(made.results.document))
    assert shown == {0.6: True, 0.01: False}


def test_a_wild_bootstrap_does_not_cure_few_treated(tmp_path):
    settings = QUICK + 'errors = "wild"\ndraws = 199\n'
    assert "did_few_treated" in codes(document(panel_study(tmp_path, settings, frame=few_treated())))


def test_the_number_of_treated_places_is_told(tmp_path):
    """Places are no persons: two of them may be named where each has hundreds of people."""
    found = document(panel_study(tmp_path, QUICK, frame=few_treated()))
    (finding,) = [f for f in found["findings"] if f["code"] == "did_few_treated"]
    assert (finding["params"]["treated"], finding["params"]["clusters"]) == (2, 32)


def test_subgroups_of_a_ready_panel(tmp_path):
    found = document(panel_study(tmp_path, QUICK, more='[[subgroup]]\nname = "kind"\n', disclosure=OPEN))
    frame = ready_panel().frame
    for level in ("north", "south"):
        own = library(frame[frame.kind == level])
        table = months(found, subgroup=f"kind={level}", variant="")
        effects = did.Choice(before=3, after=2, complete=True)(own)
        assert table.estimate.to_numpy() == pytest.approx(effects.estimate, **CLOSE)
        assert table.std_error.to_numpy() == pytest.approx(effects.std_error, **CLOSE)


def test_what_was_used_is_what_is_said(tmp_path):
    """Covariates that were not taken into account are not named, nor a comparison that was not made."""
    cases = {
        'estimator = "stacked"\n': ("none", "units that had not started yet or never did"),
        'control = "never"\nadjust = "reg"\n': ("x", "units that never started"),
        'estimator = "two_way"\n': ("x", "all units, also those that had already started"),
    }
    for number, (settings, (covariates, control)) in enumerate(cases.items()):
        page = words(render(document(panel_study(tmp_path / str(number), QUICK + settings, more=X)), "en"))
        assert f"Characteristics that were taken into account: {covariates}." in page, settings
        assert f"Comparison: {control}." in page, settings


def test_names_of_the_package_are_what_they_say():
    """Modules that are called as what they hold do not hide it once they are loaded."""
    for name in did.__all__:
        assert not isinstance(getattr(did, name), type(did)), name
        assert name == "NEVER" or callable(getattr(did, name)), name


# -- what cannot be right -----------------------------------------------------------------------------------------


SETTINGS = [
    ('estimator = "imputation"\nerrors = "conley_taber"', "did.errors_unfit"),
    ('estimator = "two_way"\nerrors = "ferman_pinto"', "did.errors_unfit"),
    ('errors = "multiplier"\ndraws = 199', "did.multiplier_setting"),
    ('estimator = "extended"\nplacebo = { margin = 0.5 }', "did.placebo_by_construction"),
    ('estimator = "synthetic"\nplacebo = { margin = 0.5 }', "did.placebo_by_construction"),
    ('errors = "jackknife"', "did.errors_unfit"),
    ('estimator = "synthetic"\nerrors = "wild"', "did.errors_unfit"),
    ('estimator = "synthetic"\nerrors = "influence"', "did.errors_unfit"),
    ('estimator = "triple"', "did.triple_needs_eligible"),
    ('estimator = "hazards"', "did.hazards_register"),
    ('base = "varying"\nhonest = { relative = [1.0] }', "did.honest_needs_universal_base"),
    ("inflow = 6", "did.inflow_register"),
    ('estimator = "best"', "study.not_allowed"),
    ("draws = 5", "study.out_of_range.at_least"),
    ("before = 0", "study.out_of_range.at_least"),
    ("placebo = {}", "study.missing_key"),
    ("placebo = { margin = 0.0 }", "study.out_of_range.above"),
]


@pytest.mark.parametrize(("settings", "code"), SETTINGS)
def test_settings_that_do_not_go_together(settings, code, tmp_path):
    with pytest.raises(StudyError) as caught:
        document(panel_study(tmp_path, settings))
    assert code in [fault.code for fault in caught.value.faults]
    assert all(fault.place.startswith("study.toml") for fault in caught.value.faults)


def spoilt(name: str) -> dict[str, object]:
    """A frame with one fault, and the keys of its study."""
    frame = ready_panel().frame.copy()
    treated = frame["first"] > 0
    if name == "twice":
        return {"frame": pd.concat([frame, frame.iloc[:2]])}
    if name == "all at once":
        return {"frame": frame.assign(first=2014)}
    if name == "nobody":
        return {"frame": frame.assign(first=0)}
    if name == "from the first year":
        return {"frame": frame.assign(first=np.where(treated, 2010, 0))}
    if name == "two first years":
        frame.loc[(frame.place == "m00") & (frame.year == 2012), "first"] = 2012
        return {"frame": frame}
    if name == "switches off":
        on = treated & (frame.year >= frame["first"]) & ~((frame.place == "m00") & (frame.year == 2018))
        return {"frame": frame.drop(columns="first").assign(on=on.astype(int))}
    if name == "no never treated":
        return {"frame": frame[treated], "settings": QUICK + 'control = "never"\n'}
    if name == "too long":
        return {"time": 'horizon = 9\nfollow_up = "complete"'}
    if name == "anticipation":
        return {"settings": QUICK + "anticipation = 8\n"}
    if name == "eligible":
        return {"settings": QUICK + 'estimator = "triple"\neligible = "x"\n', "more": X}
    raise AssertionError(name)


SPOILT = {
    "twice": "did.duplicate_rows", "all at once": "did.no_comparison", "nobody": "did.no_treated",
    "from the first year": "did.no_period_before", "two first years": "did.first_changes",
    "switches off": "did.treatment_stops", "no never treated": "did.group_time_no_never",
    "too long": "did.horizon_too_long", "anticipation": "did.group_time_no_before", "eligible": "did.triple_column",
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_data_that_cannot_be_right(name, tmp_path):
    study = panel_study(tmp_path, **({"settings": QUICK} | spoilt(name)))
    if name == "switches off":
        study.write_text(study.read_text("utf-8").replace('first_treated = "first"', 'treated = "on"'), "utf-8")
    with pytest.raises(EvalkitError) as caught:
        document(study)
    assert [fault.code for fault in caught.value.faults] == [SPOILT[name]]
    for lang in ("nl", "en"):
        assert "{" not in caught.value.faults[0].text(lang)


def test_reservations_about_the_data_are_shown(tmp_path):
    frame = ready_panel().frame.copy()
    frame.loc[frame.place == "m00", "first"] = 2010
    found = document(panel_study(tmp_path, QUICK, frame=frame))
    assert "panel_always_treated" in codes(found)
    assert set(months(found).n_treated[1:]) == {29 * PERSONS}
    none = document(panel_study(tmp_path, QUICK, frame=ready_panel().frame[lambda f: f["first"] > 0],
                                time='horizon = 2\nfollow_up = "available"'))  # fmt: skip
    assert {"panel_no_never_treated", "did_cells_missing"} <= set(codes(none))


# -- the register -------------------------------------------------------------------------------------------------

BOTH = example.OUTCOMES["in_work"] + example.OUTCOMES["exit_rate"].replace("primary = true\n", "")


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """24 teams, followed for two years at least."""
    more = '[[subgroup]]\nname = "sex"\n'
    return example.Loaded.of(tmp_path_factory.mktemp("town"), outcomes=BOTH, horizon=24, more=more)


@pytest.fixture(scope="module")
def by_month(town):
    return town.document(QUICK)


@pytest.fixture(scope="module")
def by_quarter(town):
    return town.document(QUICK + 'period = "quarter"\n')


def test_share_in_work_by_month(town, by_month):
    data = town.sample.panel("in_work")
    table = same(by_month, did.Choice(before=3, after=23, complete=True)(data.panel), outcome="in_work")
    assert table.estimate[0] == 0
    assert set(table.n_treated) == {1500}
    since = table[table.index >= 1]
    assert (np.abs(since.estimate.to_numpy() - example.work_effect(24)) < 4 * since.std_error.to_numpy()).all()
    one = next(p for p in by_month["profiles"] if p["labels"]["outcome"] == "in_work" and not p["labels"]["subgroup"])
    assert one["composition"] == "fixed" and "period_months" not in one["labels"]
    assert one["se_kind"] == "influence function, clustered on team"
    assert "did_few_clusters" in codes(by_month)


def test_monthly_shares_have_summaries_and_exit_rates_none(by_month):
    whole = {p["labels"]["outcome"]: p for p in by_month["profiles"] if not p["labels"]["subgroup"]}
    summary = {row["measure"]: row for row in whole["in_work"]["summary"]}
    for months_ in (12, 24):
        total = summary[f"cumulated_{months_}"]
        assert total["status"] == "reached"
        assert abs(total["estimate"] - example.work_effect(months_).sum()) < 4 * total["std_error"]
    assert {"lock_in_depth", "lock_in_months", "break_even_month"} <= set(summary)
    assert summary["break_even_month"]["status"] != "not_defined"
    assert whole["exit_rate"]["composition"] == "varying" and whole["exit_rate"]["estimand"]["kind"] == "flow"
    assert {row["status"] for row in whole["exit_rate"]["summary"]} == {"not_defined"}
    assert not any(row["measure"].startswith("cumulated") for row in whole["exit_rate"]["summary"])


def test_exit_rates_by_quarter(town, by_quarter):
    """Counted in periods, with other people at risk each time; the monthly rate rises by what it was given."""
    data = town.sample.panel("exit_rate", period="quarter")
    table = same(by_quarter, did.Choice(before=3, after=7, complete=True)(data.panel), outcome="exit_rate")
    one = next(p for p in by_quarter["profiles"] if p["labels"]["outcome"] == "exit_rate")
    assert one["labels"]["period_months"] == "3" and table.index.tolist() == list(range(-2, 9))
    since = table[table.index >= 1]
    assert (np.abs(since.estimate - example.GAIN) < 4 * since.std_error).all()
    assert (since.n_treated < 1500).all()  # those at risk
    shares = next(p for p in by_quarter["profiles"] if p["labels"]["outcome"] == "in_work")
    assert {row["status"] for row in shares["summary"]} == {"not_defined"}  # measures are in months


def test_persons_of_teams_that_adopt(town):
    """Followed one by one: the effect and errors of their teams' shares, since errors are by team."""
    found = town.document(QUICK + 'unit = "person"\nperiod = "year"\n')
    choice = did.Choice(before=3, after=1, complete=True)
    table = same(found, choice(town.sample.panel("in_work", unit="person", period="year").panel), outcome="in_work")
    team = choice(town.sample.panel("in_work", period="year").panel)
    assert table.estimate.to_numpy() == pytest.approx(team.estimate, **CLOSE)
    assert table.std_error.to_numpy() == pytest.approx(team.std_error, rel=1e-6, abs=1e-10)
    one = next(p for p in found["profiles"] if not p["labels"]["subgroup"])
    assert one["se_kind"] == "influence function, clustered on team"
    assert one["labels"]["unit_of_panel"] == "person"
    # an exit happens once: a person has no rate of it
    assert {p["labels"]["outcome"] for p in found["profiles"]} == {"in_work"}
    (note,) = [e for e in found["exhibits"] if e.get("key") == "did_exit_of_person"]
    assert list(note["params"]["outcomes"]) == ["exit_rate"]


def test_those_who_enter(town):
    """Left for work within six months of entry; from the first whole year on everyone has had the approach."""
    found = town.document(QUICK + 'inflow = 6\nperiod = "year"\n')
    data = town.sample.cross_sections("exit_rate", months=6, group="team", period="year")
    table = same(found, did.Choice(before=3, after=1, complete=True)(data.panel), outcome="exit_rate")
    one = next(p for p in found["profiles"] if p["labels"]["outcome"] == "exit_rate" and not p["labels"]["subgroup"])
    assert one["composition"] == "varying" and one["labels"]["inflow_months"] == "6"
    assert one["estimand"]["population"] == "exposed" and one["estimand"]["kind"] == "event"
    assert "did_composition_varying" not in codes(found)
    second = table.loc[2]
    # nobody leaves in the month of entry itself: five months of chances
    assert abs(second.estimate - np.mean(_five_months())) < 4 * second.std_error


def _five_months() -> list[float]:
    gains = []
    for team in range(12):
        rate, leave = example.to_work(team), example.OTHER
        found = [up * (1 - (1 - up - leave) ** 5) / (up + leave) for up in (rate + example.GAIN, rate)]
        gains.append(found[0] - found[1])
    return gains


def test_subgroups_have_a_panel_of_their_own(town, by_quarter):
    people = next(f for f in town.sample.people.groups + town.sample.people.factors if f.name == "sex")
    choice = did.Choice(before=3, after=7, complete=True)
    tables = {}
    for number, level in enumerate(people.levels):
        data = town.sample.panel("in_work", period="quarter", among=people.codes == number)
        own = {"outcome": "in_work", "subgroup": f"sex={level}", "variant": ""}
        tables[level] = same(by_quarter, choice(data.panel), **own)
    contrast = months(by_quarter, outcome="in_work", subgroup="sex=woman - sex=man", variant="contrast")
    gap = tables["woman"].estimate - tables["man"].estimate
    assert contrast.estimate.to_numpy() == pytest.approx(gap.to_numpy(), **CLOSE)
    since = contrast[contrast.index >= 1]
    assert (np.abs(since.estimate) < 4 * since.std_error).all()  # the effect is the same for both


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"horizon": 60}, "did.horizon_too_long"),
        ({"treatment": 'unit = "team"\nadopted = { t00 = 2012-01-01, t01 = 2013-01-01 }'}, "did.no_period_before"),
        ({"settings": 'unit = "sex"\n'}, "did.unit_mixed"),
        ({"outcomes": "exit_rate", "settings": 'unit = "person"\n'}, "did.exit_of_person"),
    ],
)
def test_a_register_that_cannot_give_an_answer(keys, code, tmp_path):
    keys = {"settings": QUICK} | keys
    with pytest.raises((DesignError, DataError, StudyError)) as caught:
        document(register_study(tmp_path, keys.pop("settings") + 'period = "month"\n', **keys))
    assert [fault.code for fault in caught.value.faults] == [code]


# -- what leaves the house -----------------------------------------------------------------------------------------


def words(page: str) -> str:
    """What a reader sees, without the settings as the study file has them."""
    page = re.sub(r"<(script|style|pre)[^>]*>.*?</\1>", "", page, flags=re.S)
    page = html.unescape(re.sub(r"<[^>]+>", " ", page))
    page = re.sub(r"\b(time|treatment|covariates|gate|analysis)\.[a-z_.]+\s+[^ ]+", "", page)
    return re.sub(r"\s+", " ", page)


RAW = re.compile(
    r"\bNone\b|\bnan\b|\binf\b|\b(?:did|report|finding|column|note|exhibit|advice|flow)\.[a-z]\w+|\{[a-z]+|"
    r"\b(?:group_time|sun_abraham|two_way|not_yet|no_adoption|wild score|randomisation estimate|conditional_\w+)\b"
)
"""Keys, codes and placeholders that no reader should meet."""

PAGES = {
    "group_time": {"settings": "before = 3\nplacebo_dates = 1\nplacebo = { margin = 0.6 }\n", "more": X},
    "available": {"settings": QUICK, "time": 'horizon = 6\nfollow_up = "available"'},
    "sun_abraham": {"settings": QUICK + 'estimator = "sun_abraham"\n'},
    "imputation": {"settings": 'before = 2\nleave_out = false\nestimator = "imputation"\n'},
    "extended": {"settings": QUICK + 'estimator = "extended"\nfamily = "logit"\n', "outcome": SHARE},
    "stacked": {"settings": QUICK + 'estimator = "stacked"\n'},
    "two_way": {"settings": QUICK + 'estimator = "two_way"\nerrors = "wild"\ndraws = 199\n'},
    "randomisation": {"settings": QUICK + 'errors = "randomisation"\ndraws = 199\n', "frame": few_treated},
    "withheld": {"settings": QUICK + "placebo = { margin = 0.01 }\n"},
    "few": {"settings": QUICK, "frame": few_treated},
    "synthetic": {"settings": QUICK + 'estimator = "synthetic"\ndraws = 99\n', "frame": few_treated},
    "rings": {"settings": QUICK + 'rings = "ring"\n', "more": '[covariates]\nnumeric = ["ring"]\n'},
}


FAST = ("group_time", "two_way", "extended", "withheld")
"""The others take a second each."""


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in PAGES]
)
def test_reports_in_words(name, tmp_path):
    keys = {key: value() if callable(value) else value for key, value in PAGES[name].items()}
    found = document(panel_study(tmp_path, **keys))
    for lang in ("nl", "en"):
        page = words(render(found, lang))
        assert not RAW.findall(page), [page[max(0, m.start() - 60) : m.end() + 30] for m in RAW.finditer(page)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", ['period = "year"\n', 'period = "quarter"\nleave_out = true\n', 'period = "year"\ninflow = 6\n']
)
def test_reports_of_a_register_in_words(settings, town):
    quick = QUICK.replace("leave_out = false\n", "") if "leave_out" in settings else QUICK
    found = town.document(quick + settings, disclosure='profile = "municipal"')
    for lang in ("nl", "en"):
        page = words(render(found, lang))
        assert not RAW.findall(page), [page[max(0, m.start() - 60) : m.end() + 30] for m in RAW.finditer(page)]


def small_teams() -> dict[str, pd.DataFrame]:
    """Two teams of four that adopt, and twelve large ones that never do; names hold a mark."""
    tables = example.town()
    people = tables["persons"]
    parts = [part.head(4) if int(name[1:]) < 12 else part for name, part in people.groupby("team")
             if int(name[1:]) < 2 or int(name[1:]) >= 12]  # fmt: skip
    people = pd.concat(parts).assign(person=lambda f: "zzmarker7-" + f.person)
    kept = {"persons": people}
    for name in ("benefits", "episodes", "jobs"):
        frame = tables[name].assign(person=lambda f: "zzmarker7-" + f.person)
        kept[name] = frame[frame.person.isin(people.person)]
    return kept


@pytest.mark.parametrize("outcome", ["in_work", pytest.param("exit_rate", marks=pytest.mark.slow)])
def test_nothing_about_a_handful_of_people(outcome, tmp_path):
    settings = 'before = 3\nperiod = "quarter"\nplacebo = { margin = 0.5 }\nplacebo_dates = 1\n'
    made = example.outcome_of(register_study(tmp_path, settings, tables=small_teams(), outcomes=outcome))
    found = dict(made.results.document)
    table = months(found)
    assert set(table.status) == {"suppressed"} and table.estimate.isna().all() and table.ci_low.isna().all()
    for name in ("did_totals", "did_honest", "did_leave_out", "did_placebo_dates", "did_power", "did_groups"):
        for row in next((e["rows"] for e in found["exhibits"] if e.get("id") == name), []):
            assert all(row.get(key) is None for key in ("estimate", "std_error", "ci_low", "ci_high", "slope", "bias"))
    for finding in found["findings"]:
        if finding["code"] in ("did_breakdown", "did_leave_out", "did_placebo_dates", "placebo"):
            assert all(not isinstance(v, float) for k, v in finding["params"].items() if k != "margin"), finding
    cohorts = {row["first"]: row["persons"] for row in exhibit(found, "did_cohorts")["rows"]}
    assert {value for name, value in cohorts.items() if name != "column.never_treated"} == {None}
    made.results.write(tmp_path / "results")
    pages = [path.read_text("utf-8") for path in (tmp_path / "results").iterdir()]
    pages += [render(found, lang) for lang in ("nl", "en")]
    assert not any("zzmarker7" in page.lower() for page in pages)
    assert not any(re.search(r"\bt00\b|\bt12\b", words(page)) for page in pages[-2:])  # teams are not named


def test_a_small_cohort_is_not_told_by_the_others(tmp_path):
    frame = ready_panel().frame.assign(persons=lambda f: np.where(f["first"] == 2016, 2, 40))
    frame = frame[(frame["first"] != 2016) | frame.place.isin(["m01", "m05", "m09", "m13"])]
    found = document(
        panel_study(
            tmp_path,
            "before = 5\nleave_out = false\nhonest = { relative = [] }\n",
            frame=frame,
            time='horizon = 3\nfollow_up = "available"',
        )
    )
    rows = exhibit(found, "did_cohorts")["rows"]
    assert [row["persons"] is None for row in rows] == [False, True, False]
    groups = exhibit(found, "did_groups")["rows"]
    assert [row["estimate"] for row in groups] == [None, None]  # a total less the one gives the other
    table = months(found)
    assert set(table.status[table.index == -4]) == {"suppressed"}  # only the small cohort is seen so early


@pytest.mark.parametrize("name", ["stacked", "synthetic"])
def test_an_estimator_without_anticipation_refuses_it(tmp_path, name):
    """Accepted in silence, the periods set aside would count as untreated."""
    study = panel_study(tmp_path, f'estimator = "{name}"\nanticipation = 1')
    with pytest.raises(StudyError) as caught:
        document(study)
    assert [fault.code for fault in caught.value.faults] == ["did.no_anticipation"]


def test_triple_differences_take_anticipation_and_can_do_without_covariates():
    """What the study file asks reaches the estimator: base period one earlier, covariates left out."""
    rng = np.random.default_rng(3)
    units, periods = 120, 6
    unit, period = np.repeat(np.arange(units), periods), np.tile(np.arange(1, periods + 1), units)
    eligible, x = (np.arange(units) % 2).astype(float), rng.normal(size=units)
    first = np.where(np.arange(units) % 4 < 2, 4, 0)
    y = rng.normal(size=len(unit)) + 0.3 * x[unit] * period * eligible[unit]
    panel = did.Panel.of(unit, period, y, first[unit], x=np.column_stack([eligible, x])[unit], names=("eligible", "x"))
    ahead = did.Choice("triple", eligible="eligible", anticipation=1)(panel)
    assert ahead.base == (-2,)
    told, rest = did.Choice("triple", eligible="eligible").told(panel)
    direct = did.triple(rest, told, method="dr", anticipation=1).aggregate("event")
    assert np.allclose(ahead.estimate, direct.estimate, rtol=0, atol=1e-12)
    bare = did.Choice("triple", eligible="eligible", covariates=False)(panel)
    plain = did.triple(replace(rest, x=np.empty((len(rest), 0)), names=()), told, method="reg").aggregate("event")
    assert np.allclose(bare.estimate, plain.estimate, rtol=0, atol=1e-12)
    assert np.abs(bare.estimate - did.Choice("triple", eligible="eligible")(panel).estimate).max() > 1e-3
