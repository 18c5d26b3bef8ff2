"""Registers drawn at random: never another error than our own, no row lost, and the flow of people adds up."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pandas as pd
from checks_example import protocol
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from evalkit import register, sample
from evalkit.errors import EvalkitError
from evalkit.study import Study

_ODD = {
    "date": ("", None, "31-02-2016", "MARKED", "9999-12-31", "0001-01-01", "2262-04-12", "1899-12-31"),
    "key": ("", None, "MARKED", "0", "A1", "a1", "nobody"),
    "number": (None, "MARKED", "1e400", "-1", "nan", "12,5", "999"),
    "word": (None, "", "MARKED", "?", "onbekend", "M ", "🙂"),
}


class Draw:
    """Rows at random; a share ``odd`` of the cells is something else than it should be."""

    def __init__(self, seed: int, odd: float):
        self.rng, self.odd = np.random.default_rng(seed), odd
        self.people = int(self.rng.integers(20, 200))

    def cell(self, kind: str, value: Any) -> Any:
        return value if self.rng.random() >= self.odd else _ODD[kind][self.rng.integers(len(_ODD[kind]))]

    def date(self, first: str = "2014-06-01", days: int = 900) -> Any:
        day = np.datetime64(first, "D") + int(self.rng.integers(days))
        return self.cell("date", str(day))

    def key(self) -> Any:
        return self.cell("key", f"{self.rng.integers(self.people):03d}")

    def word(self, *words: str | None) -> Any:
        return self.cell("word", words[self.rng.integers(len(words))])

    def number(self, low: float, high: float) -> Any:
        return self.cell("number", str(round(self.rng.uniform(low, high))))

    def period(self) -> dict[str, Any]:
        """A start and, in most cases, an end that is mostly later."""
        start = self.date()
        known = isinstance(start, str) and start.startswith("201")
        end = self.date(start if known else "2015-01-01", 500)
        return {"start": start, "end": end if self.rng.random() < 0.8 else None}

    def frames(self) -> dict[str, pd.DataFrame]:
        persons = [
            {
                "person": f"{i:03d}",
                "sex": self.word("m", "v"),
                "birth_year": self.number(1945, 2000),
                "education": self.word("low", "middle", "high", None),
                "distance": self.number(0, 100),
                "measured": self.date(),
            }
            for i in range(self.people)
        ]
        benefits = [
            {
                "person": self.key(),
                **self.period(),
                "reason": self.word("work", "other", None),
                "registered": self.date(),
            }
            for _ in range(int(self.rng.integers(1, 4 * self.people)))
        ]
        episodes = []
        for _ in range(int(self.rng.integers(1, 2 * self.people))):
            held = benefits[self.rng.integers(len(benefits))]
            near = held | {"type": self.word("training", "training", "coaching"), "planned_end": self.date()}
            episodes.append(near | {"referral": held["start"], "registered": self.date()})
            if self.rng.random() < 0.7:
                episodes[-1] |= self.period()
        jobs = [
            {"person": self.key(), **self.period(), "hours": self.number(-5, 900), "wage": self.number(-5, 9000)}
            for _ in range(int(self.rng.integers(0, self.people)))
        ]
        return {
            "persons": pd.DataFrame(persons, dtype=object),
            "benefits": pd.DataFrame(benefits, dtype=object),
            "episodes": pd.DataFrame(episodes, dtype=object).drop(columns="reason"),
            "jobs": pd.DataFrame(jobs, columns=["person", "start", "end", "hours", "wage"], dtype=object),
        }


_STUDY = st.fixed_dictionaries(
    {
        "clock": st.sampled_from(["start", "referral"]),
        "within_month": st.sampled_from(["dates", "start_first", "exit_first"]),
        "follow_up": st.sampled_from(["complete", "available"]),
        "stock": st.sampled_from(["exclude", "include"]),
        "other_instrument": st.sampled_from(["exclude", "include"]),
        "missing": st.sampled_from(["category", "exclude"]),
    }
)


def study_of(drawn: dict[str, str]) -> Study:
    made = protocol(clock=drawn["clock"])
    time = made.time.model_copy(update={name: drawn[name] for name in ("within_month", "follow_up")})
    who = made.eligibility.model_copy(update={name: drawn[name] for name in ("stock", "other_instrument")})
    covariates = made.covariates.model_copy(update={"missing": drawn["missing"]})
    layout = made.data.format.model_copy(update={"date": "%Y-%m-%d", "decimal": "."})
    data = made.data.model_copy(update={"format": layout})
    return made.model_copy(update={"time": time, "eligibility": who, "covariates": covariates, "data": data})


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # making an example smaller takes minutes
    suppress_health_check=list(HealthCheck),
)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.7]), _STUDY)
def test_any_register_ends_in_a_result_or_an_error_of_ours(seed, odd, drawn):
    study = study_of(drawn)
    frames = Draw(seed, odd).frames()
    try:
        made = register.from_frames(study, **frames)
    except EvalkitError as error:
        assert "MARKED" not in error.text("nl") + str(error)
        return
    for table, rows in frames.items():
        kept = len(made.arrays(table)["person"])
        assert kept + sum(aside.rows for aside in made.quarantine if aside.table == table) == len(rows)
    for check in made.findings:
        assert check.count > 0 and 0 <= check.share <= 1
        assert "MARKED" not in check.message("nl") + str(dict(check.params))
        if check.arms:
            assert sum(arm["count"] for arm in check.arms.values()) == check.count
    with contextlib.suppress(EvalkitError):
        adds_up(sample.from_register(study, made), made)


def adds_up(cut: sample.Sample, made: register.Register) -> None:
    """Who starts the flow falls out or is left, in persons and entries; every start of the instrument is in it."""
    for check in sample.judge_sample(cut):
        assert check.count > 0 and check.message("nl") and check.message("en")
    for arm in ("treated", "comparison"):
        rows = [row for row in cut.flow if row.arm == arm]
        assert rows[0].kind == "start" and rows[-1].kind == "left"
        for measure in ("persons", "entries"):
            assert getattr(rows[0], measure) == sum(getattr(row, measure) for row in rows[1:])
        assert rows[-1].entries == int((cut.entries.arm == (arm == "treated")).sum())
    episodes = made.arrays("episodes")
    day = episodes["referral" if cut.study.time.clock == "referral" else "start"]
    starts = (episodes["type"] == "training") & ~pd.isna(day)
    assert cut.flow[0].entries == int(starts.sum())
    assert cut.flow[0].persons == len(set(episodes["person"][starts]))
