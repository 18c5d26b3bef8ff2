"""The study file of a panel: what it gives, what is refused on which line; and the ready file that it names."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_did_frame import staggered
from test_study_faults import GOOD, edit, faults

from evalkit import register, study
from evalkit.did.panel import NEVER
from evalkit.errors import DataError, DesignError
from evalkit.run import load
from evalkit.sample import judge_sample

PANEL = """\
seed = 1
languages = ["en"]
title = { en = "Did it work?" }
[panel]
file = "panel.csv"
unit = "u"
period = "t"
first_treated = "g"
outcomes = { crime = "y", other = "x" }
cluster = "c"
period_months = 12
format = { delimiter = ";", decimal = ".", date = "%Y-%m-%d" }
[treatment]
instrument = "law"
[[outcome]]
name = "crime"
kind = "state"
primary = true
[covariates]
numeric = ["x"]
[[analysis]]
id = "main"
method = "did"
"""

REGISTER = GOOD.replace('method = "matching"', 'method = "did"')
for _line in ("propensity =", "exact =", "ratio =", "caliper =", "replace =", "versus ="):
    REGISTER, _ = edit(REGISTER, _line, "#")
REGISTER = REGISTER.split("[eligibility]")[0] + "[treatment]" + REGISTER.split("[treatment]")[1]
REGISTER = REGISTER.replace('columns.sex = "geslacht"', 'columns.sex = "geslacht"\ncolumns.team = "team"')
ADOPTED = REGISTER.replace(
    "[treatment]", '[treatment]\nunit = "team"\nadopted = { North = 2019-04-01, South = 2020-01-01 }'
)


def test_a_panel_study_says_only_what_it_must():
    made = study.parse(PANEL)
    assert made.panel is not None and made.on_panels and not made.treatment.adopts
    assert made.treatment.versus == "no_adoption" and made.time.follow_up == "available"
    assert made.folder == Path(".")
    assert study.parse(PANEL + "[time]\nhorizon = 3\n").time.horizon == 3


def test_a_register_study_on_panels():
    made = study.parse(ADOPTED.replace("[treatment]\n", "[treatment]\n", 1))
    assert made.on_panels and made.treatment.adopts and made.treatment.versus == "no_adoption"
    assert made.treatment.adopted == {"North": dt.date(2019, 4, 1), "South": dt.date(2020, 1, 1)}
    assert study.parse(ADOPTED.replace('instrument = "training"', 'instrument = "new_method"')).treatment.adopts
    assert study.parse(REGISTER).treatment.unit == "person"
    both = GOOD + '\n[[analysis]]\nid = "panel"\nmethod = "did"\n'
    assert not study.parse(both).on_panels and study.parse(both).treatment.versus == "wait"


ROAD = "study.panel_and_other"
NOT = "study.not_with_panel"
ROLE = "study.panel_column_role"
PANEL_FAULTS = [
    ("[treatment]", '[data]\nfolder = "."\n[treatment]', ROAD, "[panel]"),
    ("[treatment]", "[eligibility] #^\nage = [18, 64]\n[treatment]", NOT, 0),
    ("[treatment]", "[spells] #^\n[treatment]", NOT, 0),
    ("[treatment]", '[time]\nhorizon = 3\nclock = "start" #^\n[treatment]', NOT, 0),
    ("[treatment]", '[[instrument]] #^\nname = "law"\n[treatment]', NOT, 0),
    ("instrument =", 'instrument = "law"\ncluster = "c" #^', NOT, 0),
    ("instrument =", 'instrument = "law"\nunit = "u" #^', NOT, 0),
    ("instrument =", 'instrument = "law"\nadopted = { a = 2019-01-01 } #^', NOT, 0),
    ("instrument =", 'instrument = "law"\nadopted_from = { file = "a.csv", unit = "u", day = "d" } #^', NOT, 0),
    ("instrument =", 'instrument = "law"\nothers = ["b"] #^', NOT, 0),
    ("instrument =", 'instrument = "law"\nversus = "wait" #^', "study.versus_of_panels", 0),
    ("method =", 'method = "matching"', "study.method_with_panel", 0),
    ("first_treated =", "", "study.missing_key", "[panel]"),
    ("first_treated =", 'first_treated = "g"\ntreated = "d" #^', "study.panel_two_treatments", 0),
    ("first_treated =", 'repeated = true\ntreated = "d" #^', "study.panel_repeated", 0),
    ("first_treated =", 'first_treated = "t" #^', ROLE, 0),
    ("cluster =", 'cluster = "g" #^', ROLE, 0),
    ("cluster =", 'weight = "t" #^', ROLE, 0),
    ("outcomes =", 'outcomes = { crime = "u", other = "x" } #^', ROLE, 0),
    ("numeric =", 'numeric = ["t"] #^', ROLE, 0),
    ("name =", 'name = "crmie"', "study.not_allowed", 0),
    ("kind =", 'kind = "state"\nsource = "state:work" #^', "study.source_in_panel", 0),
    ("unit =", 'unti = "u"\nunit = "u"', "study.unknown_key", 0),
    ("period =", "", "study.missing_key", "[panel]"),
    ("file =", 'file = "../panel.csv"', "study.path_outside", 0),
    ("file =", 'file = "panel.csv"\ntable = "t"\ndatabase = "DB" #^', "study.file_and_database", 0),
    ("file =", 'table = "t"\ndatabase = "spark" #^', "study.spark_table", 0),
    ("period_months =", "period_months = 0", "study.out_of_range.at_least", 0),
    ("format =", 'format = { date = "%d" }', "study.bad_date_format", 0),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "line"), PANEL_FAULTS)
def test_one_fault_of_a_panel_study(old, new, code, line):
    text, at = edit(PANEL, old, new)
    if line:
        at = next(i for i, row in enumerate(text.splitlines(), 1) if row.startswith(line))
    found = faults(text)
    assert [(fault.code, fault.place) for fault in found if code != ROAD or fault.code == ROAD] == [
        (code, f"study.toml line {at}")
    ]


ADOPTION_FAULTS = [
    ("unit =", 'unit = "tema"', "study.not_allowed", 0),
    ("unit =", "", "study.adopted_persons", "adopted ="),
    ("adopted =", "adopted = {} #^", "study.empty", 0),
    ("adopted =", "adopted = { North = 2019-04-01, South = \"1-1-2020\" } #^", "study.wrong_type.date", 0),
    ("adopted =", 'adopted = { a = 2019-04-01 }\nadopted_from = { file = "a.csv", unit = "t", day = "d" } #^',
     "study.adopted_twice", 0),
    ("adopted =", 'adopted_from = { file = "a.csv", unit = "d", day = "d" } #^', ROLE, 0),
    ("adopted =", 'adopted_from = { file = "../a.csv", unit = "t", day = "d" } #^', "study.path_outside", 0),
    ("adopted =", 'adopted_from = { unit = "t", day = "d" } #^', "study.missing_key", 0),
    ("unit =", 'unit = "team"\nversus = "wait" #^', "study.versus_of_panels", 0),
    ("unit =", 'unit = "team"\nothers = ["coaching"] #^', "study.others_on_panels", 0),
    ("[treatment]", "[eligibility] #^\nage = [18, 64]\n[treatment]", "study.eligibility_on_panels", 0),
    ("source =", 'source = "durable:6"', "study.source_without_panel", 0),
    ("method =", 'method = "experiment" #^', "study.not_randomised", 0),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "line"), ADOPTION_FAULTS)
def test_one_fault_of_adoption(old, new, code, line):
    text, at = edit(ADOPTED, old, new)
    if line:
        at = next(i for i, row in enumerate(text.splitlines(), 1) if row.startswith(line))
    found = {fault.code: fault.place for fault in faults(text)}
    assert found[code] == f"study.toml line {at}"
    if code not in ("study.not_randomised",):
        assert len(found) == 1


def test_adoption_without_a_method_for_it():
    text = GOOD.replace("[treatment]", '[treatment]\nunit = "sex"\nadopted = { man = 2019-01-01 }')
    assert [fault.code for fault in faults(text)] == ["study.adoption_unused"] * 2
    text, _ = edit(GOOD, "versus =", 'versus = "no_adoption"')
    assert [fault.code for fault in faults(text)] == ["study.no_adoption_alone"]


def test_a_table_is_no_panel():
    from test_study_faults import TABLE

    text, line = edit(TABLE, "method =", 'method = "did"')
    assert [(f.code, f.place) for f in faults(text)] == [("study.method_needs_panel", f"study.toml line {line}")]


def test_what_looks_ahead_is_for_those_who_enter():
    text, _ = edit(ADOPTED, "source =", 'source = "durable:6"')
    assert study.parse(text.replace('method = "did"', 'method = "did"\ninflow = 6')).on_panels


# -- the file ----------------------------------------------------------------------------------------------------------


def written(folder: Path, frame: pd.DataFrame, text: str = PANEL) -> study.Study:
    frame.to_csv(folder / "panel.csv", sep=";", index=False)
    (folder / "study.toml").write_text(text)
    return study.read(folder)


def test_a_file_is_the_frame_it_holds(tmp_path):
    frame = staggered().assign(n=lambda f: 5 + f.u % 3)
    text = PANEL.replace('cluster = "c"', 'cluster = "c"\nweight = "w"\npersons = "n"')
    text = text.replace('numeric = ["x"]', 'numeric = ["x"]\ncategorical = ["s"]') + "[disclosure]\nminimum = 1\n"
    made = written(tmp_path, frame, text)
    table, sample = load(made)
    data = sample.panel("crime")
    panel = data.panel
    assert sample.source == "panel" and len(sample.entries) == 0 and sample.horizon == 7
    assert [i.name for i in table.inputs] == ["panel.csv"] and len(table.inputs[0].sha256) == 64
    order = panel.ids.astype(int)  # text sorts otherwise than numbers
    expected = frame.set_index(["u", "t"])
    rows = [(order[u], t) for u, t in zip(panel.unit, panel.period, strict=True)]
    assert np.array_equal(panel.outcome, expected.y.loc[rows])
    assert np.array_equal(panel.weight, expected.w.loc[rows])
    assert np.array_equal(panel.person_rows, expected.n.loc[rows])
    assert panel.names == ("x", "s:low", "s:none") and np.array_equal(panel.x[:, 0], expected.x.loc[rows])
    first = frame.groupby("u").g.first().loc[order].to_numpy()
    assert np.array_equal(panel.first, np.where(first > 0, first, NEVER))
    assert np.array_equal(data.persons, frame.groupby("u").n.first().loc[order])
    assert (data.labels, data.period_months, data.unit) == (tuple("12345678"), 12, "u")
    shuffled = load(written(tmp_path, frame.sample(frac=1, random_state=3), text))[1].panel("crime")
    for name in ("outcome", "unit", "time", "first", "x", "cluster"):
        assert np.array_equal(getattr(shuffled.panel, name), getattr(panel, name))
    assert sample.panel("crime", traits=True).trait_names == panel.names
    assert not judge_sample(sample)


def test_what_a_file_may_say_otherwise(tmp_path):
    """Dates for numbers, yes and no for first periods, units that are treated from the first period on."""
    frame = staggered()
    frame.loc[frame.u < 3, "d"] = 1
    frame["d"] = frame.d.map({0: "nee", 1: "ja"})
    frame["t"] = [f"{2010 + t}-01-01" for t in frame.t]
    text = PANEL.replace('first_treated = "g"', 'treated = "d"').replace("period_months = 12\n", "")
    data = load(written(tmp_path, frame, text))[1].panel("crime")
    assert data.labels == tuple(str(2010 + t) for t in range(1, 9)) and data.period_months == 12
    assert data.panel.units == 27
    out = {(step.arm, step.reason): (step.units, step.rows, step.persons) for step in data.flow if step.kind == "out"}
    assert out == {("treated", "treated_before_window"): (3, 24, 3)}
    assert [(lost.arm, lost.reason, lost.persons_left) for lost in data.lost] == [
        ("treated", "treated_before_window", 18)
    ]
    with pytest.raises(DesignError, match="did.inflow_register"):
        load(written(tmp_path, frame, text))[1].cross_sections("crime", months=6)


def test_the_flow_of_a_file_adds_up(tmp_path):
    rng = np.random.default_rng(8)
    frame = staggered(60)
    frame["y"] = frame.y.mask((rng.random(len(frame)) < 0.2) | (frame.u == 7) | (frame.u == 8))
    frame["x"] = frame.x.mask(rng.random(len(frame)) < 0.1)
    frame["u"] = frame.u.astype(float).mask(rng.random(len(frame)) < 0.02)
    text = PANEL.replace('numeric = ["x"]', 'numeric = ["x"]\nmissing = "exclude"').replace('cluster = "c"\n', "")
    table, sample = load(written(tmp_path, frame, text))
    data = sample.panel("crime")
    for arm in ("treated", "comparison"):
        steps = [step for step in data.flow if step.arm == arm]
        for what in ("units", "rows", "persons"):
            start, *out, left = (getattr(step, what) for step in steps)
            assert start - sum(out) == left and min(out) >= 0
    left = [step for step in data.flow if step.kind == "left"]
    assert sum(step.rows for step in left) == len(data.panel) and sum(step.units for step in left) == data.panel.units
    assert sum(step.rows for step in data.flow if step.kind == "start") == len(frame)
    reasons = {step.reason for step in data.flow if step.kind == "out"}
    assert reasons == {"missing_unit", "missing_outcome", "missing_covariate"}
    assert [step.units for step in data.flow if step.reason == "missing_outcome"] == [1, 1]
    kept = load(written(tmp_path, frame, text.replace('"exclude"', '"category"')))[1].panel("crime").panel
    assert kept.names == ("x", "x:missing") and len(kept) > len(data.panel)
    assert {check.code for check in table.findings} == {"value_missing"}


def test_cross_sections_in_a_file(tmp_path):
    frame = staggered().drop_duplicates()
    text = PANEL.replace('first_treated = "g"', 'first_treated = "g"\nrepeated = true')
    data = load(written(tmp_path, frame, text))[1].panel("crime")
    assert data.panel.repeated and data.panel.units == len(frame) and len(data.panel.cluster_ids) == 10


def test_subgroups_of_a_file(tmp_path):
    frame = staggered()
    text = PANEL + '[[subgroup]]\nname = "s"\n[disclosure]\nminimum = 1\n'
    sample = load(written(tmp_path, frame, text))[1]
    (group,) = sample.people.groups
    assert group.levels == ("high", "low", "none") and len(group.codes) == 30
    part = sample.panel("crime", among=group.codes == 1)
    assert part.panel.units == (group.codes == 1).sum() and part.flow[0].units < 30
    frame.loc[(frame.u == 4) & (frame.t > 5), "s"] = "other"
    with pytest.raises(DataError, match="did.subgroup_changes"):
        load(written(tmp_path, frame, text))


FILE_FAULTS = {
    "did.period_months": (lambda f: f, ("period_months = 12\n", "")),
    "did.period_months_differ": (lambda f: f.assign(t=2000 + f.t, g=2000 + f.g.where(f.g > 0)), ("= 12", "= 1")),
    "data.treatment_values": (lambda f: f.assign(d="perhaps"), ('first_treated = "g"', 'treated = "d"')),
    "data.not_numeric": (lambda f: f.assign(y="many"), ("", "")),
    "data.no_dates": (lambda f: f.assign(t="spring"), ("", "")),
    "data.missing_columns": (lambda f: f.rename(columns={"g": "start"}), ("", "")),
    "did.duplicate_rows": (lambda f: pd.concat([f, f.head(1)]), ("", "")),
    "did.cluster_changes": (lambda f: f.assign(c=f.c.where(f.t < 8, "z")), ("", "")),
    "did.no_comparison": (lambda f: f[f.g == 4], ("", "")),
    "shapes.unknown_outcome": (lambda f: f, ("", "")),
}


@pytest.mark.parametrize("code", FILE_FAULTS)
def test_a_fault_of_a_file(tmp_path, code):
    spoil, (old, new) = FILE_FAULTS[code]
    made = written(tmp_path, spoil(staggered()), PANEL.replace(old, new))
    with pytest.raises((DataError, DesignError)) as caught:
        load(made)[1].panel("nothing")
    assert [fault.code for fault in caught.value.faults] == [code]
    assert caught.value.text("nl") != caught.value.text("en")
    for word in ("perhaps", "many", "spring"):
        assert word not in caught.value.text("en")


def test_a_study_without_a_panel_has_none_to_read():
    with pytest.raises(DataError, match="data.not_a_panel"):
        register.read_panel(study.parse(GOOD))
