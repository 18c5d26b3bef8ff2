"""A panel from a frame: what is accepted, what is dropped and counted, what is refused and how it is said."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from naive import did_panel as naive

from evalkit.did.frame import panel_from_frame
from evalkit.did.panel import NEVER
from evalkit.errors import DataError, DesignError, EvalkitError

ROLES = {"unit": "u", "period": "t", "outcome": "y"}


def staggered(units: int = 30, periods: int = 8, seed: int = 1) -> pd.DataFrame:
    """A third treated in period 4, a third in 6, a third never; with a cluster, a weight and covariates."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"u": np.repeat(np.arange(units), periods), "t": np.tile(np.arange(1, periods + 1), units)})
    frame["g"] = np.array([4, 6, 0])[frame.u % 3]
    frame["d"] = ((frame.g > 0) & (frame.t >= frame.g)).astype(int)
    frame["y"] = rng.normal(size=len(frame)) + frame.d
    frame["c"] = "c" + (frame.u // 3).astype(str)
    frame["w"] = 1.0 + frame.u % 4
    frame["x"] = rng.normal(size=units)[frame.u]
    frame["s"] = np.array(["high", "low", "none"])[frame.u % 7 % 3]
    return frame


def same(one, two) -> None:
    for name in ("unit", "time", "outcome", "ids", "periods", "first", "weight", "x", "cluster", "cluster_ids"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert (one.names, one.level, one.repeated) == (two.names, two.level, two.repeated)


def codes(call) -> list[str]:
    with pytest.raises(EvalkitError) as caught:
        call()
    for fault in caught.value.faults:
        assert fault.text("nl") != fault.text("en") and "{" not in fault.text("en")
    return [fault.code for fault in caught.value.faults]


def refuse(frame, **roles) -> list[str]:
    return codes(lambda: panel_from_frame(frame, **{**ROLES, "first_treated": "g", **roles}))


# -- what is accepted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("how", ["first_treated", "treated"])
def test_a_crooked_frame_is_what_plain_loops_make_of_it(seed, how):
    rng = np.random.default_rng(seed)
    frame = staggered(seed=seed)
    frame = frame[rng.random(len(frame)) < 0.9]
    for column, share in (("y", 0.1), ("x", 0.05), ("w", 0.05), ("s", 0.03)):
        frame[column] = frame[column].mask(rng.random(len(frame)) < share)
    frame["w"] = frame.w.mask(rng.random(len(frame)) < 0.05, 0.0)
    frame = frame.sample(frac=1, random_state=seed)
    column = {"first_treated": "g"} if how == "first_treated" else {"treated": "d"}
    found = panel_from_frame(frame, **ROLES, **column, cluster="c", weight="w", covariates=["x", "s"])
    rows, dropped = naive.panel(frame.to_dict("records"), how)
    panel = found.panel
    got = list(
        zip(panel.ids[panel.unit], panel.period, panel.outcome, panel.first[panel.unit], panel.weight,
            panel.cluster_ids[panel.cluster[panel.unit]], map(tuple, panel.x), strict=True)
    )  # fmt: skip
    assert got == [(u, t, y, NEVER if g is None else g, w, c, x) for u, t, y, g, w, c, x in rows]
    assert [(one.reason, one.rows, one.units) for one in found.dropped] == dropped
    assert panel.names == ("x", "s:low", "s:none") and panel.level == "c"
    assert found.labels == tuple(str(t) for t in sorted({t for _, t, *_ in rows}))
    assert np.array_equal(frame.y.to_numpy()[found.rows], panel.outcome)
    assert (found.fate >= 0).sum() == sum(n for _, n, _ in dropped)


def test_every_kind_of_frame_gives_the_same():
    frame = staggered()
    frame["u"] = "p" + frame.u.astype(str)
    roles = {**ROLES, "first_treated": "g", "cluster": "c", "weight": "w", "covariates": ["x", "s"]}
    one = panel_from_frame(frame, **roles).panel
    others = [
        pa.Table.from_pandas(frame), frame.sample(frac=1, random_state=2),
        frame.astype({"t": "Int64", "g": "Float64", "s": "category"}), frame.astype({"y": object, "u": object}),
        frame.assign(g=frame.g.where(frame.g > 0)), frame.assign(g=frame.g.where(frame.g > 0, np.inf)),
        frame.assign(g=frame.g.where(frame.g > 0, 99)),
    ]  # fmt: skip
    for other in others:
        same(panel_from_frame(other, **roles).panel, one)


@pytest.mark.parametrize(
    ("dates", "start", "labels", "months", "periods"),
    [
        (["2019-11-01", "2019-12-01", "2020-01-01", "2020-02-01"], "2020-01-31",
         ("2019-11", "2019-12", "2020-01", "2020-02"), 1, [1, 2, 3, 4]),
        (["2019-07-01", "2019-10-01", "2020-01-01", "2020-04-01"], "2020-02-15",
         ("2019 Q3", "2019 Q4", "2020 Q1", "2020 Q2"), 3, [1, 2, 3, 4]),
        (["2017-12-31", "2018-12-31", "2019-12-31", "2020-12-31"], "2019-03-01",
         ("2017", "2018", "2019", "2020"), 12, [2017, 2018, 2019, 2020]),
    ],
)  # fmt: skip
def test_dates_are_periods(dates, start, labels, months, periods):
    rows = [(u, d, 1.0, start if u == "a" else None) for u in "abc" for d in dates]
    frame = pd.DataFrame(rows, columns=["u", "t", "y", "g"])
    frame["t"], frame["g"] = pd.to_datetime(frame.t), pd.to_datetime(frame.g)
    plain = frame.assign(t=frame.t.dt.date, g=[None if pd.isna(g) else g.date() for g in frame.g])
    zoned = frame.assign(t=frame.t.dt.tz_localize("Europe/Amsterdam"))
    for one in (frame, plain, zoned, pa.Table.from_pandas(frame)):
        found = panel_from_frame(one, **ROLES, first_treated="g")
        assert found.labels == labels and found.period_months == months
        assert found.panel.periods.tolist() == periods
        assert found.panel.first.tolist() == [periods[2], NEVER, NEVER]


def test_a_day_before_the_panel_is_treated_from_the_start_and_not_never():
    begun = {"a": dt.date(2015, 1, 1), "b": dt.date(2020, 2, 1), "c": None}
    rows = [(u, dt.date(2020, m, 1), 1.0, begun[u]) for u in begun for m in (1, 2, 3)]
    found = panel_from_frame(pd.DataFrame(rows, columns=["u", "t", "y", "g"]), **ROLES, first_treated="g")
    assert found.panel.first.tolist() == [1, 2, NEVER]
    assert [note.code for note in found.notes] == ["panel_always_treated", "panel_singleton_cohorts"]


def test_cross_sections():
    rng = np.random.default_rng(3)
    n = 400
    frame = pd.DataFrame({"p": rng.integers(0, 300, n), "team": rng.integers(0, 6, n), "t": rng.integers(1, 6, n)})
    frame["g"] = np.array([3, 3, 4, 0, 0, 0])[frame.team]
    frame["y"] = rng.normal(size=n).round(1)
    roles = dict(period="t", outcome="y", first_treated="g", repeated=True)
    found = panel_from_frame(frame, cluster="team", **roles)
    assert found.panel.units == n and found.panel.level == "team" and len(found.panel.cluster_ids) == 6
    same(panel_from_frame(frame.sample(frac=1, random_state=1), cluster="team", **roles).panel, found.panel)
    by_person = panel_from_frame(frame, unit="p", **roles).panel  # a person seen twice is one cluster
    assert len(by_person.cluster_ids) == frame.p.nunique() and by_person.level == "p"
    alone = panel_from_frame(frame, **roles).panel
    assert len(alone.cluster_ids) == n


def test_notes_count_what_is_no_fault():
    frame = staggered(9)
    frame = frame[~((frame.u == 0) & (frame.t == 3)) & (frame.t != 7) & ~((frame.u == 1) & (frame.t > 5))]
    frame = frame[frame.g > 0].assign(g=lambda f: f.g.replace(6, 7))
    frame.loc[frame.u == 3, "g"] = 2
    found = panel_from_frame(frame, **ROLES, first_treated="g")
    notes = {note.code: dict(note.params) for note in found.notes}
    assert notes == {
        "panel_gaps": {"count": 2, "rows": 3, "units": 6}, "panel_holes": {"count": 1},
        "panel_no_never_treated": {"count": 0}, "panel_singleton_cohorts": {"count": 1, "cohorts": 3},
        "panel_first_between": {"count": 1},
    }  # fmt: skip
    assert set(found.panel.cohorts) == {2, 4, 8}  # nobody is seen in period 7


def test_a_start_in_a_gap_is_told():
    frame = staggered(9)
    frame = frame[~((frame.u == 0) & (frame.t == 3))]
    found = panel_from_frame(frame, **ROLES, treated="d")
    assert [n.params["count"] for n in found.notes if n.code == "panel_start_in_gap"] == [1]
    assert "panel_start_in_gap" not in [n.code for n in panel_from_frame(frame, **ROLES, first_treated="g").notes]


def test_persons_beneath_a_row():
    frame = staggered().assign(n=lambda f: 10 + f.u)
    panel = panel_from_frame(frame, **ROLES, first_treated="g", persons="n").panel
    assert np.array_equal(panel.person_rows, 10 + panel.ids[panel.unit])


# -- what is refused ---------------------------------------------------------------------------------------------------


FAULTS = {
    "did.missing_columns": (lambda f: f, dict(outcome="z", cluster="k")),
    "did.no_treatment": (lambda f: f, dict(first_treated=None)),
    "did.two_treatments": (lambda f: f, dict(treated="d")),
    "did.repeated_treated": (lambda f: f, dict(first_treated=None, treated="d", repeated=True)),
    "did.unit_needed": (lambda f: f, dict(unit=None)),
    "did.not_numeric": (lambda f: f.assign(y=f.y.astype(str)), {}),
    "did.outcome_infinite": (lambda f: f.assign(y=f.y.where(f.u > 0, np.inf)), {}),
    "did.covariate_infinite": (lambda f: f.assign(x=f.x.where(f.u > 0, -np.inf)), dict(covariates=["x"])),
    "did.period_not_whole": (lambda f: f.assign(t=f.t + 0.5), {}),
    "did.period_below_one": (lambda f: f.assign(t=f.t - 4), {}),
    "did.period_coded": (lambda f: f.assign(t=np.where(f.t < 4, 201909 + f.t, 201997 + f.t)), {}),
    "did.period_days": (lambda f: f.assign(t=pd.Timestamp("2020-01-01") + pd.to_timedelta(f.t, "D"), g=pd.NaT), {}),
    "did.treated_not_binary": (lambda f: f.assign(d=f.d * 2), dict(first_treated=None, treated="d")),
    "did.first_not_whole": (lambda f: f.assign(g=f.g + 0.5), {}),
    "did.first_not_alike": (lambda f: f.assign(g=pd.Timestamp("2020-01-01")), {}),
    "did.duplicate_rows": (lambda f: pd.concat([f, f.tail(3)]), {}),
    "did.treatment_stops": (lambda f: f.assign(d=f.d.where(f.t < 8, 0)), dict(first_treated=None, treated="d")),
    "did.first_changes": (lambda f: f.assign(g=f.g.where(f.t < 8, 5)), {}),
    "did.cluster_changes": (lambda f: f.assign(c=f.c.where(f.t < 8, "z")), dict(cluster="c")),
    "did.cluster_missing": (lambda f: f.assign(c=f.c.where(f.u > 0)), dict(cluster="c")),
    "did.weight_negative": (lambda f: f.assign(w=-f.w), dict(weight="w")),
    "did.persons_negative": (lambda f: f.assign(n=f.x.where(f.u > 0)), dict(persons="n")),
    "did.no_rows": (lambda f: f.assign(y=np.nan), {}),
    "did.one_period": (lambda f: f[f.t == 5], {}),
    "did.no_treated": (lambda f: f[f.t < 4], {}),
    "did.no_period_before": (lambda f: f[(f.t > 6)], {}),
    "did.no_comparison": (lambda f: f[f.g == 4], {}),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_of_a_frame(code):
    spoil, roles = FAULTS[code]
    assert refuse(spoil(staggered()), **roles) == [code]


def test_all_faults_of_the_columns_at_once():
    frame = staggered()
    frame = frame.assign(y="1", w=-frame.w, g=frame.g.where(frame.t < 8, 5), x=np.inf)
    assert refuse(frame, weight="w", covariates=["x"]) == [
        "did.not_numeric", "did.covariate_infinite", "did.weight_negative", "did.first_changes",
    ]  # fmt: skip


def test_no_value_of_a_row_is_ever_shown():
    frame = staggered().assign(y="SECRET", c="SECRET")
    for spoilt in (frame, frame.assign(t="SECRET", g="SECRET", w="SECRET", d="SECRET")):
        for roles in (dict(first_treated="g"), dict(treated="d")):
            with pytest.raises(DataError) as caught:
                panel_from_frame(spoilt, **ROLES, **roles, weight="w", cluster="c")
            error = caught.value
            assert "SECRET" not in error.text("en") + error.text("nl") and error.__cause__ is None


def test_treated_from_the_first_period_and_later_is_fine_but_not_alone():
    frame = staggered()
    frame = frame[(frame.t > 3) & (frame.g != 6)]
    assert codes(lambda: panel_from_frame(frame, **ROLES, treated="d")) == ["did.no_period_before"]


def test_not_yet_treated_suffice():
    frame = staggered()
    panel = panel_from_frame(frame[frame.g > 0], **ROLES, first_treated="g").panel
    assert set(panel.first) == {4, 6}
    with pytest.raises(DesignError):
        panel_from_frame(frame[frame.g == 6], **ROLES, first_treated="g")
