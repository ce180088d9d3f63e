"""Scores to one self-contained HTML page; every figure shown is handed in, none is estimated here.

The page asks nothing of the network: its own Content-Security-Policy forbids scripts and requests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from pipeline.scores import Score

WORST_LISTED = 10
# Where the template's axes begin and end, in pixels of their SVG.
PLOT_X = (18, 242)
CURVE_X = (50, 372)
CURVE_Y = (196, 14)
COLOURS = 6
# Above this, the cells of the matrices name signs by number: the names would be most of the page.
NAMED_CELLS = 3000
NARROW_SPACE = "\u202f"
NO_VALUE = "\u2013"


@dataclass(frozen=True)
class HeadResult:
    """One trained head.

    Attributes:
        name: Shown everywhere, any text.
        kind: What it is, e.g. "softmax".
        features: The cached layer it reads, e.g. "fc7".
        scaling: What was done to the features, e.g. "standardised".
        settings: Hyper-parameters by name.
        chosen: What validation chose, "epoch 17" or "C = 10".
        seconds: Training time in seconds.
        validation: Score on the validation rows.
        test: Score on the test rows.
        history: One entry per epoch (epoch, loss, val_loss, accuracy, val_accuracy) or per C
            (C, accuracy, val_accuracy), shares 0..1; may be empty.
    """

    name: str
    kind: str
    features: str
    scaling: str
    settings: dict[str, object]
    chosen: str
    seconds: float
    validation: Score
    test: Score
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from.

    Attributes:
        facts: Pairs of term and description, in the order shown.
        notice: A warning shown above all numbers; empty for none.
        confidence: Of the intervals.
    """

    facts: list[tuple[str, str]]
    notice: str
    confidence: float = 0.95


@dataclass(frozen=True)
class _Axis:
    """Values from ``low`` to ``high`` onto pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _percent(share: float | None, digits: int = 2) -> str:
    return NO_VALUE if share is None else f"{100 * share:.{digits}f}{NARROW_SPACE}%"


def _duration(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.{1 if seconds >= 1 else 2}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _plain(value: object) -> str:
    return NO_VALUE if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _axis(values: Sequence[float], start: float, end: float, smallest_step: float) -> _Axis:
    """Axis over the values, widened to round ticks; never of length zero."""
    low, high = min(values), max(values)
    rough = max((high - low) / 4, smallest_step)
    magnitude = 10.0 ** math.floor(math.log10(rough) + 1e-9)
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    first = min(first, last - 1)
    return _Axis(first * step, last * step, start, end, [k * step for k in range(first, last + 1)])


def _blocks(families: dict[str, list[int]], n_classes: int) -> list[tuple[str, list[int]]]:
    """Every class once: under the first family that names it, else under a last, unnamed one."""
    left, blocks = set(range(n_classes)), []
    for name, members in families.items():
        mine = [c for c in dict.fromkeys(members) if c in left]
        left.difference_update(mine)
        blocks.append((name, mine))
    blocks.append(("", sorted(left)))
    return [(name, members) for name, members in blocks if members]


def _shade(share: float) -> float:
    # The square root keeps a share of 1 % visible next to one of 100 %, the offset a single image.
    return round(0.14 + 0.86 * math.sqrt(share), 2)


def _cells(counts: NDArray[np.int64]) -> list[list[tuple[int, int, float]]]:
    """Per true class its cells above zero: predicted class, count, share of the true class."""
    return [
        [(int(p), int(row[p]), float(row[p] / row.sum())) for p in np.flatnonzero(row)]
        for row in counts
    ]


def _worst(cells: list[list[tuple[int, int, float]]]) -> list[tuple[int, int, int, float]]:
    """The largest cells off the diagonal: true, predicted, count, share."""
    wrong = [(t, *cell) for t, row in enumerate(cells) for cell in row if cell[0] != t]
    return sorted(wrong, key=lambda cell: (-cell[2], -cell[3], cell[:2]))[:WORST_LISTED]


def _curve(head: HeadResult, y_axis: _Axis) -> dict[str, object] | None:
    """Lines of one head's history in pixels, or None where there is no history."""
    if not head.history:
        return None
    over = "C" if "C" in head.history[0] else "epoch"
    entries = sorted(head.history, key=lambda entry: entry[over])
    values = [entry[over] for entry in entries]
    if over == "C":
        places = [math.log10(value) for value in values]
        margin = 0.5 if places[0] == places[-1] else 0.0
        ticks = places[:: math.ceil(len(places) / 7)]
        axis = _Axis(places[0] - margin, places[-1] + margin, *CURVE_X, ticks)
        labels, choice = [f"{10**tick:.3g}" for tick in ticks], "C = {:g}"
    else:
        places, axis = values, _axis(values, *CURVE_X, smallest_step=1)
        labels, choice = [f"{tick:g}" for tick in axis.ticks], "epoch {:g}"
    x = [axis.at(place) for place in places]
    validation = [(at, y_axis.at(e["val_accuracy"])) for at, e in zip(x, entries, strict=True)]
    return {
        "over": over,
        "ticks": list(zip(map(axis.at, axis.ticks), labels, strict=True)),
        "validation": validation,
        "training": [(at, y_axis.at(e["accuracy"])) for at, e in zip(x, entries, strict=True)],
        "chosen": [
            point
            for point, value in zip(validation, values, strict=True)
            if choice.format(value) == head.chosen
        ],
    }


