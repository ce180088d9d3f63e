"""Trials by other processes, or by a cluster's workers: each reads the features itself."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from cache.errors import StoreError
from cache.store import FeatureStore, open_store
from pipeline.fetch import anywhere
from pipeline.head import Watch, unwatched
from pipeline.selection import Data, Job, Outcome, RunTrials, in_turn, trial
from stages.rows import training_data
from stages.workers import each, elsewhere


def by_workers(store: FeatureStore, layers: Sequence[str], views: int) -> RunTrials:
    """A way to run trials on the training rows of a store, by whoever FC7CACHE_WORKERS names."""
    source = anywhere(store.address), store.attrs["digest"], tuple(layers), views

    def run(jobs: Sequence[Job], data: Data, watch: Watch) -> Iterator[list[Outcome]]:
        if not elsewhere():
            return in_turn(jobs, data, watch)
        return each(trial_there, [(*source, job) for job in jobs], ordered=True)

    return run


def trial_there(
    address: str, digest: str, layers: tuple[str, ...], views: int, job: Job
) -> list[Outcome]:
    """The worker's side: a trial on features that are read from the store once.

    Of a head that streams they are read in every epoch.

    Raises:
        StoreError: The store there is not the one that was meant.
    """
    streams = job.heads[0].streams  # as all of a job's
    return trial(job, _data(address, digest, layers, views, streams), unwatched)


@lru_cache(maxsize=1)
def _data(address: str, digest: str, layers: tuple[str, ...], views: int, on_disk: bool) -> Data:
    store = open_store(address)
    if store.attrs["digest"] != digest:
        raise StoreError(f"{address}: a worker found another store here than was asked for")
    return training_data(store, layers, views, on_disk=on_disk)[1]
