"""One panel ready for analysis from the package causaldata: 50 states, 2000-2010 (Cheng and Hoekstra 2013).

``castle.csv``: one row a state and year. ``log_homicide``: the natural logarithm of homicides per 100,000 inhabitants
times 100, so that a difference of 1 is about one per cent. ``first_law``: the first year with a castle-doctrine law,
empty for never. ``population``: the mean number of inhabitants over these years, the same in all rows of a state.

Written as Dutch municipalities export: semicolons, a decimal comma, cp1252.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from causaldata import castle

NUMBERED_51 = """Alabama Alaska Arizona Arkansas California Colorado Connecticut Delaware District_of_Columbia Florida
Georgia Hawaii Idaho Illinois Indiana Iowa Kansas Kentucky Louisiana Maine Maryland Massachusetts Michigan Minnesota
Mississippi Missouri Montana Nebraska Nevada New_Hampshire New_Jersey New_Mexico New_York North_Carolina North_Dakota
Ohio Oklahoma Oregon Pennsylvania Rhode_Island South_Carolina South_Dakota Tennessee Texas Utah Vermont Virginia
Washington West_Virginia Wisconsin Wyoming""".split()
"""The file numbers states in alphabetical order from 1; number 9, the District of Columbia, is not in it."""


def frame() -> pd.DataFrame:
    """The panel as the study file reads it; ``post`` is 1 from the first year with the law on."""
    data = castle.load_pandas().data
    first = data[data["post"] > 0].groupby("sid")["year"].min()
    return pd.DataFrame(
        {
            "state": [NUMBERED_51[int(sid) - 1].replace("_", " ") for sid in data["sid"]],
            "year": data["year"].astype(int),
            "log_homicide": (100 * data["l_homicide"].astype(float)).round(5),
            "post": data["post"].astype(int),
            "first_law": data["sid"].map(first).astype("Int64"),
            "population": data["popwt"].astype(float).round().astype(int),
        }
    )


def prepare(folder: Path) -> Path:
    """Write the file into ``folder``; the same data give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "castle.csv"
    frame().to_csv(path, sep=";", decimal=",", encoding="cp1252", index=False, lineterminator="\r\n")
    return path


if __name__ == "__main__":
    print(prepare(Path(__file__).parent / "data"))
