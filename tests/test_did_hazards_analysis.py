"""Difference-in-differences in exit rates from study file to results: the line reports what the library says."""

from __future__ import annotations

import re
from pathlib import Path

import did_example as example
import numpy as np
import pytest
from did_example import ADOPTED, OUTCOMES, codes, document, months, register_study
from test_did_analysis import CLOSE, OPEN, RAW, exhibit, words

from evalkit.analyses import all_settings
from evalkit.analyses.did import Settings
from evalkit.analyses.did_hazards import run_hazards
from evalkit.did.hazards import hazard_did, spells_at_risk
from evalkit.errors import DesignError, StudyError
from evalkit.report import render
from evalkit.run import load
from evalkit.sample import group_spells
from evalkit.study import read

HAZARDS = 'estimator = "hazards"\nbefore = 4\n'
STOCK = 'hazard = { population = "stock" }\n'
HORIZON = 8


def sample_of(study: Path):
    return load(read(study, all_settings()))[1]


def at_risk_of(sample, cluster="auto", among=None):
    spells = group_spells(sample, among=among)
    return spells, spells_at_risk(
        spells.entry_month, spells.entry_offset, spells.stop, spells.event, spells.cause, spells.group, spells.adopted,
        spells.window, person=spells.person, cluster=cluster,
    )  # fmt: skip


def same(found, effects, **labels):
    table = months(found, **labels)
    assert table.index.tolist() == (effects.at + 1).tolist()
    for name, values in (("estimate", effects.estimate), ("counterfactual", effects.counterfactual),
                         ("std_error", effects.std_error), ("n_treated", effects.n_treated),
                         ("n_comparison", effects.n_comparison)):  # fmt: skip
        assert table[name].to_numpy(float) == pytest.approx(np.asarray(values, float), **CLOSE), name
    return table


