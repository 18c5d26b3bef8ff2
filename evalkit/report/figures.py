"""Figures as PNG bytes from plain numbers: the only place where anything is drawn.

Figures know no document and no method. The same numbers give the same bytes: no global plotting state, bundled
font, no metadata. Colours are told apart by colour-blind readers and in grey, and every line is named beside it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evalkit.text import number

WIDTH, HEIGHT, DPI = 7.2, 3.9, 144
BLUE, GREY, ORANGE, GREEN, PURPLE = "#0b5fa5", "#6b7480", "#c8560b", "#12805c", "#8a4f9e"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, GREY)
INK, SOFT, RULE = "#1d2530", "#566170", "#dfe3e8"
LOSS = "#f0a35e"

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "text.parse_math": False,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Track:
    """A line with its uncertainty; missing points are None. ``low``/``high`` by point, ``band_*`` for all at once."""

    label: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    band_low: tuple[float | None, ...] = ()
    band_high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Axis:
    """Words and language of the axes; ``percent`` puts a percent sign on the y ticks."""

    lang: str
    x: str
    y: str
    percent: bool = False


def _floats(values: Sequence[Any]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _ticks(lang: str, percent: bool = False) -> Callable[[float, int], str]:
    def label(value: float, _: int) -> str:
        decimals = 0 if abs(value - round(value)) < 1e-9 else 1 if abs(10 * value - round(10 * value)) < 1e-9 else 2
        sign = ("\u00a0%" if lang == "nl" else "%") if percent else ""
        return number(value, lang, decimals) + sign

    return label


def _frame(axes: Axes, axis: Axis, names: bool = True) -> None:
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_ticks(axis.lang, axis.percent)))
    axes.xaxis.set_major_formatter(FuncFormatter(_ticks(axis.lang)))
    if names:
        axes.set_xlabel(axis.x)
        axes.set_title(axis.y, loc="left", fontsize=9.0, color=SOFT, pad=8)


def _months(axes: Axes, last: float, step: int = 6, first: float = 0.0) -> None:
    step = step if last - first > step else 1
    begin = -int(-first // step) * step
    axes.set_xticks([month for month in range(begin, int(last) + 1, step)])
    axes.set_xlim(first, last)


def _save(draw: Callable[[Figure], None], height: float = HEIGHT) -> bytes:
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
        FigureCanvasAgg(figure)
        draw(figure)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()


def _name_ends(axes: Axes, names: Sequence[tuple[str, float, float, str]]) -> None:
    """Names (text, x, y, colour) right of the lines' ends, moved apart where they would touch."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.075
    placed: list[float] = []
    for label, x, y, colour in sorted(names, key=lambda item: item[2]):
        at = max(y, placed[-1] + gap) if placed else y
        placed.append(at)
        axes.annotate(label, (x, at), (6, 0), textcoords="offset points", va="center", color=colour,
                      fontsize=9.0, fontweight="bold", annotation_clip=False)  # fmt: skip


def _last(x: Sequence[float], y: Sequence[float]) -> int:
    return max((i for i, value in enumerate(y) if not math.isnan(value)), default=0)


def _split(track: Track) -> tuple[Track | None, Track]:
    """What lies before the start (x up to 0), and the rest."""
    early = sum(x <= 0 for x in track.x)

    def part(chosen: slice) -> Track:
        names = ("x", "y", "low", "high", "band_low", "band_high")
        return replace(track, **{name: getattr(track, name)[chosen] for name in names})

    return (part(slice(early)) if early else None), part(slice(early, None))


def _track(axes: Axes, track: Track, colour: str) -> None:
    x, y = list(track.x), _floats(track.y)
    if track.band_low:
        axes.fill_between(x, _floats(track.band_low), _floats(track.band_high), color=colour, alpha=0.13, linewidth=0)
    if track.low:
        axes.fill_between(x, _floats(track.low), _floats(track.high), color=colour, alpha=0.22, linewidth=0)
    axes.plot(x, y, color=colour, linewidth=2.2, solid_capstyle="round")


