"""A comparison to one self-contained HTML page; every figure shown is handed in, none estimated.

The page asks nothing of the network: its own Content-Security-Policy forbids every request and
every script but the one it carries, which is named there by its hash.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline import charts
from pipeline.formats import FILTERS, NARROW_SPACE, throughput, time_spent
from pipeline.results import Comparison, HeadResult, Mistake, by_layers
from pipeline.scores import Share
from pipeline.words import Words

TEMPLATES = Path(__file__).parent / "report"
WORST_LISTED = 10
WORST_OF_EACH = 3
PICTURES_A_PAGE = 24
# Above this, the cells of the matrices name classes by number: the names would be most of the page.
NAMED_CELLS = 3000

Cell = tuple[int, int, float]  # predicted class, images, share of the true class
Row = tuple[object, str, int, list[float | None]]  # number, name, images, share by head


def _blocks(families: dict[str, list[int]], n_classes: int) -> list[tuple[str, list[int]]]:
    """Every class once: under the first family that names it, else under a last, unnamed one."""
    left, blocks = set(range(n_classes)), []
    for name, members in families.items():
        mine = [c for c in dict.fromkeys(members) if c in left]
        left.difference_update(mine)
        blocks.append((name, mine))
    blocks.append(("", sorted(left)))
    return [(name, members) for name, members in blocks if members]


def _cells(counts: NDArray[np.int64]) -> list[list[Cell]]:
    """Per true class its cells above zero."""
    return [
        [(int(p), int(row[p]), float(row[p] / row.sum())) for p in np.flatnonzero(row)]
        for row in counts
    ]


def _worst(matrices: Sequence[NDArray[np.int64]], listed: int) -> list[tuple[int, int]]:
    """The largest cells off the diagonal, summed over matrices: true class, predicted class."""
    total = np.sum(matrices, axis=0)
    share = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    wrong = [(int(t), int(p)) for t, p in np.argwhere(total) if t != p]
    return sorted(wrong, key=lambda cell: (-total[cell], -share[cell], cell))[:listed]


def _worst_of_all(matrices: list[NDArray[np.int64]]) -> list[tuple[int, int]]:
    """The confusions to list: the largest over all heads, and none of any one head's missing."""
    wanted = set(_worst(matrices, WORST_LISTED))
    for matrix in matrices:
        wanted.update(_worst([matrix], WORST_OF_EACH))
    return [cell for cell in _worst(matrices, len(matrices[0]) ** 2) if cell in wanted]


def _by_class(heads: list[HeadResult], names: list[str], counts: list[int]) -> list[Row]:
    """Recall of every class, those that any head finds hardest first."""
    rows: list[Row] = [
        (c, name, counts[c], [head.test.recall[c] for head in heads])
        for c, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: min((r for r in row[3] if r is not None), default=2.0))


def _by_group(groups: list[dict[str, Share]]) -> list[Row]:
    """Accuracy by group, in the order in which heads have them."""
    return [
        (
            "",
            name,
            next(shares[name].rows for shares in groups if name in shares),
            [shares[name].share if name in shares else None for shares in groups],
        )
        for name in dict.fromkeys(name for shares in groups for name in shares)
    ]


def _gallery(comparison: Comparison, ranked: list[HeadResult], used: int) -> dict[str, object]:
    """What the page says of single mistakes: the first ones as they stand, all of them as data.

    Args:
        comparison: Has the mistakes and pictures.
        ranked: Heads in the page's order.
        used: Which of them to show first.
    """
    place = {head.name: k for k, head in enumerate(ranked)}
    mistakes = sorted(comparison.mistakes, key=lambda m: -m.probability)
    images = {m: k for k, m in enumerate(dict.fromkeys(m.image_id for m in mistakes))}
    shown = used if any(place[m.head] == used for m in mistakes) else None
    cards: dict[str, list[Mistake]] = {}
    for mistake in mistakes:
        if shown is None or place[mistake.head] == shown:
            cards.setdefault(mistake.image_id, []).append(mistake)
    first = dict(list(cards.items())[:PICTURES_A_PAGE])
    pictures = {image: base64.b64encode(comparison.pictures[image]).decode() for image in images}
    return {
        "shown": shown,
        "cards": [
            (images[image], image, pictures[image], listed) for image, listed in first.items()
        ],
        "count": sum(shown is None or place[m.head] == shown for m in mistakes),
        "first_count": sum(map(len, first.values())),
        "true": sorted({m.label for m in mistakes}),
        "predicted": sorted({m.predicted for m in mistakes}),
        "omitted": [(head.name, n) for head in ranked if (n := comparison.omitted.get(head.name))],
        "data": {
            "heads": [head.name for head in ranked],
            "names": comparison.class_names,
            "one": comparison.provenance.words.one,
            "order": [
                c
                for _, block in _blocks(comparison.families, len(comparison.class_names))
                for c in block
            ],
            "omitted": [comparison.omitted.get(head.name, 0) for head in ranked],
            "page": PICTURES_A_PAGE,
            # A picture that stands in the page already is not carried twice.
            "images": [[image, None if image in first else pictures[image]] for image in images],
            "mistakes": [
                [place[m.head], images[m.image_id], m.label, m.predicted, round(m.probability, 4)]
                for m in mistakes
            ],
        },
    }


