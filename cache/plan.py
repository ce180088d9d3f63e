"""Which rows must be computed, and where the others can be copied from. Pure."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.spec import Layout

SELF = -1  # the store being filled, as the source of a copy

Key = NDArray[np.uint8]  # (N, 32): sha256 of whatever a row's features are a function of


@dataclass(frozen=True)
class Source:
    """An earlier store of the same fingerprint: its keys, and the rows whose shards are there."""

    keys: Key
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Copy:
    """Take ``source_rows`` of a source as ``rows`` of the store being filled; same length."""

    source: int
    rows: NDArray[np.int64]
    source_rows: NDArray[np.int64]


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be written: the rows to compute, ascending, and the rows to copy."""

    shard: int
    forward: NDArray[np.int64]
    copies: tuple[Copy, ...]


def plan(
    keys: Key, layout: Layout, done: Collection[int], sources: Sequence[Source] = ()
) -> list[ShardPlan]:
    """Plan the missing shards so that no content is computed twice, nor again.

    A row is copied if its content is in a shard already written, in a source, or in an earlier
    row of this plan; shards must therefore be written in the order given.

    Args:
        keys: (N, 32) uint8.
        layout: Of the store being filled.
        done: Shards already written.
        sources: Other stores to copy from, the first that has a row wins.
    """
    home: dict[bytes, tuple[int, int]] = {}
    for shard in done:
        for row in range(*layout.bounds(shard)):
            home.setdefault(keys[row].tobytes(), (SELF, row))
    for number, source in enumerate(sources):
        for row in source.rows.tolist():
            home.setdefault(source.keys[row].tobytes(), (number, row))
    plans = []
    for shard in sorted(set(layout.shards) - set(done)):
        forward, copies = [], defaultdict(list)
        for row in range(*layout.bounds(shard)):
            key = keys[row].tobytes()
            if key in home:
                number, at = home[key]
                copies[number].append((row, at))
            else:
                forward.append(row)
                home[key] = SELF, row
        plans.append(
            ShardPlan(
                shard,
                np.array(forward, np.int64),
                tuple(
                    Copy(number, *np.array(pairs, np.int64).T)
                    for number, pairs in sorted(copies.items())
                ),
            )
        )
    return plans


def rounds(plans: Sequence[ShardPlan], layout: Layout) -> list[list[ShardPlan]]:
    """Plans that can be carried out at the same time, round after round, in any order within one.

    A shard comes after those of the plan that it copies rows from.

    Args:
        plans: What `plan` made.
        layout: Of the store being filled.
    """
    round_of: dict[int, int] = {}
    found: list[list[ShardPlan]] = []
    for todo in plans:  # in the order of shards: what one copies from comes before it
        needed = {
            shard
            for copy in todo.copies
            if copy.source == SELF
            for shard in (copy.source_rows // layout.shard_rows).tolist()
        }
        number = max((round_of[shard] + 1 for shard in needed if shard in round_of), default=0)
        round_of[todo.shard] = number
        if number == len(found):
            found.append([])
        found[number].append(todo)
    return found