def profile(track: Track, axis: Axis, lock_in: int, sign: float, words: dict[str, str]) -> bytes:
    """The effect by month with interval and band; months 1..``lock_in`` lie in the shaded loss.

    Months up to 0 lie before the start: in grey, left of a dashed line. ``words``: ``interval``, ``band``, ``lock_in``,
    ``better``, ``worse``, ``end`` (the last value in words), ``start``.
    """
    early, later = _split(track)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _frame(axes, axis)
        _track(axes, later, BLUE)
        y = _floats(track.y)
        axes.axhline(0, color=INK, linewidth=1.1)
        if lock_in:
            inside = [i for i, month in enumerate(track.x) if 1 <= month <= lock_in and not math.isnan(y[i])]
            axes.fill_between(
                [track.x[i] for i in inside], [y[i] for i in inside], 0, color=LOSS, alpha=0.6, linewidth=0
            )
        _months(axes, track.x[-1], first=min(0.0, track.x[0]))
        if early is not None:
            _track(axes, early, GREY)
            axes.plot(list(early.x), _floats(early.y), "o", color=GREY, markersize=4.0)
            axes.axvline(0.5, color=SOFT, linewidth=1.0, linestyle=(0, (4, 3)))
        low, high = axes.get_ylim()
        room = 0.12 * (high - low)
        axes.set_ylim(low - room, high + room)
        if early is not None:
            axes.text(0.5, axes.get_ylim()[1], " " + words["start"], color=SOFT, fontsize=8.5, va="top", ha="left")
        low, high = axes.get_ylim()
        top, bottom = ("better", "worse") if sign > 0 else ("worse", "better")
        for word, at, align in ((top, 0.985, "top"), (bottom, 0.015, "bottom")):
            axes.text(
                0.008, at, words[word], transform=axes.transAxes, color=SOFT, fontsize=8.5, va=align, style="italic"
            )
        if lock_in:
            deep = min(inside, key=lambda i: sign * y[i])
            edge = _floats((track.band_low if sign > 0 else track.band_high) or track.y)[deep]
            axes.annotate(words["lock_in"], (track.x[deep], edge), (0, -4 if sign > 0 else 4),
                          textcoords="offset points", color="#8f3d06", fontsize=9.0, fontweight="bold",
                          va="top" if sign > 0 else "bottom", ha="left")  # fmt: skip
        end = _last(track.x, y)
        axes.plot([track.x[end]], [y[end]], "o", color=BLUE, markersize=5.5, clip_on=False)
        _name_ends(axes, [(words["end"], track.x[end], y[end], BLUE)])
        handles = [Patch(color=BLUE, alpha=0.32), Patch(color=BLUE, alpha=0.13)]
        shown = [h for h, given in zip(handles, (track.low, track.band_low), strict=True) if given]
        names = [
            n for n, given in zip((words["interval"], words["band"]), (track.low, track.band_low), strict=True) if given
        ]
        figure.legend(shown, names, loc="outside lower left", ncols=2, frameon=False, fontsize=8.5, labelcolor=SOFT)

    return _save(draw)


def lines(tracks: Sequence[Track], axis: Axis, zero: bool = False, months: bool = True, floor: bool = False) -> bytes:
    """Lines named at their ends; ``zero`` draws the zero line, ``floor`` starts the y axis at zero."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _frame(axes, axis)
        ends = []
        for track, colour in zip(tracks, (BLUE, GREY, ORANGE, GREEN, PURPLE) * len(tracks), strict=False):
            _track(axes, track, colour)
            y = _floats(track.y)
            end = _last(track.x, y)
            if not math.isnan(y[end]):
                ends.append((track.label, track.x[end], y[end], colour))
        if zero:
            axes.axhline(0, color=INK, linewidth=1.1)
        if months:
            first = min(0.0, *(track.x[0] for track in tracks))
            _months(axes, max(track.x[-1] for track in tracks), first=first)
            if first < 0:
                axes.axvline(0.5, color=SOFT, linewidth=1.0, linestyle=(0, (4, 3)))
        if floor:
            axes.set_ylim(bottom=0)
        _name_ends(axes, ends)

    return _save(draw)


def panels(tracks: Sequence[Track], axis: Axis) -> bytes:
    """One small panel a group on common axes, with interval and band."""
    columns = min(3, len(tracks))
    rows = math.ceil(len(tracks) / columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index >= len(tracks):
                axes.set_axis_off()
                continue
            _frame(axes, axis, names=False)
            _track(axes, tracks[index], CYCLE[index % len(CYCLE)])
            axes.axhline(0, color=INK, linewidth=1.0)
            _months(axes, tracks[index].x[-1], 12 if columns > 2 else 6)
            axes.set_title(tracks[index].label, loc="left", fontsize=9.5, fontweight="bold", color=INK)
        figure.supxlabel(axis.x, fontsize=9.0, color=SOFT)
        figure.suptitle(axis.y, x=0.01, ha="left", fontsize=9.0, color=SOFT)

    return _save(draw, 1.2 + 2.3 * rows)


def intervals(labels: Sequence[str], values: Sequence[tuple[Any, Any, Any]], axis: Axis) -> bytes:
    """Point estimates with intervals, one a line from the top; ``values`` are (estimate, low, high)."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1.1)
        for line, (estimate, low, high) in enumerate(values):
            if estimate is None:
                continue
            if low is not None and high is not None:
                axes.plot([low, high], [line, line], color=BLUE, linewidth=3.0, alpha=0.45, solid_capstyle="round")
            axes.plot([estimate], [line], "o", color=BLUE, markersize=8)
            axes.annotate(number(estimate, axis.lang, 0 if abs(estimate) >= 100 else 1, True), (estimate, line), (0, 9),
                          textcoords="offset points", ha="center", color=BLUE, fontweight="bold")  # fmt: skip
        axes.set_yticks(range(len(labels)), labels, color=INK)
        axes.set_ylim(len(labels) - 0.45, -0.65)
        axes.grid(axis="x", color=RULE, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(_ticks(axis.lang)))
        axes.set_xlabel(axis.x)
        axes.margins(x=0.12)

    return _save(draw, 1.25 + 0.55 * len(labels))


