"""Results to charts: what stands where. One Chart serves every figure that has two axes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipeline.formats import NARROW_SPACE, number, percent, plain, shorten
from pipeline.results import HeadResult
from pipeline.scores import Share

COLOURS = 6
NARROW, WIDE = 384, 760
# Margins of a chart's axes in pixels of its SVG: left, right, top, bottom.
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 30, 46
LETTER = 7.2
DOTS = 30  # a line of more points goes without
DECADES_FROM = 10  # the ratio of values from which an axis is logarithmic


def colour(k: int) -> str:
    """CSS classes of the k-th head: beyond the colours the same again, hatched."""
    return f"h{k % COLOURS}" + (" alt" if k >= COLOURS else "")


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: What it measures.
        place: A value to its place, 0..1 from the axis's start.
        ticks: Places and their labels.
    """

    title: str
    place: Callable[[Any], float]
    ticks: list[tuple[float, str]]


def linear(
    title: str, values: Sequence[float], step: float, label: Callable[[float], str] = number
) -> Axis:
    """Axis over values, widened to round ticks at least ``step`` apart; never of length zero."""
    low, high = min(values), max(values)
    rough = max((high - low) / 4, step)
    magnitude = 10.0 ** math.floor(math.log10(rough) + 1e-9)
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    first = min(first, last - 1)

    def place(value: float) -> float:
        return (value / step - first) / (last - first)

    # Rounding undoes 3 * 0.1 = 0.30000000000000004.
    return Axis(
        title, place, [(place(k * step), label(round(k * step, 9))) for k in range(first, last + 1)]
    )


def shares(title: str, values: Sequence[float], step: float = 0.01) -> Axis:
    """Axis of shares, labelled in per cent."""
    return linear(title, values or [0.0, 1.0], step, lambda v: f"{100 * v:.6g}{NARROW_SPACE}%")


def categories(title: str, names: Sequence[object], length: float = NARROW) -> Axis:
    """Axis of names in their order, spread evenly."""
    places = {plain(name): (k + 0.5) / len(names) for k, name in enumerate(names)}
    letters = max(6, int(length / LETTER / max(len(names), 1)))
    ticks = [(place, shorten(name, letters)) for name, place in places.items()]
    return Axis(title, lambda value: places[plain(value)], _thin(ticks, length))