ADDED = OUTCOMES["in_work"].replace("primary = true\n", "")
ADDED += '[[outcome]]\nname = "left"\nkind = "event"\nsource = "exit:any"\n'


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The town of 24 teams, read once."""
    return example.Loaded.of(
        tmp_path_factory.mktemp("town"), outcomes=OUTCOMES["exit_rate"], horizon=HORIZON,
    )  # fmt: skip


@pytest.fixture(scope="module")
def town(loaded):
    """The study of exits to work by those on benefit at adoption: the sample and the results."""
    return loaded.sample, loaded.document(HAZARDS + STOCK + "placebo = { margin = 0.1 }\n")


def variant(town, **settings):
    """The analysis of the same sample with other settings."""
    return run_hazards(town[0], Settings(estimator="hazards", **({"before": 4} | settings)), "main")


def test_profile_is_the_library_and_finds_the_truth(town):
    sample, found = town
    spells, at_risk = at_risk_of(sample)
    assert spells.cut == 1  # adoption on the first of a month: what began in the month before is partly after it
    direct = hazard_did(at_risk, horizon=HORIZON, destination="work", population="stock", anticipation=1, placebo=4)
    table = same(found, direct.effects["work"])
    truth = example.exit_effect(HORIZON)
    assert (np.abs(table.estimate - truth) < 4 * table.std_error).all()
    assert truth[-1] > 6 * table.std_error.iloc[-1]
    (one,) = found["profiles"]
    estimand = one["estimand"]
    assert (estimand["population"], estimand["versus"], estimand["clock"]) == ("exposed", "no_adoption", "adoption")
    assert (estimand["kind"], estimand["identification"]) == ("event", "parallel_hazards")
    assert one["composition"] == "fixed" and "clustered on person" in one["se_kind"]
    summary = {row["measure"]: row for row in one["summary"]}
    assert summary["lock_in_depth"]["status"] != "not_defined"


def test_few_groups_placebo_and_leads_are_told(town):
    found = town[1]
    said = {finding["code"]: finding for finding in found["findings"]}
    assert said["did_hazards_few_groups"]["verdict"] == "warn"
    assert said["placebo"]["verdict"] == "pass" and said["did_hazards_leads"]["verdict"] == "pass"
    _, at_risk = at_risk_of(town[0])
    direct = hazard_did(at_risk, horizon=HORIZON, destination="work", population="stock", anticipation=1, placebo=4)
    placebo = direct.placebo["work"]
    assert said["placebo"]["value"] == pytest.approx(placebo.estimate[-1], **CLOSE)
    chart = exhibit(found, "placebo_exit_rate")
    assert chart["series"][0]["y"] == pytest.approx(placebo.estimate.tolist(), **CLOSE)
    rows = {row["what"]: row for row in exhibit(found, "did_exposed")["rows"]}
    assert (rows["column.adopting"]["groups"], rows["column.never_treated"]["groups"]) == (12, 12)


VARIANTS = {
    "identity": {"hazard": {"link": "identity", "duration": "bands", "population": "stock"}},
    "bands": {"hazard": {"duration": "bands", "population": "stock"}},
    "own durations": {"hazard": {"duration": "bands", "group_durations": True, "population": "stock"}},
    "anticipation": {"anticipation": 2, "hazard": {"population": "stock"}},
    "inflow": {"hazard": {"population": "inflow"}},
    "everyone": {},
}


@pytest.mark.parametrize(
    "name",
    [name if name in ("identity", "inflow") else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS],
)
def test_settings_reach_the_estimator(name, town):
    settings = VARIANTS[name]
    analysis = variant(town, **settings)
    chosen = settings.get("hazard", {})
    _, at_risk = at_risk_of(town[0])
    direct = hazard_did(
        at_risk, horizon=HORIZON, destination="work", anticipation=1 + settings.get("anticipation", 0), placebo=4,
        **chosen,
    ).effects["work"]  # fmt: skip
    (profile,) = analysis.profiles
    assert profile.estimate == pytest.approx(direct.estimate, **CLOSE)
    assert profile.std_error == pytest.approx(direct.std_error, **CLOSE)
    if chosen.get("population") == "stock":
        truth = example.exit_effect(HORIZON)
        assert (np.abs(profile.estimate - truth) < 4 * profile.std_error).all()
    if name == "inflow":  # nobody leaves in the month of entry
        assert abs(profile.estimate[0]) < 4 * max(profile.std_error[0], 1e-9)
        assert (np.abs(profile.estimate[1:] - example.exit_effect(HORIZON)[:-1]) < 4 * profile.std_error[1:]).all()


def test_equal_differences_outside_chances_are_refused(town):
    with pytest.raises(DesignError) as caught:
        variant(town, hazard={"link": "identity", "population": "stock"})  # an effect for every single elapsed month
    assert [fault.code for fault in caught.value.faults] == ["did.hazards_outside"]


def test_a_placebo_that_fails_withholds_the_effect(loaded):
    made = loaded.outcome(HAZARDS + STOCK + "placebo = { margin = 0.0001 }\n")
    found = dict(made.results.document)
    assert not made.primary_shown and found["gates"][0]["verdict"] == "fail"
    table = months(found)
    assert set(table.status) == {"withheld"} and table.estimate.isna().all()
    assert exhibit(found, "placebo_exit_rate")["series"][0]["y"]


def test_check_hides_the_effect(loaded):
    blind = loaded.document(HAZARDS, blind=True)
    assert months(blind).estimate.isna().all() and "did_hazards_leads" in codes(blind)


@pytest.mark.slow
def test_districts_as_clusters_subgroups_and_other_outcomes(tmp_path):
    """Errors by what the study names above teams; a level's own people; a share has no exit rate and is named."""
    study = register_study(
        tmp_path, HAZARDS + STOCK, horizon=HORIZON, disclosure=OPEN, treatment=ADOPTED + '\ncluster = "district"',
        outcomes=OUTCOMES["exit_rate"] + ADDED, more='[[subgroup]]\nname = "sex"\n',
    )  # fmt: skip
    found = document(study)
    sample = sample_of(study)
    district = example.town()["persons"].set_index("person").district

    def by_district(among=None):
        own = district.loc[sample.people.ids[group_spells(sample, among=among).person]].to_numpy()
        return at_risk_of(sample, own, among)[1]

    keys = dict(horizon=HORIZON, population="stock", anticipation=1, placebo=4)
    everyone = by_district()
    same(found, hazard_did(everyone, destination="work", **keys).effects["work"], outcome="exit_rate")
    same(found, hazard_did(everyone.together(), **keys).effects["any"], outcome="left")
    profile = next(p for p in found["profiles"] if p["labels"]["outcome"] == "left" and not p["labels"]["subgroup"])
    assert profile["se_kind"] == "influence function, clustered on district"
    people = {f.name: f for f in sample.people.groups + sample.people.factors}["sex"]
    effects = hazard_did(by_district(people.codes == 0), destination="work", **keys).effects["work"]
    same(found, effects, outcome="exit_rate", subgroup=f"sex={people.levels[0]}", variant="")
    assert months(found, outcome="exit_rate", subgroup=f"sex={people.levels[1]}", variant="").estimate.notna().all()
    (note,) = [e for e in found["exhibits"] if e.get("key") == "did_hazards_exits_only"]
    assert list(note["params"]["outcomes"]) == ["in_work"]
    assert "did_hazards_few_groups" not in codes(found) and "did_few_clusters" in codes(found)


