"""Two files ready for analysis from the package causaldata: the experiment, and the same trainees beside others.

``experiment.csv``: the National Supported Work experiment, the men of Dehejia and Wahba (1999): drawn in and drawn out.
``observational.csv``: those drawn in beside the comparison group that LaLonde (1986) took from the Current Population
Survey (CPS): people who never had the chance.

Written as Dutch municipalities export: semicolons, a decimal comma, cp1252, a column of pseudonyms with leading zeros.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from causaldata import cps_mixtape, nsw_mixtape

COLUMNS = ["treat", "age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75", "re78"]


def frames() -> dict[str, pd.DataFrame]:
    """The two tables by file name; earnings in dollars, ``u74``/``u75`` = no earnings at all in that year."""
    nsw, cps = _with_ids(nsw_mixtape, "nsw"), _with_ids(cps_mixtape, "cps")
    trainees = nsw[nsw["treat"] == 1]
    return {"experiment.csv": nsw, "observational.csv": pd.concat([trainees, cps], ignore_index=True)}


def _with_ids(source: object, name: str) -> pd.DataFrame:
    frame = source.load_pandas().data[COLUMNS].reset_index(drop=True)  # type: ignore[attr-defined]
    frame.insert(0, "unit", [f"{name}{i:05d}" for i in frame.index])
    for year in ("74", "75"):
        frame[f"u{year}"] = (frame[f"re{year}"] == 0).astype(int)
    for column in ("re74", "re75", "re78"):
        frame[column] = frame[column].astype(float).round(4)
    return frame


def prepare(folder: Path) -> list[Path]:
    """Write both files into ``folder``; the same data give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, frame in frames().items():
        paths.append(folder / name)
        frame.to_csv(paths[-1], sep=";", decimal=",", encoding="cp1252", index=False, lineterminator="\r\n")
    return paths


if __name__ == "__main__":
    for path in prepare(Path(__file__).parent / "data"):
        print(path)