def fitting(title: str, values: Sequence[Any], length: float = NARROW) -> Axis:
    """The axis that suits the values: names, numbers, or numbers on a logarithmic scale."""
    unique = list({plain(value): value for value in values}.values())
    numbers = [v for v in unique if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(unique) or not all(map(math.isfinite, numbers)):
        return categories(title, unique, length)
    low, high = min(unique), max(unique)
    logarithmic = low > 0 and high / low >= DECADES_FROM
    if not logarithmic and len(unique) > 8:
        return linear(title, unique, 1 if all(isinstance(v, int) for v in unique) else 1e-9)
    scale: Callable[[float], float] = math.log if logarithmic else float
    # Half a decade beside a value that stands alone, a twentieth of the axis beside others.
    margin = (scale(high) - scale(low)) / 20 or 0.5
    start, span = scale(low) - margin, scale(high) - scale(low) + 2 * margin

    def place(value: float) -> float:
        return (scale(value) - start) / span

    at = sorted(unique)
    if len(unique) > 8:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        at = [10.0**k for k in decades if 0 <= place(10.0**k) <= 1]
    title += ", logarithmic" if logarithmic else ""
    return Axis(title, place, _thin([(place(v), number(v)) for v in at], length))


def _thin(ticks: list[tuple[float, str]], length: float) -> list[tuple[float, str]]:
    """Without the ticks whose labels would touch the one before."""
    kept: list[tuple[float, str]] = []
    for place, label in ticks:
        if kept:
            room = (place - kept[-1][0]) * length / LETTER
            if room < (len(kept[-1][1]) + len(label)) / 2 + 1:
                continue
        kept.append((place, label))
    return kept


@dataclass(frozen=True)
class Point:
    """One value, with what hovering tells, its interval, and its radius; ringed if chosen."""

    x: Any
    y: float
    title: str = ""
    low: float | None = None
    high: float | None = None
    radius: float = 3
    chosen: bool = False


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        style: CSS classes.
        points: By rising x.
        line: Whether to join them.
        dots: Whether to draw each.
        shift: Pixels to the right, so that intervals of several series stand side by side.
    """

    style: str
    points: list[Point]
    line: bool = True
    dots: bool = True
    shift: float = 0


@dataclass(frozen=True)
class Chart:
    """A figure with two axes."""

    label: str  # for those who cannot see it
    x: Axis
    y: Axis
    series: list[Series]
    width: int = NARROW
    height: int = 262
    diagonal: bool = False  # draw y = x

    @property
    def inner(self) -> tuple[float, float, float, float]:
        """The axes' left, right, top and bottom in pixels."""
        return LEFT, self.width - RIGHT, TOP, self.height - BOTTOM

    def px(self, place: float) -> float:
        """Pixels of a place on the horizontal axis."""
        left, right, _, _ = self.inner
        return left + place * (right - left)

    def py(self, place: float) -> float:
        """Pixels of a place on the vertical axis."""
        _, _, top, bottom = self.inner
        return bottom - place * (bottom - top)


def learning_curves(head: HeadResult, y: Axis) -> list[Chart]:
    """Accuracy and loss against the epoch; empty without a history."""
    if not head.history:
        return []
    series = {
        key: [
            Point(e["epoch"], e[key]) for e in head.history if math.isfinite(e.get(key, math.nan))
        ]
        for key in ("accuracy", "val_accuracy", "loss")
    }
    dots = len(head.history) <= DOTS
    x = linear("epoch", [entry["epoch"] for entry in head.history], 1)
    lines = [Series("dashed", series["accuracy"], dots=False)]
    lines.append(Series("", series["val_accuracy"], dots=dots))
    found = [Chart(f"Accuracy of {head.name} on training and validation by epoch", x, y, lines)]
    if loss := series["loss"]:
        axis = linear("training loss", [0.0, *(p.y for p in loss)], 1e-6)
        line = Series("dashed", loss, dots=False)
        found.append(Chart(f"Training loss of {head.name} by epoch", x, axis, [line], height=170))
    return found


def sweep_charts(head: HeadResult) -> list[Chart]:
    """One chart for each setting of which several values were tried."""
    trials = head.sweep
    keys = list(dict.fromkeys(key for trial in trials for key in trial.settings))
    y = shares("validation accuracy", [trial.accuracy for trial in trials], 0.001)
    found = []
    for key in keys:
        values = [trial.settings.get(key) for trial in trials]
        if len({plain(value) for value in values}) < 2:
            continue
        x = fitting(key, values)
        at = [
            Point(
                value,
                trial.accuracy,
                f"{', '.join(f'{k} {plain(v)}' for k, v in trial.settings.items())}: "
                f"{percent(trial.accuracy)}",
                chosen=trial.chosen,
            )
            for value, trial in sorted(
                zip(values, trials, strict=True),
                key=lambda pair: (x.place(pair[0]), pair[1].accuracy),
            )
        ]
        best = [list(same)[-1] for _, same in groupby(at, key=lambda point: x.place(point.x))]
        lines = [Series("faint", best, dots=False)] if len(best) <= 10 else []
        lines.append(Series("", at, line=False))
        found.append(Chart(f"Validation accuracy of {head.name} by {key}", x, y, lines))
    return found


def compared(
    label: str, x: Axis, y_title: str, heads: Sequence[tuple[str, str, dict[Any, Share]]]
) -> Chart:
    """Shares with their intervals, a series a head.

    Args:
        label: For those who cannot see the chart.
        x: An axis that knows every key.
        y_title: What the shares are.
        heads: Name, colour, and shares by key.
    """
    bounds = [
        b for _, _, found in heads for share in found.values() for b in (share.low, share.high)
    ]
    series = [
        Series(
            style,
            [
                Point(
                    key,
                    share.share,
                    f"{name}, {plain(key)}: {percent(share.share)} "
                    f"({100 * share.low:.2f}–{percent(share.high)}; {share.rows:,} images)",
                    share.low,
                    share.high,
                )
                for key, share in found.items()
            ],
            shift=6 * (k - (len(heads) - 1) / 2),
        )
        for k, (name, style, found) in enumerate(heads)
    ]
    return Chart(label, x, shares(y_title, bounds), series, width=WIDE, height=320)


def by_layers(layers: dict[str, dict[str, HeadResult]]) -> Chart:
    """Test accuracy by what heads read, a series a kind; see `pipeline.results.by_layers`."""
    rows = [
        (kind, colour(k), {_short(name): head.test.top1 for name, head in found.items()})
        for k, (kind, found) in enumerate(layers.items())
    ]
    read = list(dict.fromkeys(name for _, _, found in rows for name in found))
    x = categories("layers", read, WIDE)
    return compared("Test accuracy by the layers that heads read", x, "test accuracy", rows)


def _short(layers: str) -> str:
    """conv2+conv3 to conv2+3: names of several layers must stand side by side."""
    return layers.replace("+conv", "+")


def reliability(head: HeadResult) -> Chart:
    """Accuracy against confidence on test; a dot's area tells how many images it stands for."""
    most = max(part.rows for part in head.test.bins)
    dots = [
        Point(
            part.confidence,
            part.accuracy,
            f"{part.rows:,} images: said {percent(part.confidence, 1)}, "
            f"right {percent(part.accuracy, 1)}",
            radius=2 + 7 * math.sqrt(part.rows / most),
        )
        for part in head.test.bins
    ]
    fifths = [(k / 5, percent(k / 5, 0)) for k in range(6)]
    return Chart(
        f"Accuracy of {head.name} against its confidence on the test images",
        Axis("probability given by the head", float, fifths),
        Axis("share that is right", float, fifths),
        [Series("", dots)],
        height=384,
        diagonal=True,
    )
