"""Registers as files of every kind with anything in them, and the whole line from those files to the results."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

MARKER = "ZZMARKER7"

Rows = list[dict[str, Any]]

COLUMNS = {
    "persons": {"person": "sleutel", "sex": "sekse", "birth_year": "geboren", "education": "niveau",
                "distance": "afstand", "measured": "gemeten", "household_id": "adres"},
    "benefits": {"person": "sleutel", "start": "ingang", "end": "laatste_dag", "reason": "reden",
                 "registered": "geboekt", "household_id": "adres"},
    "episodes": {"person": "sleutel", "type": "soort", "start": "van", "end": "tot", "planned_end": "gepland",
                 "referral": "verwezen", "registered": "geboekt"},
    "jobs": {"person": "sleutel", "start": "van", "end": "tot", "hours": "uren", "wage": "loon"},
}  # fmt: skip
"""By table fixed name to own name."""

DATES = {"start", "end", "planned_end", "referral", "registered", "measured"}
NUMBERS = {"birth_year", "distance", "hours", "wage"}

RUBBISH = (
    "", " ", "NULL", MARKER, f"{MARKER};x", f'"{MARKER}', f'a"{MARKER}', f"{MARKER}\nb", f"{MARKER}\r\nb", "'", "é🙂",
    "=1+1", "\u202e", "\ufeff", "x" * 5000, "None", "nan", "inf", "-inf", "1e400", "1e308", "0x10", "١٢٣",
    "1.234.567,8", "12,5", "12.5", "1e-320", "9" * 30, "-0", "+5", "-1", "999", "31-02-2016", "29-02-2015",
    "0001-01-01", "9999-12-31",
    "31-12-9999", "2262-04-12", "1677-01-01", "31-12-1899", "01-01-1900", "10000-01-01", "2016-1-1", "01-01-16",
    "2016-01-01 00:00:00", "2016-01-01T23:59:59Z", "00-00-0000", "%d", "0", "A1", "a1", "onbekend", "?", "M ", "\t",
)  # fmt: skip

STUDY = """
schema = 1
seed = {seed}
languages = ["nl", "en"]
title = {{ nl = "Proef", en = "Trial" }}
[data]
folder = "data"
format = {{ delimiter = "{delimiter}", encoding = "{encoding}", decimal = "{decimal}", date = "{date}" }}
window = {{ first = 2015-01-01, last = 2017-12-31 }}
{tables}
[spells]
merge_gap_months = {gap}
level = "{level}"
job_amounts = "{amounts}"
[time]
clock = "{clock}"
within_month = "{within_month}"
follow_up = "{follow_up}"
horizon = {horizon}
[eligibility]
elapsed = [0, {elapsed}]
stock = "{stock}"
other_instrument = "{other}"
{limits}
[treatment]
instrument = "training"
cluster = "{cluster}"
[[outcome]]
name = "left_to_work"
kind = "event"
source = "exit:work"
primary = true
[[outcome]]
name = "in_work"
kind = "state"
source = "state:work"
[[outcome]]
name = "hours"
kind = "flow"
source = "flow:hours"
unit = "hours"
[covariates]
numeric = ["distance", "age"]
categorical = ["sex", "education"]
missing = "{missing}"
[[subgroup]]
name = "sex"
[[analysis]]
id = "main"
method = "matching"
[disclosure]
profile = "{profile}"
"""

CODES = {
    "benefits": 'codes.reason = { work = ["werk", "01"], other = ["anders"] }',
    "episodes": 'codes.type = { training = ["scholing"], coaching = ["coaching"] }',
}


class Town:
    """A register at random: a share ``odd`` of its cells is rubbish, and some of its files are damaged.

    Parameters
    ----------
    seed:
        Of everything that is drawn.
    odd:
        Share of rubbish.
    words:
        Rubbish of the caller's own.
    damage:
        Probability that a file is damaged as a whole.
    kinds:
        Kinds of files that are drawn from.
    """

    def __init__(
        self, seed: int, odd: float, words: Sequence[str] = (), damage: float = 0.0, kinds: Sequence[str] = ("csv",)
    ):
        self.rng, self.odd, self.damage, self.kinds = np.random.default_rng(seed), odd, damage, kinds
        self.rubbish = (*RUBBISH, *words)
        self.people = int(self.rng.choice([1, 2, 20, 90, 240], p=[0.03, 0.03, 0.24, 0.4, 0.3]))
        self.layout = {
            "delimiter": self.one(";", ",", "auto"),
            "encoding": self.one("utf-8", "auto", "cp1252"),
            "decimal": self.one(",", ".", "auto"),
            "date": self.one("%d-%m-%Y", "%Y-%m-%d", "%d/%m/%Y", "auto"),
        }
        self.broken: set[str] = set()
        self.rows: dict[str, int] = {}

    def one(self, *choices: Any) -> Any:
        """One of them."""
        return choices[self.rng.integers(len(choices))]

    def chance(self, share: float) -> bool:
        """Whether this happens now."""
        return bool(self.rng.random() < share)

    # -- cells -------------------------------------------------------------------------------------------------------

    def cell(self, value: Any) -> str:
        """The value as text, or rubbish."""
        if self.chance(self.odd):
            return str(self.one(*self.rubbish))
        return "" if value is None else str(value)

    def day(self, first: str, days: int) -> np.datetime64:
        return np.datetime64(first, "D") + int(self.rng.integers(days))

    def date(self, day: np.datetime64 | None) -> str:
        """A day in the notation of the study."""
        if day is None:
            return self.cell("")
        pattern = self.layout["date"] if self.layout["date"] != "auto" else "%d-%m-%Y"
        return self.cell(pd.Timestamp(day).strftime(pattern))

    def number(self, low: float, high: float, decimals: int = 0) -> str:
        mark = self.layout["decimal"] if self.layout["decimal"] != "auto" else ","
        return self.cell(f"{self.rng.uniform(low, high):.{decimals}f}".replace(".", mark))

    def key(self) -> str:
        return self.cell(f"{self.rng.integers(self.people):03d}")

    def period(self, first: str = "2014-06-01", days: int = 900) -> tuple[np.datetime64, np.datetime64 | None]:
        start = self.day(first, days)
        return start, None if self.chance(0.2) else start + int(self.rng.integers(-3, 500))

    # -- tables ------------------------------------------------------------------------------------------------------

    def tables(self) -> dict[str, Rows]:
        """All tables as rows of text."""
        persons = [
            {
                "person": f"{i:03d}",
                "sex": self.cell(self.one("m", "v")),
                "birth_year": self.number(1945, 2000),
                "education": self.cell(self.one("laag", "midden", "hoog", None)),
                "distance": self.number(0, 100, 1),
                "measured": self.date(self.day("2014-01-01", 900)),
                "household_id": self.cell(f"h{i // 2}"),
            }
            for i in range(self.people)
        ]
        benefits, episodes, jobs = [], [], []
        for _ in range(int(self.rng.integers(1, 3 * self.people + 2))):
            start, end = self.period()
            who = self.key()
            benefits.append(
                {
                    "person": who,
                    "start": self.date(start),
                    "end": self.date(end),
                    "reason": self.cell(self.one("werk", "01", "anders", None) if end is not None else None),
                    "registered": self.date(start + 3),
                    "household_id": self.cell(f"h{int(who) // 2}" if who.isdecimal() and who.isascii() else ""),
                }
            )
            if self.chance(0.6):
                start = start + int(self.rng.integers(-20, 200))
                episodes.append(self.episode(who, start))
        for _ in range(int(self.rng.integers(0, self.people + 1))):
            episodes.append(self.episode(self.key(), self.day("2014-06-01", 900)))
        for _ in range(int(self.rng.integers(0, self.people + 1))):
            start, end = self.period()
            amounts = {"hours": self.number(-5, 900), "wage": self.number(-5, 9000, 2)}
            jobs.append({"person": self.key(), "start": self.date(start), "end": self.date(end), **amounts})
        tables = {"persons": persons, "benefits": benefits, "episodes": episodes, "jobs": jobs}
        for name, rows in tables.items():
            if rows and self.chance(0.1):  # the same rows again
                rows += [dict(row) for row in rows[: 1 + len(rows) // 10]]
            if rows and self.chance(0.05):  # a column with nothing in it
                column = self.one(*COLUMNS[name])
                for row in rows:
                    row[column] = ""
        return tables

    def episode(self, who: str, start: np.datetime64) -> dict[str, str]:
        end = None if self.chance(0.2) else start + int(self.rng.integers(-3, 200))
        return {
            "person": who,
            "type": self.cell(self.one("scholing", "scholing", "coaching", None)),
            "start": self.date(start),
            "end": self.date(end),
            "planned_end": self.date(start + 100),
            "referral": self.date(start - int(self.rng.integers(-3, 60))),
            "registered": self.date(start + int(self.rng.integers(-3, 60))),
        }

    # -- files -------------------------------------------------------------------------------------------------------

    def write(self, folder: Path) -> Path:
        """Data files and a study file; the study file's path. ``broken`` are damaged tables, ``rows`` those written."""
        (folder / "data").mkdir(parents=True)
        parts = []
        for table, rows in self.tables().items():
            if table == "jobs" and not rows:
                rows = [{"person": "", "start": "", "end": "", "hours": "", "wage": ""}]
            frame = pd.DataFrame(rows, columns=list(COLUMNS[table]), dtype=object).rename(columns=COLUMNS[table])
            self.rows[table] = len(frame)
            kind = self.one(*self.kinds)
            name, more = getattr(self, f"_{kind}")(folder / "data", table, frame)
            mapped = ", ".join(f'{fixed} = "{own}"' for fixed, own in COLUMNS[table].items())
            parts.append(f'[data.{table}]\nfile = "{name}"\n{more}columns = {{ {mapped} }}\n' + CODES.get(table, ""))
        limits = []
        if self.chance(0.3):
            limits.append("age = [20, 60]")
        if self.chance(0.3):
            limits.append("earlier_spells = [0, 0]")
        text = STUDY.format(
            **self.layout, tables="\n".join(parts), limits="\n".join(limits), seed=int(self.rng.integers(1, 99)),
            gap=self.one(0, 1, 2), level=self.one("person", "person", "household"), amounts=self.one("total", "rate"),
            clock=self.one("start", "start", "referral"), within_month=self.one("dates", "start_first", "exit_first"),
            follow_up=self.one("complete", "available"), horizon=self.one(1, 6, 12), elapsed=self.one(0, 5, 5, 11),
            stock=self.one("exclude", "include"), other=self.one("exclude", "include"),
            cluster=self.one("person", "person", "household_id"), missing=self.one("category", "exclude"),
            profile=self.one("open", "municipal", "cbs", "strict"),
        )  # fmt: skip
        (folder / "study.toml").write_text(text, "utf-8")
        return folder / "study.toml"

    def _csv(self, folder: Path, table: str, frame: pd.DataFrame) -> tuple[str, str]:
        delimiter = {"auto": self.one(";", ",", "\t")}.get(self.layout["delimiter"], self.layout["delimiter"])
        out = io.StringIO()
        quoting = self.one(csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        writer = csv.writer(out, delimiter=delimiter, lineterminator=self.one("\n", "\r\n"), quoting=quoting)
        writer.writerow(frame.columns)
        writer.writerows(frame.itertuples(index=False))
        encoding = {"auto": self.one("utf-8", "cp1252", "utf-8-sig")}.get(*[self.layout["encoding"]] * 2)
        data = out.getvalue().encode(encoding, errors="replace" if encoding == "cp1252" else "surrogatepass")
        if self.chance(self.damage):
            self.broken.add(table)
            data = self.damaged(data, delimiter)
        (folder / f"{table}.csv").write_bytes(data)
        return f"{table}.csv", ""

    def damaged(self, data: bytes, delimiter: str) -> bytes:
        """The bytes of a CSV file, spoilt in one of many ways."""
        mark = delimiter.encode()
        lines = data.split(b"\n")
        at = int(self.rng.integers(len(lines)))
        ways: tuple[Callable[[], bytes], ...] = (
            lambda: b"",
            lambda: b"\n \n\n",
            lambda: lines[0],
            lambda: b"\n".join(lines[1:]),
            lambda: data[: int(self.rng.integers(len(data) + 1))],
            lambda: data.decode("utf-8", "replace").encode("utf-16"),
            lambda: data.decode("utf-8", "replace").encode("utf-16-be"),
            lambda: data.replace(mark, self.one(b"|", b",", b";", b"\t", b"")),
            lambda: data.replace(b"\n", b"\r"),
            lambda: data.replace(b"\n", b"\n\n"),
            lambda: b"sep=" + mark + b"\n" + data,
            lambda: b"\n".join([*lines[:at], lines[at] + mark + MARKER.encode(), *lines[at + 1 :]]),
            lambda: b"\n".join(line + mark for line in lines),
            lambda: b"\n".join(line.rsplit(mark, 1)[0] for line in lines),
            lambda: b"\n".join([lines[0].replace(b"e", b"x"), *lines[1:]]),
            lambda: b"\n".join([lines[0] + mark + lines[0].split(mark)[0], *(line + mark for line in lines[1:])]),
            lambda: b"\n".join([*lines[: at + 1], b'"' + MARKER.encode(), *lines[at + 1 :]]),
            lambda: self.flipped(data),
            lambda: data.replace(b"0", b"\x00"),
            lambda: data.replace(b"a", b"\xff"),
            lambda: b"PK\x03\x04" + data,
            lambda: b"\n".join(lines * 2),
            lambda: b"\n".join([*lines[:2]]),
        )
        return ways[int(self.rng.integers(len(ways)))]()

    def flipped(self, data: bytes) -> bytes:
        """A few bytes are others."""
        spoilt = bytearray(data)
        for at in self.rng.integers(len(spoilt), size=5) if spoilt else ():
            spoilt[at] = int(self.rng.integers(256))
        return bytes(spoilt)

    def typed(self, table: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Part of the columns as dates and numbers; what is none becomes empty, or the column stays text."""
        made = frame.copy()
        for fixed, own in COLUMNS[table].items():
            if fixed in DATES and self.chance(0.7):
                pattern = self.layout["date"] if self.layout["date"] != "auto" else "%d-%m-%Y"
                made[own] = pd.to_datetime(made[own], format=pattern, errors="coerce")
            elif fixed in NUMBERS and self.chance(0.7):
                numbers = pd.to_numeric(made[own].str.replace(",", "."), errors="coerce")
                made[own] = numbers.where(numbers.abs() < 1e300)  # the largest that Stata knows
        return made

    def _parquet(self, folder: Path, table: str, frame: pd.DataFrame) -> tuple[str, str]:
        made = pa.Table.from_pandas(self.typed(table, frame), preserve_index=False)
        if self.chance(self.damage):
            self.broken.add(table)
            at = int(self.rng.integers(made.num_columns))
            odd = self.one(
                pa.array([[1]] * len(frame)),
                pa.array([b"\xff"] * len(frame)),
                pa.array([True] * len(frame)),
                pa.array([math.inf] * len(frame)),
                pa.array([2**63] * len(frame), pa.uint64()),
                pa.array([{"a": MARKER}] * len(frame)),
                pa.array([10**12] * len(frame), pa.timestamp("ms", "Europe/Amsterdam")),
                pa.array([1] * len(frame), pa.time32("s")),
                pa.array([1] * len(frame), pa.duration("s")),
                pa.nulls(len(frame)),
                pa.array([MARKER] * len(frame)).dictionary_encode(),
                pa.array([2**62] * len(frame), pa.timestamp("us")),
            )
            made = made.set_column(at, made.column_names[at], odd)
        pq.write_table(made, folder / f"{table}.parquet")
        if self.chance(self.damage / 2):
            data = (folder / f"{table}.parquet").read_bytes()
            (folder / f"{table}.parquet").write_bytes(self.flipped(data))
            self.broken.add(table)
        return f"{table}.parquet", ""

    def _duckdb(self, folder: Path, table: str, frame: pd.DataFrame) -> tuple[str, str]:
        import duckdb

        made = pa.Table.from_pandas(self.typed(table, frame), preserve_index=False)
        with duckdb.connect(str(folder / f"{table}.duckdb")) as connection:
            connection.register("made", made)
            connection.execute("CREATE TABLE kept AS SELECT * FROM made")
        return f"{table}.duckdb", 'table = "kept"\n'

    def _excel(self, folder: Path, table: str, frame: pd.DataFrame) -> tuple[str, str]:
        import openpyxl
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

        book = openpyxl.Workbook()
        sheet = book.active
        sheet.append(list(frame.columns))
        for row in self.typed(table, frame).astype(object).itertuples(index=False):
            sheet.append([None if pd.isna(v) else ILLEGAL_CHARACTERS_RE.sub("", v)[:30_000] if isinstance(v, str) else v
                          for v in row])  # fmt: skip
        book.save(folder / f"{table}.xlsx")
        return f"{table}.xlsx", ""

    def _stata(self, folder: Path, table: str, frame: pd.DataFrame) -> tuple[str, str]:
        import pyreadstat

        made = self.typed(table, frame)
        for column in made.select_dtypes("object"):
            made[column] = made[column].str.replace("\0", "").str.slice(0, 200)
        pyreadstat.write_dta(made, str(folder / f"{table}.dta"))
        return f"{table}.dta", ""

    def _spss(self, folder: Path, table: str, frame: pd.DataFrame) -> tuple[str, str]:
        import pyreadstat

        made = self.typed(table, frame)
        for column in made.select_dtypes("object"):
            made[column] = made[column].str.replace("\0", "").str.slice(0, 200)
        pyreadstat.write_sav(made, str(folder / f"{table}.sav"))
        return f"{table}.sav", ""
