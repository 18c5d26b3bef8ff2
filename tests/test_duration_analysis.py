"""Duration models from study file to report: the line reports what the library says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evalkit import simulate
from evalkit.analyses import all_settings
from evalkit.analyses.duration import Settings, fitted, known_spells, run
from evalkit.duration.answers import answers
from evalkit.duration.cox import cox
from evalkit.duration.episodes import episodes
from evalkit.duration.hazards import fit_hazards
from evalkit.duration.spells import NEVER, Layout, Timeline
from evalkit.errors import DesignError, StudyError
from evalkit.report import render
from evalkit.run import load
from evalkit.run import run as run_study
from evalkit.study import read, template

HORIZON = 12
ANALYSES = """
[[analysis]]
id = "rates"
method = "duration"

[[analysis]]
id = "hidden"
method = "duration"
model = "mixture"
points = 2
calendar = "none"
beside = false
"""


def study_file(folder: Path, analyses: str = ANALYSES, **changes: str) -> Path:
    text = (folder / "study.toml").read_text("utf-8")
    text = text[: text.index("[[analysis]]")] + analyses + "\n" + text[text.index("[gate]") :]
    text = re.sub(r"^horizon = \d+", f"horizon = {HORIZON}", text, flags=re.M)
    for old, new in changes.items():
        text = text.replace(old, new)
    path = folder / f"study_{len(list(folder.glob('study_*.toml')))}.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    folder = tmp_path_factory.mktemp("duration") / "town"
    simulate.write(folder / "data", simulate.draw(simulate.SMALL, 4_000, 3))
    text = template("en").replace("2015-01-01", "2018-01-01").replace("2023-12-31", "2021-12-31")
    (folder / "study.toml").write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module")
def loaded(town):
    """The study file, the study, its sample."""
    path = study_file(town)
    study = read(path, all_settings())
    return path, study, load(study)[1]


@pytest.fixture(scope="module")
def found(loaded):
    return run_study(loaded[0]).results


def own(document, **labels):
    return next(
        p for p in document["profiles"]
        if all(p["labels"].get(name, "") == value for name, value in ({"subgroup": "", "variant": ""} | labels).items())
    )  # fmt: skip


def test_the_line_reports_the_library(loaded):
    _, study, sample = loaded
    settings = Settings()
    analysis = run(sample, settings, np.random.default_rng(0), "rates")
    outcome = next(o for o in study.outcomes if o.source == "exit:work")
    known = known_spells(sample, settings, [outcome])
    layout = Layout(known.spells, Timeline(settings.duration, "year"))
    direct = answers(
        layout, fit_hazards(layout.histories(before=False)), horizon=HORIZON, versus="wait", spell=known.starter
    )
    profile = analysis.profiles[0]
    assert profile.estimate == pytest.approx(direct.of["work"].effect, abs=1e-12)
    assert profile.vcov == pytest.approx(direct.of["work"].influence.vcov, abs=1e-14)
    assert profile.n_treated.tolist() == [direct.persons] * HORIZON
    assert profile.n_comparison.tolist() == direct.compared.tolist()
    other = next(p for p in analysis.profiles if p.labels.get("variant") == "versus_never")
    assert other.estimand.versus == "never" and profile.estimand.versus == "wait"
    assert np.abs(other.estimate - profile.estimate).max() > 1e-4


def test_spells_are_those_of_the_register(loaded):
    _, study, sample = loaded
    known = known_spells(sample, Settings(), [study.primary])
    spells = known.spells
    assert spells.causes == ("work", "other_exits")
    starters = sample.entries.take(np.flatnonzero(sample.entries.arm == 1))
    early, out = known.timed.lost
    assert len(known.starter) + early + out == len(starters)
    month = spells.started[0][known.starter]
    assert ((month < spells.stop[known.starter]) | (spells.cause[known.starter] < 0)).all()
    elapsed = {(int(p), int(e)) for p, e in zip(starters.person, starters.elapsed, strict=True)}
    here = known.timed.person[known.starter]
    # the first whole month with the instrument is the month of the start, or the one after it
    assert all((int(p), int(m)) in elapsed or (int(p), int(m) - 1) in elapsed for p, m in zip(here, month, strict=True))
    assert (spells.started[0] < NEVER).sum() >= len(known.starter)


@pytest.mark.parametrize("model", ["piecewise", "logit"])
def test_models_agree_about_a_month_grid(loaded, model):
    """Rates are small, so that the three forms say nearly the same."""
    _, _, sample = loaded
    rng = np.random.default_rng(0)
    plain = run(sample, Settings(beside=False), rng).profiles[0]
    other = run(sample, Settings(model=model, beside=False), rng).profiles[0]
    assert other.estimate == pytest.approx(plain.estimate, abs=0.02)
    assert np.sqrt(np.diag(other.vcov)) == pytest.approx(np.sqrt(np.diag(plain.vcov)), rel=0.15)


def test_a_step_a_month_is_cox_in_months(loaded):
    """A free baseline: the effect on the rate is that of a Cox regression on the same stretches, up to grouping."""
    _, study, sample = loaded
    settings = Settings(duration="monthly", calendar="none", beside=False)
    known = known_spells(sample, settings, [study.primary])
    made = fitted(known, settings)
    line = Timeline(duration=(), calendar="none")
    plain = Layout(known.spells, line)
    since = [known.spells.started[0]]
    rows = np.arange(len(known.spells))
    spells, start = known.spells, since[0]
    split = start < spells.stop
    row = np.r_[rows, rows[split]]
    begin = np.r_[np.zeros(len(rows)), start[split]]
    end = np.r_[np.where(split, start, spells.stop), spells.stop[split]].astype(float)
    work = np.r_[np.where(split, False, spells.cause == 0), (spells.cause == 0)[split]]
    use = end > begin
    again = spells.instrument.length
    cuts = [again[row] + start[row], again[row] + start[row] + 6, again[row] + start[row] + 12]
    treated = np.r_[np.zeros(len(rows), bool), np.ones(split.sum(), bool)]
    pieces = []
    for low, high in zip([begin, *cuts], [*cuts, np.full(len(row), 10**6)], strict=True):
        a, b = np.where(treated, np.maximum(begin, low), begin), np.where(treated, np.minimum(end, high), end)
        pieces.append((a, b, treated | (low is begin)))
    a, b = (np.concatenate([piece[k] for piece in pieces]) for k in (0, 1))
    which = np.tile(row, 4)
    keep = np.concatenate([piece[2] for piece in pieces]) & (b > a) & np.tile(use, 4)
    ends = np.tile(work, 4) & (b == np.tile(end, 4))
    a, b, which, ends, on = a[keep], b[keep], which[keep], ends[keep], np.tile(treated, 4)[keep]
    month = a.astype(int)
    x = plain.exits(which, month, [np.where(on, month - start[which], -1)]).matrix()
    names = plain.exits(which[:1], month[:1], [np.array([-1])]).names
    free = [j for j, name in enumerate(names) if np.ptp(x[:, j]) > 0]
    fit = cox(episodes(b, ends, start=a), x[:, free], [names[j] for j in free], ties="breslow")
    own = made.hazards.names[0]
    mine = np.array([made.hazards.theta[0][own.index(name)] for name in fit.names])
    assert (np.abs(mine - fit.coefficients) < 0.35 * fit.std_error).all()


def test_subgroups_come_from_one_model(loaded):
    _, study, sample = loaded
    analysis = run(sample, Settings(beside=False), np.random.default_rng(0))
    groups = [p for p in analysis.profiles if p.labels["subgroup"]]
    names = {p.labels["subgroup"].partition("=")[0] for p in groups}
    assert names == {s.name for s in study.subgroups}
    for name in names:
        mine = [p for p in groups if p.labels["subgroup"].startswith(f"{name}=")]
        assert len({p.labels["subgroup"] for p in mine}) == len(mine) >= 2
        assert sum(p.n_treated[0] for p in mine) == analysis.profiles[0].n_treated[0]
        assert (mine[0].uncertainty.ids == mine[1].uncertainty.ids).mean() > 0.9


def test_document_and_report(found):
    document = found.document
    rates, hidden = own(document, analysis="rates"), own(document, analysis="hidden")
    assert rates["estimand"]["identification"] == "no_unobserved_selection"
    assert hidden["estimand"]["identification"] == "timing_of_events"
    assert own(document, analysis="rates", variant="versus_never")["estimand"]["versus"] == "never"
    ids = {(e["analysis"], e["id"]) for e in document["exhibits"] if e["type"] != "note"}
    for name in ("duration_effects", "duration_exits", "duration_rate", "duration_model"):
        assert ("rates", name) in ids and ("hidden", name) in ids
    assert ("hidden", "duration_points") in ids and ("rates", "duration_points") not in ids
    codes = {f["code"] for f in document["findings"] if f["analysis"] == "hidden"}
    assert codes & {"duration_certificate", "duration_certificate_open"}
    assert codes & {"duration_hidden", "duration_hidden_none"}
    for language in ("nl", "en"):
        html = render(document, language)
        text = re.sub(r"<[^>]+>", " ", html)
        assert not re.search(r"(note|finding|column|exhibit|report|flow)\.[a-z_]+\b", text)
        assert "duration_" not in text and "other_exits" not in text
    dutch = re.sub(r"<[^>]+>", " ", render(document, "nl"))
    for words in ("tijdens het traject", "Andere redenen", "Timing of events", "tegenover nooit starten"):
        assert words in dutch


def test_a_blind_run_tells_no_multiple_of_a_rate(loaded):
    document = run_study(loaded[0], blind=True).results.document
    assert all(month["estimate"] is None for p in document["profiles"] for month in p["months"])
    shown = {e["id"] for e in document["exhibits"] if e["type"] != "note"}
    assert not shown & {"duration_effects", "duration_points", "duration_model"}
    assert {"duration_exits", "duration_rate"} <= shown
    assert not {"duration_hidden", "duration_effect_moves"} & {f["code"] for f in document["findings"]}


def test_small_numbers_do_not_leave(found):
    document = json.loads(json.dumps(found.document))
    table = next(e for e in document["exhibits"] if e["id"] == "duration_effects")
    for row in table["rows"]:
        if row["exits"] is None:
            assert row["hazard_ratio"] is None and row["hr_low"] is None
        else:
            assert row["exits"] % 5 == 0


def test_planned_and_realised_ends_differ(loaded):
    _, study, sample = loaded
    planned = known_spells(sample, Settings(), [study.primary]).spells.instrument
    realised = known_spells(sample, Settings(phases="realised"), [study.primary]).spells.instrument
    since = known_spells(sample, Settings(phases="start"), [study.primary]).spells.instrument
    began = planned.start < NEVER
    assert (planned.start == realised.start).all() and since.clock == "start"
    assert (realised.length[began] <= planned.length[began]).mean() > 0.9
    assert (realised.length[began] < planned.length[began]).any()
    notes = {
        phases: {
            e.key
            for e in run(sample, Settings(phases=phases, beside=False), np.random.default_rng(0)).exhibits
            if hasattr(e, "key")
        }
        for phases in ("planned", "realised")
    }
    assert "duration_planned" in notes["planned"] and "duration_realised" in notes["realised"]


def test_further_instruments_and_effects_by_covariate(loaded):
    _, study, sample = loaded
    settings = Settings(others=("coaching",), effect_by=("sex",), beside=False)
    known = known_spells(sample, settings, [study.primary])
    assert [each.name for each in known.spells.instruments] == ["training", "coaching"]
    layout = Layout(known.spells, Timeline(by=("sex",)))
    assert layout.risks == ("work", "other_exits", "start training", "start coaching")
    names = layout.histories(before=False).designs[0].names
    assert any(name.startswith("coaching ") for name in names) and any(" x training" in name for name in names)
    assert run(sample, settings, np.random.default_rng(0)).profiles[0].n_treated[0] > 0


def test_a_horizon_beyond_the_data_is_refused(loaded):
    _, _, sample = loaded
    with pytest.raises(DesignError) as caught:
        run(replace(sample, horizon=200), Settings(beside=False), np.random.default_rng(0))
    assert caught.value.faults[0].code == "duration.horizon"
    assert 12 <= caught.value.faults[0].params["longest"] < 200


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ('others = ["training"]', "duration.others"),
        ('others = ["nothing"]', "duration.others"),
        ('effect_by = ["shoe_size"]', "duration.effect_by"),
        ('after = { training = "nothing" }', "duration.after_unknown"),
    ],
)
def test_settings_that_the_study_cannot_give(town, settings, code):
    path = study_file(town, f'[[analysis]]\nid = "rates"\nmethod = "duration"\n{settings}\n')
    with pytest.raises(StudyError) as caught:
        run_study(path)
    assert code in [fault.code for fault in caught.value.faults]


def test_only_exits_and_only_these_strategies(town):
    path = study_file(
        town, '[[analysis]]\nid = "rates"\nmethod = "duration"\n',
        **{'source = "exit:work"': 'source = "durable:6"'},
    )  # fmt: skip
    with pytest.raises(StudyError) as caught:
        run_study(path)
    assert "duration.no_exit" in [fault.code for fault in caught.value.faults]
    path = study_file(
        town, '[[analysis]]\nid = "rates"\nmethod = "duration"\n', **{'versus = "wait"': 'versus = "coaching"'}
    )
    with pytest.raises(StudyError) as caught:
        run_study(path)
    assert "duration.versus" in [fault.code for fault in caught.value.faults]
