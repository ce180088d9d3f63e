"""Reading every byte of a store, and saying what is wrong with it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

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
    store: FeatureStore, expected: Iterable[Columns] = (), progress: Progress = iter
) -> list[Finding]:
    """Check metadata, every checksum, that every row is there and finite, and the columns.

    Args:
        store: Need not be whole; `cache.store.FeatureStore` opens a damaged one.
        expected: Columns as the index has them, in blocks of rows from the first to the last, so
            that the index need not be in memory; those given are compared.
        progress: Wraps the loop over shards.

    Returns:
        What is wrong; empty for a sound store. At most one finding per layer and shard.
    """
    findings = []
    if fault := store.metadata_fault():
        findings.append(Finding(-1, fault))
    columns = {}
    for name in store.columns:
        try:
            columns[name] = store.column(name)
        except DamagedError as error:
            findings.append(Finding(-1, str(error)))
            continue
        if len(columns[name]) != store.layout.rows:
            problem = f"column {name} has {len(columns[name])} rows; expected {store.layout.rows}"
            findings.append(Finding(-1, problem))
    findings += _compared(store, columns, expected)
    del columns
    layers = store.layout.layers
    for layer, shard in progress([(k, s) for k in layers for s in store.layout.shards]):
        if damage := store.shard_fault(layer, shard):
            findings.append(Finding(shard, str(damage)))
    return findings


def _compared(store: FeatureStore, columns: Columns, expected: Iterable[Columns]) -> list[Finding]:
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    absent: set[str] = set()
    rows = 0
    for block in expected:
        absent |= block.keys() - set(store.columns)
        length = len(next(iter(block.values())))
        for name in block.keys() & columns.keys():
            ours, theirs = columns[name][rows : rows + length], block[name]
            if len(ours) < length:
                continue  # told below, or above
            differs = (ours != theirs).reshape(length, -1).any(axis=1)
            if differs.any():
                at = int(differs.argmax())
                where = f"row {rows + at}: {ours[at]}, in the index {theirs[at]}"
                first.setdefault(name, where)
                counts[name] += int(differs.sum())
        rows += length
    findings = [Finding(-1, f"column {name} is not there") for name in sorted(absent)]
    if rows and rows != store.layout.rows:
        return [*findings, Finding(-1, f"{store.layout.rows} rows; the index has {rows}")]
    return findings + [
        Finding(
            -1, f"column {name}: {count} rows differ from the index, the first is {first[name]}"
        )
        for name, count in sorted(counts.items())
    ]


def damaged_shards(findings: Iterable[Finding]) -> list[int]:
    """The shards to compute again."""
    return sorted({finding.shard for finding in findings if finding.shard >= 0})