def dots(
    labels: Sequence[str], series: Sequence[tuple[str, Sequence[Any]]], axis: Axis, limits: Sequence[float]
) -> bytes:
    """The love plot: a line a variable, a mark a series (hollow for the first), dashed lines at the limits."""
    marks = ((GREY, "o", False), (BLUE, "o", True), (ORANGE, "s", True), (GREEN, "D", True))

    signed = any(value < 0 for _, values in series for value in _floats(values))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1.1)
        for limit, style in zip(limits, ((0, (4, 3)), (0, (1.5, 2))), strict=False):
            for side in (-limit, limit) if signed else (limit,):
                axes.axvline(side, color=SOFT, linewidth=1.0, linestyle=style)
        for (label, values), (colour, mark, full) in zip(series, marks, strict=False):
            axes.plot(_floats(values), range(len(labels)), mark, color=colour, markersize=6.5, linestyle="none",
                      markerfacecolor=colour if full else "white", markeredgewidth=1.6, label=label)  # fmt: skip
        for line in range(len(labels)):
            points = [value for value in (_floats(values)[line] for _, values in series[:2]) if not math.isnan(value)]
            if len(points) == 2:
                axes.plot(points, [line, line], color=RULE, linewidth=1.6, zorder=1)
        axes.set_yticks(range(len(labels)), labels, color=INK)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.grid(axis="y", color=RULE, linewidth=0.6)
        axes.xaxis.set_major_formatter(FuncFormatter(_ticks(axis.lang)))
        axes.set_xlabel(axis.x)
        most = max([abs(v) for _, values in series for v in _floats(values) if not math.isnan(v)], default=0.1)
        reach = max(1.15 * most, 1.25 * max(limits, default=0.1))
        axes.set_xlim(-reach if signed else -0.03 * reach, reach)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)

    return _save(draw, 1.35 + 0.27 * len(labels))


def areas(tracks: Sequence[Track], axis: Axis) -> bytes:
    """Filled curves over each other (overlap of scores); the last is a dashed line."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _frame(axes, axis)
        for index, track in enumerate(tracks):
            x, y, colour = list(track.x), _floats(track.y), CYCLE[(0, 4, 1, 2)[index % 4]]
            if index < 2:
                axes.fill_between(x, y, 0, color=colour, alpha=0.22, linewidth=0)
            axes.plot(x, y, color=colour, linewidth=1.9, linestyle="-" if index < 2 else (0, (4, 2)), label=track.label)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)

    return _save(draw)


def bars(labels: Sequence[str], tracks: Sequence[Track], axis: Axis) -> bytes:
    """Upright bars, grouped when there is more than one series."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _frame(axes, axis)
        width = 0.8 / max(1, len(tracks))
        for index, track in enumerate(tracks):
            at = [i - 0.4 + (index + 0.5) * width for i in range(len(labels))]
            axes.bar(at, _floats(track.y), width=0.92 * width, color=CYCLE[index % len(CYCLE)], label=track.label)
        axes.set_xticks(range(len(labels)), labels)
        axes.axhline(0, color=INK, linewidth=1.0)
        if len(tracks) > 1:
            figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)

    return _save(draw)
