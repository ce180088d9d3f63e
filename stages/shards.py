"""The worker's side of ``extract``: some shards, from archives to the store, by one base."""

import platform
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import joblib
import pandas as pd

from cache.fill import fill
from cache.plan import ShardPlan
from cache.store import FeatureStore
from cache.writer import StoreWriter
from pipeline import backend
from pipeline.ahead import loaded_ahead
from pipeline.errors import InputError
from pipeline.eye import Pixels
from pipeline.features import Features
from pipeline.reading import usual_workers, workers
from stages.base import FrozenBase, load_base
from stages.clock import Clock
from stages.params import Params

_GROUP = 16  # images read at a time: handing one over takes as long as reading it


@dataclass(frozen=True)
class Job:
    """What all workers on one store are told.

    Attributes:
        params: Settings, with addresses that mean the same to every worker.
        made_by: What makes the features, as the one who asks believes.
        runtime: Software and device that the store's rows are of.
        store: Address of the unfinished store.
        sources: Addresses of the stores that the plans' copies number.
    """

    params: Params
    made_by: dict[str, Any]
    runtime: dict[str, str]
    store: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Filled:
    """What a worker did.

    Attributes:
        forwarded: Images.
        written: See `cache.writer.StoreWriter.write`.
        seconds: What the time went to.
    """

    forwarded: int
    written: dict[str, str]
    seconds: dict[str, float]


def unwatched(_: int) -> None:
    """Nobody is watching."""


def fill_shards(
    job: Job,
    index: pd.DataFrame,
    plans: Sequence[ShardPlan],
    forwarded: Callable[[int], Any] = unwatched,
) -> Filled:
    """Carry out some plans.

    Args:
        job: What and where.
        index: The images to forward, in the plans' order.
        plans: Whole shards.
        forwarded: Told the number of images of each batch.

    Raises:
        InputError: This worker would make other features than those asked for.
        StoreError: The store cannot be read or written.
    """
    base = base_of(job.params)
    _same(job.made_by | job.runtime, base.made_by() | backend.runtime())
    clock, store = Clock(), StoreWriter(job.store)
    sources = [FeatureStore(address) for address in job.sources]
    # Closed at once if it fails: the readers must not outlive it.
    with clock("fill"), closing(_features(base, index, clock, forwarded)) as new:
        written = fill(store, plans, sources, new)
    clock.add({"writing": store.write_seconds})
    return Filled(len(index), written, dict(clock.seconds))


def base_of(params: Params) -> FrozenBase:
    """The base that params.yaml asks for, loaded once in a process.

    Raises:
        InputError: See `stages.base.load_base`.
    """
    key = joblib.hash((params.prepare, params.base, params.store))
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_base(params)
    return _loaded[key]


_loaded: dict[str, FrozenBase] = {}


def _same(asked: dict[str, Any], ours: dict[str, Any]) -> None:
    for part in sorted(asked.keys() | ours.keys()):
        if asked.get(part) != ours.get(part):
            raise InputError(
                f"a worker on {platform.node()} has {part} {ours.get(part)!r}, others "
                f"{asked.get(part)!r}: rows of one store come from like machines with the same "
                "files; stop the workers that differ"
            )


def _features(
    base: FrozenBase, index: pd.DataFrame, clock: Clock, forwarded: Callable[[int], Any]
) -> Generator[Features]:
    # Not before a first row is wanted; readers start while the network is compiled.
    count = usual_workers()
    with clock("readers"):
        pool, read = workers(base.reader(index), count)
    with clock("starting"):
        base.network.warm_up()
    rows = list(range(len(index)))
    groups = [rows[k : k + _GROUP] for k in range(0, len(rows), _GROUP)]
    ahead = 2 * max(base.network.batch_rows // _GROUP, count)
    loaded = loaded_ahead(read, groups, pool, ahead)

    def images() -> Iterator[list[Pixels]]:
        try:
            for group, seconds in clock.waiting("images", loaded):
                clock.add(seconds)
                yield from group
        except BrokenProcessPool as error:
            raise InputError(
                "a process that reads images was killed (is there too little memory?); run again"
            ) from error

    for block in clock.waiting("blocks", base.forward(images())):
        forwarded(len(next(iter(block.values()))))
        yield block