def _figures(heads: list[HeadResult], colours: list[str], words: Words) -> dict[str, object]:
    """The charts, by the name under which the template draws them; none for one without data."""
    bounds = [
        bound
        for head in heads
        for score in (head.validation, head.test)
        for bound in (score.accuracy_low, score.accuracy_high)
    ]
    learnt = [
        entry[key]
        for head in heads
        for entry in head.history
        for key in ("accuracy", "val_accuracy")
        if math.isfinite(entry.get(key, math.nan))
    ]
    y = charts.shares("accuracy", learnt)
    sizes = list(dict.fromkeys(size for head in heads for size in head.sizes))
    tracks = sorted({tracks for head in heads for tracks in head.curve})
    leaks = [head.leak for head in heads]
    ways = (f"random {words.frame}s held out", f"whole {words.track}s held out", words.test)

    def compared(label: str, x: charts.Axis, y: str, of: list[dict[Any, Share]]) -> charts.Chart:
        named = [(head.name, style) for head, style in zip(heads, colours, strict=True)]
        rows = [(*who, shares) for who, shares in zip(named, of, strict=True) if shares]
        return charts.compared(label, x, y, rows)

    return {
        "accuracy_axis": charts.shares("accuracy", bounds, 0.001),
        "learning": [charts.learning_curves(head, y) for head in heads],
        "sweeps": [charts.sweep_charts(head) for head in heads],
        "reliability": [charts.reliability(head) for head in heads],
        "sizes": sizes
        and compared(
            "Test accuracy by size of the image",
            charts.categories("size of the image", sizes, charts.WIDE),
            "test accuracy",
            [head.sizes for head in heads],
        ),
        "tracks": tracks,
        "growth": tracks
        and compared(
            f"Validation accuracy by number of training {words.track}s",
            charts.fitting(f"training {words.track}s", tracks, charts.WIDE),
            "validation accuracy",
            [head.curve for head in heads],
        ),
        "leak": any(leaks)
        and compared(
            f"Accuracy on {words.frame}s held out at random, on {words.track}s held out, "
            "and on test",
            charts.categories("", ways, charts.WIDE),
            "accuracy",
            [
                dict(zip(ways, (leak.frames, leak.tracks, leak.test), strict=True)) if leak else {}
                for leak in leaks
            ],
        ),
    }


def _check(comparison: Comparison) -> None:
    heads, n_classes = comparison.heads, len(comparison.class_names)
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
    names = {head.name for head in heads}
    if len(names) < len(heads):
        raise ValueError(f"{len(heads)} heads have {len(names)} names; expected one each")
    for m in comparison.mistakes:
        if m.head not in names or not {m.label, m.predicted} <= set(range(n_classes)):
            raise ValueError(f"mistake {m} names a head or a class that is not compared")
        if m.image_id not in comparison.pictures:
            raise ValueError(f"no picture of {m.image_id!r}; expected one for every mistake")


def render(comparison: Comparison) -> str:
    """Lay a comparison out as one HTML page.

    Args:
        comparison: At least one head; all scored on the same test images. Colours follow the
            order of its heads. Classes that no family names come last.

    Returns:
        The page, to be written as UTF-8.

    Raises:
        ValueError: No heads, or scores or mistakes that do not fit the classes or one another.
    """
    _check(comparison)
    n = len(comparison.class_names)
    ranking = sorted(range(len(comparison.heads)), key=lambda k: -comparison.heads[k].test.accuracy)
    heads = [comparison.heads[k] for k in ranking]
    colours = [charts.colour(k) for k in ranking]
    matrices = [head.test.confusion for head in heads]
    counts = matrices[0].sum(axis=1).tolist()
    blocks = _blocks(comparison.families, n)
    order = [c for _, members in blocks for c in members]
    best = max(range(len(heads)), key=lambda k: (heads[k].validation.accuracy, -ranking[k]))
    cells = [_cells(matrix) for matrix in matrices]
    few = sum(len(row) for rows in cells for row in rows) <= NAMED_CELLS
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= FILTERS
    return environment.get_template("page.html.j2").render(
        provenance=comparison.provenance,
        words=(words := comparison.provenance.words),
        confidence=f"{100 * comparison.provenance.confidence:g}{NARROW_SPACE}%",
        throughput=throughput(comparison.provenance.throughput),
        time_spent=time_spent(comparison.provenance.throughput),
        heads=heads,
        colours=colours,
        ranks=[
            1 + sum(other.test.correct > head.test.correct for other in heads) for head in heads
        ],
        used=best,
        names=comparison.class_names,
        blocks=blocks,
        order=order,
        position={c: place for place, c in enumerate(order)},
        counts=counts,
        cells=cells,
        cell_names=comparison.class_names if few else range(n),
        worst=_worst_of_all(matrices),
        own_worst=[_worst([matrix], 1) for matrix in matrices],
        place={head.name: k for k, head in enumerate(heads)},
        pairs=comparison.pairs,
        duels={(pair.first, pair.second): pair for pair in comparison.pairs},
        by_class=_by_class(heads, comparison.class_names, counts),
        by_family=_by_group([head.families for head in heads]),
        by_size=_by_group([head.sizes for head in heads]),
        layers=(layers := by_layers(comparison.heads)),
        layer_chart=charts.by_layers(layers) if layers else None,
        read=list(dict.fromkeys(name for found in layers.values() for name in found)),
        kind_colours=[charts.colour(k) for k in range(len(layers))],
        gallery=_gallery(comparison, heads, best),
        script=Markup(script),  # noqa: S704 - a file of this package
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),  # noqa: S704
        digest=digest,
        **_figures(heads, colours, words),
    )
