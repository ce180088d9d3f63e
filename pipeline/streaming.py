"""Rows that need not fit in memory: read part by part, in an order that a seed gives.

A part is what is read at once: the rows that share a file. N rows, D features, C classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.ahead import loaded_ahead
from pipeline.scaling import Blocks, Floats, Scaling

Places = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Streamed:
    """Scaled features of some rows, (N, D), read and scaled when it is their turn.

    Two parts are in memory: the one in use, and the next one, which a thread reads meanwhile.

    Attributes:
        scaling: Fitted, by the time that `parts` is called.
        blocks: One a layer: (R, D) arrays, or what gives rows when it is indexed by their numbers.
        rows: (N,) their numbers there.
        part: (N,) rows of equal part are read together.
    """

    scaling: Scaling
    blocks: Sequence[Any]
    rows: Places
    part: NDArray[np.int64]

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D); D over all layers."""
        return len(self), sum(block.shape[1] for block in self.blocks)

    def __getitem__(self, places: NDArray[Any]) -> "Streamed":
        """Those at these places, or where it is true, of the N; nothing is read."""
        return replace(self, rows=self.rows[places], part=self.part[places])

    def parts(self, rng: np.random.Generator | None = None) -> Iterator[tuple[Places, Floats]]:
        """Each part once: (n,) places among the N rows, and their (n, D) scaled features.

        Args:
            rng: Draws the order of the parts, then that of the rows within each; None for
                parts and rows as they lie.
        """
        return self._read(self.scaling.transform, rng)

    def stored(self) -> Iterator[Blocks]:
        """Each part once, as stored: (n, D) for each layer."""
        return (blocks for _, blocks in self._read(list, None))

    def _read(
        self, change: Callable[[Blocks], T], rng: np.random.Generator | None
    ) -> Iterator[tuple[Places, T]]:
        order = np.argsort(self.part, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(self.part[order])) + 1)
        if rng is not None:
            parts = [rng.permutation(parts[k]) for k in rng.permutation(len(parts))]

        def load(places: Places) -> tuple[Places, T]:
            return places, change([block[self.rows[places]] for block in self.blocks])

        return loaded_ahead(load, parts, pool=1, ahead=1)


def parts_of(
    x: Floats | Streamed, rng: np.random.Generator | None = None
) -> Iterator[tuple[Places, Floats]]:
    """See `Streamed.parts`; an array is one part."""
    if isinstance(x, Streamed):
        yield from x.parts(rng)
    elif rng is None:
        yield np.arange(len(x)), x
    else:
        places = rng.permutation(len(x))
        yield places, x[places]


def by_parts(function: Callable[[Floats], Floats], x: Floats | Streamed) -> Floats:
    """What a function of rows, (n, D) to (n, C), makes of all of them: (N, C)."""
    if not isinstance(x, Streamed):
        return function(x)
    found = [(places, function(rows)) for places, rows in x.parts()]
    out = np.empty((len(x), found[0][1].shape[1]), np.float32)
    for places, values in found:
        out[places] = values
    return out


def batches(
    x: Floats | Streamed,
    y: NDArray[np.int64],
    batch_rows: int,
    rng: np.random.Generator | None = None,
) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
    """Every row once, in batches of equal size but for the last; parts do not bound them.

    Args:
        x: (N, D) scaled features.
        y: (N,) labels.
        batch_rows: Rows in a batch.
        rng: See `Streamed.parts`.

    Yields:
        (batch_rows, D) features and (batch_rows,) labels.
    """
    pieces: list[tuple[Floats, Places]] = []
    missing = batch_rows
    for places, rows in parts_of(x, rng):
        start = 0
        while start < len(rows):
            piece = slice(start, start + missing)
            pieces.append((rows[piece], places[piece]))
            start += len(pieces[-1][0])
            missing -= len(pieces[-1][0])
            if not missing:
                yield _joined(pieces, y)
                pieces, missing = [], batch_rows
    if pieces:
        yield _joined(pieces, y)


def _joined(
    pieces: Sequence[tuple[Floats, Places]], y: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64]]:
    # Copies, so that a batch that waits does not keep a whole part in memory.
    rows, places = zip(*pieces, strict=True)
    return np.concatenate(rows), y[np.concatenate(places)]


@contextmanager
def own_errors() -> Iterator[Callable[[Iterable[T]], Iterator[T]]]:
    """Let errors of an iterator that TensorFlow consumes come out as they were raised.

    TensorFlow turns them into text in an error of its own.

    Yields:
        What to wrap such an iterator in: a generator, which is what Keras asks for.
    """
    raised: list[Exception] = []

    def wrapped(items: Iterable[T]) -> Iterator[T]:
        try:
            yield from items
        except Exception as error:
            raised.append(error)
            raise

    try:
        yield wrapped
    finally:
        if raised:
            raise raised[0]
