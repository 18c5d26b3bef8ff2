"""Ways to spoil the register of the example, each a function that changes its frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from checks_example import CLEAN, Frames


def first_rows(table: str, share: float, **columns: Any) -> Callable[[Frames], None]:
    """The first part of a table gets new values; a function makes them from the old rows."""

    def change(frames: Frames) -> None:
        frame = frames[table]
        at = frame.index[: round(share * len(frame))]
        for column, value in columns.items():
            frame.loc[at, column] = value(frame.loc[at]) if callable(value) else value

    return change


def month_of(column: str) -> Callable[[pd.DataFrame], Any]:
    return lambda rows: rows[column].dt.to_period("M").dt.start_time


def end_of(column: str) -> Callable[[pd.DataFrame], Any]:
    return lambda rows: rows[column].dt.to_period("M").dt.end_time.dt.normalize()


def entry_of(rows: pd.DataFrame) -> Any:
    """The first day on benefit."""
    return CLEAN["benefits"].set_index("person").loc[rows["person"], "start"].to_numpy()


def exit_of(rows: pd.DataFrame) -> Any:
    """The last day on benefit."""
    return CLEAN["benefits"].set_index("person").loc[rows["person"], "end"].to_numpy()


def last_days(share: float) -> Callable[[Frames], None]:
    """Part of the episodes begin on the last day of a benefit that ends within the window."""

    def change(frames: Frames) -> None:
        rows = frames["episodes"]
        at = rows.index[pd.Series(exit_of(rows)).notna()][: round(share * len(rows))]
        rows.loc[at, "start"] = exit_of(rows.loc[at])
        rows.loc[at, ["end", "planned_end"]] = pd.NaT

    return change


def without(table: str, column: str, first: str, last: str, every: int = 1) -> Callable[[Frames], None]:
    """Rows whose day lies in a period go; all of them, or all but one in ``every``."""

    def change(frames: Frames) -> None:
        frame = frames[table]
        inside = frame[column].between(first, last)
        keep = ~inside | (inside.cumsum() % every == 0) if every > 1 else ~inside
        frames[table] = frame[keep].reset_index(drop=True)

    return change


def starters(frames: Frames) -> pd.Series:
    training = frames["episodes"]
    return frames["benefits"]["person"].isin(training.loc[training["type"] == "training", "person"])


def repeat(table: str, column: str, first: str, last: str) -> Callable[[Frames], None]:
    """What happens in a period happens four times, to persons of their own."""

    def change(frames: Frames) -> None:
        frame = frames[table]
        wanted = frame[frame[column].between(first, last)]
        for k in range(3):
            names = wanted["person"] + f"x{k}"
            people = frames["persons"].set_index("person").loc[wanted["person"]].reset_index()
            spells = frames["benefits"].set_index("person").loc[wanted["person"]].reset_index()
            frames["persons"] = pd.concat([frames["persons"], people.assign(person=names.values)])
            if table != "benefits":
                frames["benefits"] = pd.concat([frames["benefits"], spells.assign(person=names.values)])
            frames[table] = pd.concat([frames[table], wanted.assign(person=names)])
        for name in ("persons", "benefits", table):
            frames[name] = frames[name].reset_index(drop=True)

    return change


def reasons(share: float, arm: bool | None = None, value: Any = None) -> Callable[[Frames], None]:
    """Part of the reasons become another value, those of one arm or of all."""

    def change(frames: Frames) -> None:
        rows = frames["benefits"]
        chosen = rows["end"].notna() if arm is None else rows["end"].notna() & (starters(frames) == arm)
        at = rows.index[chosen]
        rows.loc[at[: round(share * len(at))], "reason"] = value

    return change


def scattered(value: str) -> Callable[[Frames], None]:
    """One reason in five becomes another value, in both arms alike."""

    def change(frames: Frames) -> None:
        rows = frames["benefits"]
        for arm in (True, False):
            at = rows.index[rows["end"].notna() & (starters(frames) == arm)]
            rows.loc[at[::5], "reason"] = value

    return change


def recode(first: str, last: str, old: tuple[str, ...], new: str) -> Callable[[Frames], None]:
    """Reasons of spells that end in a period become another."""

    def change(frames: Frames) -> None:
        rows = frames["benefits"]
        rows.loc[rows["end"].between(first, last) & rows["reason"].isin(old), "reason"] = new

    return change


def peak_of_births(number: int) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        frames["persons"].loc[frames["persons"].index[:number], "birth_year"] = 1971

    return change


def zeros(width: int) -> Callable[[Frames], None]:
    """Keys become numbers of eight digits with zeros in front, the first of another width."""

    def change(frames: Frames) -> None:
        for frame in frames.values():
            frame["person"] = "000" + frame["person"].str[1:] + "5"
            frame["person"] = frame["person"].replace("000" + CLEAN["persons"]["person"][1][1:] + "5", "9" * width)

    return change


def nothing(frames: Frames) -> None:
    """The clean register."""


def both(*changes: Callable[[Frames], None]) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        for one in changes:
            one(frames)

    return change


def shift_starts(frames: Frames) -> None:
    """Realised ends become the planned ones."""
    frames["episodes"]["planned_end"] = frames["episodes"]["end"]


def no_starter_leaves_for(reason: str) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        rows = frames["benefits"]
        rows.loc[starters(frames) & (rows["reason"] == reason), "reason"] = "other"

    return change


def only_arm(arm: bool) -> Callable[[Frames], None]:
    """Jobs of one arm only."""

    def change(frames: Frames) -> None:
        people = set(frames["benefits"].loc[starters(frames) == arm, "person"])
        frames["jobs"] = frames["jobs"][frames["jobs"]["person"].isin(people)].reset_index(drop=True)

    return change
