"""Large registers for ``make bench``: quickly drawn, with the shape of a city's benefit administration.

Thirty months on benefit a person within the window; one in ten begins as stock, one in five returns, one in five
starts the instrument. The law is as simple as can be: what is measured is time and memory, not effects.
"""

from __future__ import annotations

from pathlib import Path

FIRST, LAST = "2012-01-01", "2023-12-31"

STUDY = """
schema = 1
seed = 1
languages = ["en"]
title = { en = "A large register" }
[data]
folder = "."
window = { first = 2012-01-01, last = 2023-12-31 }
[data.persons]
file = "persons.parquet"
columns = { person = "person", sex = "sex", birth_year = "birth_year", education = "education" }
[data.benefits]
file = "benefits.parquet"
columns = { person = "person", start = "start", end = "end", reason = "reason" }
codes.reason = { work = ["11"], education = ["21"], other = ["*"] }
[data.episodes]
file = "episodes.parquet"
columns = { person = "person", type = "type", start = "start", end = "end", planned_end = "planned_end" }
codes.type = { training = ["S1"], coaching = ["C"] }
[time]
horizon = 36
[treatment]
instrument = "training"
[[outcome]]
name = "left_to_work"
kind = "event"
source = "exit:work"
primary = true
[covariates]
categorical = ["sex", "education"]
numeric = ["age"]
[[analysis]]
id = "main"
method = "matching"
"""


def write(folder: Path, persons: int) -> dict[str, object]:
    """Parquet files and a study file; person-months on benefit within the window."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    first, last = (int(np.datetime64(day).astype("int64")) for day in (FIRST, LAST))
    of = np.arange(persons)
    stock = rng.random(persons) < 0.1
    start = np.where(stock, first - rng.integers(1, 1500, persons), rng.integers(first, last - 200, persons))
    days = 1 + rng.exponential(1040, persons).astype(np.int64)
    end = start + days
    keep = end >= first
    end = np.where(keep, end, first + days)
    back = np.flatnonzero((rng.random(persons) < 0.25) & (end < last - 60))
    again = end[back] + 1 + rng.integers(0, 400, len(back))
    back, again = back[again < last], again[again < last]
    of = np.concatenate([of, back])
    start = np.concatenate([start, again])
    end = np.concatenate([end, again + rng.exponential(700, len(back)).astype(np.int64)])
    open_ = end > last
    months = float((np.minimum(end, last) - np.maximum(start, first) + 1).sum() / 30.4375)

    begins = rng.random(len(of)) < 0.25
    day = np.maximum(start, first) + rng.integers(0, 700, len(of))
    begins &= (day <= np.minimum(end, last)) & (day <= last)
    who = np.flatnonzero(begins)
    planned = day[who] + 180
    closes = planned + rng.integers(-90, 60, len(who))

    def name(index: np.ndarray) -> pa.Array:
        """Pseudonyms: a letter and sixteen digits."""
        number = pa.array((index.astype(np.int64) * 7_919) % 1_000_003 + index.astype(np.int64) * 1_000_003)
        return pc.binary_join_element_wise("p", pc.utf8_lpad(number.cast(pa.string()), 16, "0"), "")

    def date(values: np.ndarray, empty: np.ndarray | None = None) -> pa.Array:
        return pa.array(values.astype(np.int32), mask=empty).cast(pa.date32())

    def pick(words: list[str], share: list[float], n: int, empty: np.ndarray | None = None) -> pa.Array:
        return pa.array(words).take(pa.array(rng.choice(len(words), n, p=share), mask=empty))

    everyone = np.arange(persons)
    tables = {
        "persons": {
            "person": name(everyone),
            "sex": pick(["m", "v"], [0.5, 0.5], persons),
            "birth_year": pa.array(rng.integers(1955, 1998, persons)),
            "education": pick(["laag", "midden", "hoog"], [0.5, 0.35, 0.15], persons),
        },
        "benefits": {
            "person": name(of),
            "start": date(start),
            "end": date(end, open_),
            "reason": pick(["11", "21", "31"], [0.5, 0.1, 0.4], len(of), open_),
        },
        "episodes": {
            "person": name(of[who]),
            "type": pick(["S1", "C"], [0.7, 0.3], len(who)),
            "start": date(day[who]),
            "end": date(np.maximum(closes, day[who]), closes > last),
            "planned_end": date(planned),
        },
    }
    for table, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{table}.parquet")
    (folder / "study.toml").write_text(STUDY, "utf-8")
    return {"person_months": months, "spells": len(of), "starts": len(who)}
