"""Reading every byte of a store, and saying what is wrong with it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.errors import DamagedError
from cache.spec import Columns
from cache.store import FeatureStore

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. ``shard`` is -1 where it is not a shard."""

    shard: int
    problem: str


def verify(
    store: FeatureStore, expected: Columns | None = None, progress: Progress = iter
) -> list[Finding]:
    """Check metadata, every checksum, that every row is there and finite, and the columns.

    Args:
        store: Need not be whole; `cache.store.FeatureStore` opens a damaged one.
        expected: Columns as the index has them; those given are compared.
        progress: Wraps the loop over shards.

    Returns:
        What is wrong; empty for a sound store. At most one finding per layer and shard.
    """
    findings = []
    if fault := store.metadata_fault():
        findings.append(Finding(-1, fault))
    for name in sorted(set(expected or ()) - set(store.columns)):
        findings.append(Finding(-1, f"column {name} is not there"))
    for name in store.columns:
        try:
            values = store.column(name)
        except DamagedError as error:
            findings.append(Finding(-1, str(error)))
            continue
        if len(values) != store.layout.rows:
            problem = f"column {name} has {len(values)} rows; expected {store.layout.rows}"
            findings.append(Finding(-1, problem))
        elif expected is not None and name in expected:
            findings += _compared(name, values, expected[name])
    layers = store.layout.layers
    for layer, shard in progress([(k, s) for k in layers for s in store.layout.shards]):
        if damage := store.shard_fault(layer, shard):
            findings.append(Finding(shard, str(damage)))
    return findings


def _compared(name: str, values: np.ndarray, expected: np.ndarray) -> list[Finding]:
    if len(values) != len(expected):
        return [Finding(-1, f"{len(values)} rows; the index has {len(expected)}")]
    differs = (values != expected).reshape(len(values), -1).any(axis=1)
    if not differs.any():
        return []
    row = int(differs.argmax())
    return [
        Finding(
            -1,
            f"column {name}: {differs.sum()} rows differ from the index, the first is row {row}: "
            f"{values[row]}, in the index {expected[row]}",
        )
    ]


def damaged_shards(findings: Iterable[Finding]) -> list[int]:
    """The shards to compute again."""
    return sorted({finding.shard for finding in findings if finding.shard >= 0})
