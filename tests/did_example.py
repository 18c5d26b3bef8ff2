"""A town of teams that adopt an approach at three dates or never, and a ready panel, both with effects that are known.

The town: in every month a person on benefit leaves for work with a chance of his team, for another reason with a
chance that all share, and one off benefit comes back. Everybody begins in the state in which shares do not move, so
that without the approach teams keep their distance. From the month of adoption on more of them leave for work.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evalkit.analyses import all_settings
from evalkit.run import Outcome, analyse, bind_all, load, run
from evalkit.sample import Sample
from evalkit.study import read

# -- the register -----------------------------------------------------------------------------------------------------

FIRST = dt.date(2015, 1, 1)
MONTHS, TEAMS, PERSONS = 72, 24, 3000
DATES = (dt.date(2017, 1, 1), dt.date(2018, 1, 1), dt.date(2018, 7, 1))
ADOPTS = {f"t{i:02d}": DATES[i % 3] for i in range(12)}
BACK, OTHER, GAIN = 0.05, 0.01, 0.03


def team_names(teams: int = TEAMS) -> list[str]:
    return [f"t{i:02d}" for i in range(teams)]


def to_work(team: int) -> float:
    """The chance to leave for work in a month, without the approach."""
    return 0.03 + 0.001 * (team % 5)


def adoption_month(team: int) -> int | None:
    """Number of the month of adoption, 0 the first of the window."""
    day = ADOPTS.get(f"t{team:02d}")
    return None if day is None else (day.year - FIRST.year) * 12 + day.month - FIRST.month


def _month(number: int) -> dt.date:
    return dt.date(FIRST.year + number // 12, number % 12 + 1, 1)


@cache
def town(seed: int = 1, persons: int = PERSONS, gain: float = GAIN) -> dict[str, pd.DataFrame]:
    """Tables of persons, benefits, episodes and jobs."""
    rng = np.random.default_rng(seed)
    team = np.arange(persons) % TEAMS
    work = np.array([to_work(t) for t in range(TEAMS)])[team]
    begun = np.array([MONTHS if (m := adoption_month(t)) is None else m for t in range(TEAMS)])[team]
    on = rng.random(persons) < BACK / (BACK + work + OTHER)
    since = np.where(on, -rng.integers(1, 24, persons), 0)
    left = np.full(persons, -1)  # month in which work began, where it lasts
    spells: list[tuple[int, int, int, str]] = []
    jobs: list[tuple[int, int, int]] = []
    for month in range(MONTHS):
        draw = rng.random(persons)
        chance = work + gain * (month >= begun)
        leaves = on & (draw < chance + OTHER)
        for i in np.flatnonzero(leaves).tolist():
            spells.append((i, int(since[i]), month, "work" if draw[i] < chance[i] else "other"))
        comes = ~on & (draw < BACK)
        for i in np.flatnonzero(comes & (left >= 0)).tolist():
            jobs.append((i, int(left[i]), month))
        left = np.where(leaves & (draw < chance), month, np.where(comes, -1, left))
        since = np.where(comes, month, since)
        on = (on & ~leaves) | comes
    spells += [(i, int(since[i]), MONTHS, "") for i in np.flatnonzero(on).tolist()]
    jobs += [(i, int(left[i]), MONTHS) for i in np.flatnonzero(left >= 0).tolist()]

    def day(number: int, at: int) -> str:
        return "" if number >= MONTHS else _month(number).replace(day=at).isoformat()

    benefits = pd.DataFrame(
        [(f"p{i:04d}", day(a, 4 + i % 9), day(b, 15 + i % 9), reason) for i, a, b, reason in spells],
        columns=["person", "start", "end", "reason"],
    )
    work_rows = pd.DataFrame(
        [(f"p{i:04d}", day(a, 16 + i % 9), day(b, 3 + i % 9)) for i, a, b in jobs], columns=["person", "start", "end"]
    )
    people = pd.DataFrame(
        {
            "person": [f"p{i:04d}" for i in range(persons)],
            "sex": np.where(rng.random(persons) < 0.5, "man", "woman"),
            "born": rng.integers(1958, 1994, persons),
            "distance": rng.normal(0, 1, persons).round(3),
            "eligible": (np.arange(persons) // TEAMS) % 2,
            "team": [f"t{t:02d}" for t in team],
            "district": [f"d{t // 2:02d}" for t in team],
        }
    )
    start = rng.integers(0, MONTHS, persons // 5)
    episodes = pd.DataFrame(
        {"person": people.person[: len(start)], "type": "training", "start": [day(m, 2) for m in start.tolist()],
         "end": [(_month(m) + dt.timedelta(89)).isoformat() for m in start.tolist()]}
    )  # fmt: skip
    return {"persons": people, "benefits": benefits, "episodes": episodes, "jobs": work_rows}


def work_path(team: int, gain: float = GAIN) -> np.ndarray:
    """(72,) chance to be in work at the close of each month in a team."""
    rate, begun = to_work(team), adoption_month(team)
    chance = BACK / (BACK + rate + OTHER)
    # off benefit: in work or not; both come back with the same chance
    state = np.array([chance, 0.0, 1 - chance])
    path = []
    for month in range(MONTHS):
        up = rate + (gain if begun is not None and month >= begun else 0.0)
        move = np.array([[1 - up - OTHER, up, OTHER], [BACK, 1 - BACK, 0.0], [BACK, 0.0, 1 - BACK]])
        state = state @ move
        path.append(state[1])
    return np.array(path)


def work_effect(events: int) -> np.ndarray:
    """(events,) mean effect on being in work in month 1, 2, .. since adoption, over the teams that adopt."""
    effects = []
    for team in range(12):
        begun = adoption_month(team)
        assert begun is not None
        effects.append((work_path(team) - work_path(team, 0.0))[begun : begun + events])
    return np.mean(effects, axis=0)


def exit_effect(events: int) -> np.ndarray:
    """(events,) mean effect on having left for work by month 1, 2, .. on those who are on benefit at adoption."""
    effects, weights = [], []
    for team in range(12):
        rate = to_work(team)
        found = []
        for up in (rate + GAIN, rate):
            stay = (1 - up - OTHER) ** np.arange(events)
            found.append(np.cumsum(stay * up))
        effects.append(found[0] - found[1])
        weights.append(BACK / (BACK + rate + OTHER))
    return np.average(effects, axis=0, weights=weights)


OUTCOMES = {
    "exit_rate": '[[outcome]]\nname = "exit_rate"\nkind = "event"\nsource = "exit:work"\nprimary = true\n',
    "in_work": '[[outcome]]\nname = "in_work"\nkind = "state"\nsource = "state:work"\nprimary = true\n',
}
ADOPTED = 'unit = "team"\nadopted = {{ {days} }}'.format(
    days=", ".join(f"{name} = {day}" for name, day in ADOPTS.items())
)

REGISTER = """schema = 1
seed = 5
languages = ["nl", "en"]
title = {{ nl = "Een nieuwe aanpak", en = "A new approach" }}
[data]
format = {{ decimal = "." }}
window = {{ first = 2015-01-01, last = 2020-12-31 }}
[data.persons]
file = "persons.csv"
columns.person = "person"
columns.sex = "sex"
columns.birth_year = "born"
columns.distance = "distance"
columns.eligible = "eligible"
columns.team = "team"
columns.district = "district"
[data.benefits]
file = "benefits.csv"
columns = {{ person = "person", start = "start", end = "end", reason = "reason" }}
codes.reason = {{ work = ["work"], other = ["other"] }}
[data.episodes]
file = "episodes.csv"
columns = {{ person = "person", type = "type", start = "start", end = "end" }}
codes.type = {{ training = ["training"] }}
[data.jobs]
file = "jobs.csv"
columns = {{ person = "person", start = "start", end = "end" }}
[spells]
merge_gap_months = 0
[time]
horizon = {horizon}
follow_up = "{follow_up}"
[treatment]
instrument = "approach"
{treatment}
{outcomes}
{more}
[[analysis]]
id = "main"
method = "did"
{settings}
[disclosure]
{disclosure}
"""


def register_study(
    folder: Path,
    settings: str = "",
    *,
    tables: dict[str, pd.DataFrame] | None = None,
    outcomes: str = "in_work",
    horizon: int = 12,
    follow_up: str = "complete",
    treatment: str = ADOPTED,
    more: str = "",
    disclosure: str = 'profile = "municipal"',
    write: bool = True,
) -> Path:
    """A study folder with the town; the study file. ``write``: the tables too."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, frame in (tables or town()).items() if write else ():
        frame.to_csv(folder / "data" / f"{name}.csv", sep=";", index=False)
    text = REGISTER.format(
        horizon=horizon, follow_up=follow_up, treatment=treatment, more=more, settings=settings, disclosure=disclosure,
        outcomes=OUTCOMES.get(outcomes, outcomes),
    )  # fmt: skip
    path = folder / "study.toml"
    path.write_text(text, "utf-8")
    return path