@pytest.mark.slow
def test_teams_as_clusters(tmp_path):
    study = register_study(
        tmp_path, HAZARDS + STOCK, outcomes="exit_rate", horizon=HORIZON, disclosure=OPEN,
        treatment=ADOPTED + '\ncluster = "team"',
    )  # fmt: skip
    found = document(study)
    assert found["profiles"][0]["se_kind"] == "influence function, clustered on team"
    _, at_risk = at_risk_of(sample_of(study), "group")
    direct = hazard_did(at_risk, horizon=HORIZON, destination="work", population="stock", anticipation=1, placebo=4)
    same(found, direct.effects["work"])


@pytest.mark.slow
def test_follow_up_as_long_as_there_is(tmp_path):
    """24 months: those exposed later are left out, or take part as long as they are seen."""
    tables = {}
    for follow_up in ("complete", "available"):
        study = register_study(
            tmp_path / follow_up, HAZARDS, outcomes="exit_rate", horizon=24, follow_up=follow_up, disclosure=OPEN
        )
        found = document(study)
        (profile,) = found["profiles"]
        tables[follow_up] = months(found)
        assert profile["composition"] == ("fixed" if follow_up == "complete" else "varying")
        assert profile["estimand"]["restriction"] == ("follow_up" if follow_up == "complete" else "")
    whole, some = tables.values()
    assert whole.n_treated.nunique() == 1
    assert some.n_treated.is_monotonic_decreasing and some.n_treated.iloc[0] > whole.n_treated.iloc[0]
    assert some.n_treated.iloc[-1] == whole.n_treated.iloc[-1]


FAULTS = [
    ({"outcomes": "in_work"}, "did.hazards_no_exit"),
    ({"settings": 'estimator = "hazards"\nerrors = "wild"\n'}, "did.errors_unfit"),
    ({"treatment": ""}, "did.hazards_needs_groups"),
]


@pytest.mark.parametrize(("keys", "code"), FAULTS)
def test_settings_that_hazards_cannot_have(keys, code, tmp_path):
    keys = {"settings": HAZARDS, "outcomes": "exit_rate"} | keys
    if "treatment" in keys:
        keys["treatment"] = ""
    study = register_study(tmp_path, keys.pop("settings"), **keys)
    study.write_text(study.read_text("utf-8").replace('"approach"', '"training"'), "utf-8")
    with pytest.raises(StudyError) as caught:
        document(study)
    assert [fault.code for fault in caught.value.faults] == [code]


def test_a_horizon_that_nobody_reaches(tmp_path):
    study = register_study(tmp_path, HAZARDS, outcomes="exit_rate", horizon=60)
    with pytest.raises(DesignError) as caught:
        document(study)
    assert [fault.code for fault in caught.value.faults] == ["did.hazards_horizon"]


@pytest.mark.slow
def test_report_in_words(tmp_path):
    settings = HAZARDS + "placebo = { margin = 0.1 }\n"
    found = document(register_study(tmp_path, settings, outcomes="exit_rate", horizon=HORIZON))
    for lang in ("nl", "en"):
        page = words(render(found, lang))
        assert not RAW.findall(page), [page[max(0, m.start() - 60) : m.end() + 30] for m in RAW.finditer(page)]


@pytest.mark.slow
def test_nothing_about_a_handful_of_people(tmp_path):
    from test_did_analysis import small_teams

    settings = HAZARDS + 'hazard = { duration = "bands" }\n'
    made = example.outcome_of(register_study(tmp_path, settings, tables=small_teams(), outcomes="exit_rate", horizon=6))
    found = dict(made.results.document)
    assert set(months(found).status) == {"suppressed"} and months(found).estimate.isna().all()
    chart = next((e for e in found["exhibits"] if e.get("id") == "placebo_exit_rate"), None)
    assert chart is None or all(v is None for v in chart["series"][0]["y"])
    assert exhibit(found, "did_exposed")["rows"][0]["persons"] is None
    made.results.write(tmp_path / "results")
    pages = [path.read_text("utf-8") for path in (tmp_path / "results").iterdir()]
    assert not any(re.search("zzmarker7", page, re.I) for page in pages)