def _check(heads: list[HeadResult], n_classes: int) -> None:
    if not heads:
        raise ValueError("no heads to report; expected at least one")
    for head in heads:
        for score in (head.validation, head.test):
            if score.confusion.shape != (n_classes, n_classes) or len(score.recall) != n_classes:
                raise ValueError(
                    f"head {head.name!r} has a confusion matrix of shape {score.confusion.shape} "
                    f"and {len(score.recall)} recalls; expected {n_classes} classes"
                )
        if (head.test.confusion.sum(axis=1) != heads[0].test.confusion.sum(axis=1)).any():
            raise ValueError(
                f"heads {heads[0].name!r} and {head.name!r} were scored on different test images"
            )


def render(
    heads: list[HeadResult],
    class_names: list[str],
    families: dict[str, list[int]],
    provenance: Provenance,
) -> str:
    """Lay the results out as one HTML page.

    Args:
        heads: At least one; all scored on the same test images. Colours follow this order.
        class_names: C names, by class number.
        families: Class numbers by family, in the order in which to draw them; classes that no
            family names come last.
        provenance: Facts and warning about the run.

    Returns:
        The page, to be written as UTF-8.

    Raises:
        ValueError: No heads, or scores that do not fit the classes or one another.
    """
    n = len(class_names)
    _check(heads, n)
    blocks = _blocks(families, n)
    order = [c for _, members in blocks for c in members]
    bounds = [
        bound
        for head in heads
        for score in (head.validation, head.test)
        for bound in (score.accuracy_low, score.accuracy_high)
    ]
    shares = [
        entry[key]
        for head in heads
        for entry in head.history
        for key in ("accuracy", "val_accuracy")
    ]
    curve_axis = _axis(shares or [0.0, 1.0], *CURVE_Y, smallest_step=0.01)
    ranking = sorted(range(len(heads)), key=lambda k: -heads[k].test.accuracy)
    ranked = [heads[k] for k in ranking]
    cells = [_cells(head.test.confusion) for head in ranked]
    few = sum(len(row) for rows in cells for row in rows) <= NAMED_CELLS
    worst_recall = {
        c: min((r for head in heads if (r := head.test.recall[c]) is not None), default=math.inf)
        for c in range(n)
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "duration": _duration,
        "plain": _plain,
        "shorten": _shorten,
        "px": lambda value: f"{round(value, 1):g}",
        "shade": _shade,
    }
    return environment.get_template("report.html.j2").render(
        confidence=_percent(provenance.confidence, 0),
        heads=ranked,
        colours=[f"h{k % COLOURS}" + (" alt" if k >= COLOURS else "") for k in ranking],
        names=class_names,
        blocks=blocks,
        order=order,
        position={c: place for place, c in enumerate(order)},
        counts=heads[0].test.confusion.sum(axis=1).tolist(),
        accuracy_axis=_axis(bounds, *PLOT_X, smallest_step=0.001),
        worst=[_worst(rows) for rows in cells],
        cells=cells,
        cell_names=class_names if few else range(n),
        by_recall=sorted(range(n), key=lambda c: (worst_recall[c], c)),
        curve_axis=curve_axis,
        curves=[_curve(head, curve_axis) for head in ranked],
        provenance=provenance,
    )
