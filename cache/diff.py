"""Two stores, row by row, by image id."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.store import Block, FeatureStore


@dataclass(frozen=True)
class LayerDifference:
    """How far one layer's rows lie apart.

    A row's error is |a - b| / |a| in the Euclidean norm; 0 where both are zero.
    """

    rows: int
    identical: int
    beyond: int  # rows whose error is above the tolerance
    largest: float
    largest_at: str  # image id
    largest_absolute: float  # of any single feature


@dataclass(frozen=True)
class Difference:
    """What is in one store only, what made them apart, and how the shared rows differ."""

    only_a: list[str]
    only_b: list[str]
    layers_only_a: list[str]
    layers_only_b: list[str]
    made_by: dict[str, tuple[object, object]]
    columns: dict[str, int]  # column to rows that differ
    layers: dict[str, LayerDifference]

    @property
    def found(self) -> bool:
        """Whether the stores differ in rows, layers, columns, or features beyond the tolerance."""
        return bool(
            self.only_a
            or self.only_b
            or self.layers_only_a
            or self.layers_only_b
            or self.columns
            or any(layer.beyond for layer in self.layers.values())
        )


def diff(a: FeatureStore, b: FeatureStore, rtol: float) -> Difference:
    """Compare two stores, whatever the order of their rows and the size of their shards.

    Columns are compared where both stores have them.

    Args:
        a: The reference.
        b: The other.
        rtol: The largest relative error of a row that counts as equal; 0 for bit by bit.
    """
    ids_a, ids_b = a.column("image_id"), b.column("image_id")
    row_of_b = {name: row for row, name in enumerate(ids_b.tolist())}
    pairs = [(row, row_of_b[name]) for row, name in enumerate(ids_a.tolist()) if name in row_of_b]
    rows_a, rows_b = np.array(pairs, np.int64).reshape(-1, 2).T
    columns = {}
    for name in sorted(set(a.columns) & set(b.columns)):
        differs = a.column(name)[rows_a] != b.column(name)[rows_b]
        if count := int(differs.any(axis=tuple(range(1, differs.ndim))).sum()):
            columns[name] = count
    parts = sorted(a.made_by.keys() | b.made_by.keys())
    layers_a, layers_b = a.layout.layers.items(), b.layout.layers.items()
    return Difference(
        only_a=sorted(set(ids_a.tolist()) - set(ids_b.tolist())),
        only_b=sorted(set(ids_b.tolist()) - set(ids_a.tolist())),
        layers_only_a=sorted(layer for layer, _ in layers_a - layers_b),
        layers_only_b=sorted(layer for layer, _ in layers_b - layers_a),
        made_by={
            part: (a.made_by.get(part), b.made_by.get(part))
            for part in parts
            if a.made_by.get(part) != b.made_by.get(part)
        },
        columns=columns,
        layers={
            layer: _difference(
                ids_a[rows_a], _blocks(a, b, layer, rows_a, rows_b), rtol if rtol > 0 else 0.0
            )
            for layer, width in layers_a
            if (layer, width) in layers_b
        },
    )


def _blocks(
    a: FeatureStore,
    b: FeatureStore,
    layer: str,
    rows_a: NDArray[np.int64],
    rows_b: NDArray[np.int64],
) -> Iterator[tuple[Block, Block]]:
    for start in range(0, len(rows_a), a.layout.shard_rows):
        part = slice(start, start + a.layout.shard_rows)
        yield a.features(layer, rows_a[part]), b.features(layer, rows_b[part])


def relative_errors(a: Block, b: Block) -> NDArray[np.float64]:
    """(N,) |a - b| / |a| of each row; 0 where the rows are equal."""
    apart = np.linalg.norm(a.astype(np.float64) - b, axis=1)
    length = np.linalg.norm(a.astype(np.float64), axis=1)
    errors: NDArray[np.float64] = np.where(apart > 0, np.inf, 0.0)
    np.divide(apart, length, out=errors, where=length > 0)
    return errors


def _difference(
    ids: NDArray[np.str_], blocks: Iterator[tuple[Block, Block]], rtol: float
) -> LayerDifference:
    errors, identical, absolute = [np.empty(0)], 0, 0.0
    for left, right in blocks:
        errors.append(relative_errors(left, right))
        identical += int((left == right).all(axis=1).sum())
        absolute = max(absolute, float(np.abs(left.astype(np.float64) - right).max()))
    error = np.concatenate(errors)
    worst = int(error.argmax()) if len(error) else -1
    return LayerDifference(
        rows=len(error),
        identical=identical,
        beyond=int((error > rtol).sum()),
        largest=float(error[worst]) if len(error) else 0.0,
        largest_at=str(ids[worst]) if len(error) else "",
        largest_absolute=absolute,
    )