# -- the ready panel --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """A frame of municipalities by year, and its true effects (by unit, in each of its rows)."""

    frame: pd.DataFrame
    truth: pd.DataFrame

    def effect(self, outcome: str, events: list[int], horizon: int | None = None) -> np.ndarray:
        """Mean true effect at each event time, over units that are seen so long (for ``horizon`` periods, if given)."""
        rows = self.truth[self.truth["first"] > 0]
        if horizon is not None:
            last = self.truth.year.max()
            rows = rows[rows["first"] + horizon - 1 <= last]
        event = rows.year - rows["first"]
        return np.array([rows.loc[event == e, outcome].mean() for e in events])


@cache
def ready_panel(seed: int = 1, units: int = 60, years: int = 10, starts: tuple[int, ...] = (2014, 2016)) -> Ready:
    """``units`` municipalities: a quarter in each cohort, the rest never; outcomes of three kinds."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(units), years)
    year = np.tile(np.arange(2010, 2010 + years), units)
    begun = np.array([starts[i % 4] if i % 4 < len(starts) else 0 for i in range(units)])[number]
    x = rng.normal(0, 1, units).round(4)[number]
    own = rng.normal(0, 1, units)[number]
    event = np.where(begun > 0, year - begun, -1)
    on = event >= 0
    shock = 0.2 * (year - 2010) + 0.3 * np.sin(year)
    effect = np.where(on, 1.0 + 0.25 * event, 0.0)
    amount = own + shock + effect + rng.normal(0, 0.5, len(year))
    persons = 400
    index = -0.8 + 0.2 * (begun > 0) + 0.05 * (year - 2010)
    chance, chance0 = (1 / (1 + np.exp(-(index + 0.5 * d))) for d in (on, 0 * on))
    share = rng.binomial(persons, chance) / persons
    mean0 = np.exp(2.5 + 0.1 * (begun > 0) + 0.03 * (year - 2010))
    count = rng.poisson(mean0 * np.where(on, 1.2, 1.0))
    frame = pd.DataFrame(
        {
            "place": [f"m{i:02d}" for i in number], "year": year, "first": begun, "amount": amount.round(6),
            "share": share, "count": count, "x": x, "persons": persons, "block": [f"b{i // 4:02d}" for i in number],
            "kind": np.where(number % 8 < 4, "north", "south"),
            "ring": np.where(begun > 0, -1, np.where(number % 4 == 2, 0, -1)),
        }
    )  # fmt: skip
    truth = pd.DataFrame(
        {"year": year, "first": begun, "amount": effect, "share": chance - chance0,
         "count": mean0 * np.where(on, 0.2, 0.0)}
    )  # fmt: skip
    return Ready(frame, truth)


PANEL = """schema = 1
seed = 7
languages = ["nl", "en"]
title = {{ nl = "Een nieuwe wet", en = "A new law" }}
[panel]
file = "panel.csv"
unit = "place"
period = "year"
first_treated = "first"
persons = "persons"
outcomes = {{ amount = "amount", share = "share", count = "count" }}
format = {{ decimal = "." }}
{panel}
[time]
{time}
[treatment]
instrument = "law"
{outcome}
{more}
[[analysis]]
id = "main"
method = "did"
{settings}
[disclosure]
{disclosure}
"""
AMOUNT = '[[outcome]]\nname = "amount"\nkind = "flow"\nunit = "euro"\nprimary = true\n'
SHARE = '[[outcome]]\nname = "share"\nkind = "state"\nprimary = true\n'
COUNT = '[[outcome]]\nname = "count"\nkind = "flow"\nunit = "starts"\nprimary = true\n'


def panel_study(
    folder: Path,
    settings: str = "",
    *,
    frame: pd.DataFrame | None = None,
    time: str = 'horizon = 3\nfollow_up = "complete"',
    outcome: str = AMOUNT,
    panel: str = "",
    more: str = "",
    disclosure: str = 'profile = "municipal"',
) -> Path:
    """A study folder with the ready panel; the study file."""
    folder.mkdir(parents=True, exist_ok=True)
    made = ready_panel().frame if frame is None else frame
    made.to_csv(folder / "panel.csv", index=False, sep=";")
    text = PANEL.format(time=time, outcome=outcome, panel=panel, more=more, settings=settings, disclosure=disclosure)
    path = folder / "study.toml"
    path.write_text(text, "utf-8")
    return path


def document(study: Path, **keys: object) -> dict:
    """The results document of a study."""
    return dict(outcome_of(study, **keys).results.document)


def outcome_of(study: Path, **keys: object) -> Outcome:
    """The finished run of a study."""
    return run(study, **keys)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Loaded:
    """Register tables that were read once, for studies that differ in the settings of their analysis only."""

    folder: Path
    keys: dict[str, Any]
    data: Any
    sample: Sample

    @classmethod
    def of(cls, folder: Path, **keys: Any) -> Loaded:
        data, sample = load(read(register_study(folder, **keys), all_settings()))
        return cls(folder, keys, data, sample)

    def outcome(self, settings: str, *, blind: bool = False, disclosure: str = 'profile = "open"') -> Outcome:
        """The run of the study with these settings."""
        path = register_study(self.folder, settings, write=False, **(self.keys | {"disclosure": disclosure}))
        study = read(path, all_settings())
        return analyse(study, bind_all(study), self.data, self.sample, blind=blind)

    def document(self, settings: str, **keys: Any) -> dict:
        """Its results document."""
        return dict(self.outcome(settings, **keys).results.document)


def months(document: dict, **labels: str) -> pd.DataFrame:
    """The months of one profile: labels that are not named are those of the whole, the only outcome."""
    wanted = {"analysis": "main", "subgroup": ""} | labels
    found = [p for p in document["profiles"] if all(p["labels"].get(k, "") == v for k, v in wanted.items())]
    assert len(found) == 1, [p["labels"] for p in document["profiles"]]
    return pd.DataFrame(found[0]["months"]).set_index("month")


def codes(document: dict) -> list[str]:
    """Codes of all findings."""
    return [finding["code"] for finding in document["findings"]]
