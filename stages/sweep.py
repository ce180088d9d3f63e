"""Trials by other processes, or by a cluster's workers: each reads the features itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cache.errors import StoreError
from cache.store import FeatureStore, open_store
from pipeline.fetch import anywhere
from pipeline.head import Watch, unwatched
from pipeline.selection import Data, Job, Outcome, RunTrials, in_turn, trial
from stages.rows import training_data
from stages.workers import each, elsewhere


@dataclass(frozen=True)
class Training:
    """What heads are trained on, in words that mean the same to every worker.

    Attributes:
        address: Of the store.
        digest: Its own.
        layers: That the heads read.
        views: Of each image.
        n_classes: C.
    """

    address: str
    digest: str
    layers: tuple[str, ...]
    views: int
    n_classes: int


def by_workers(store: FeatureStore, layers: Sequence[str], views: int) -> RunTrials:
    """A way to run trials on the training rows of a store, by whoever FC7CACHE_WORKERS names."""

    def run(jobs: Sequence[Job], data: Data, watch: Watch) -> Iterator[list[Outcome]]:
        if not elsewhere():
            return in_turn(jobs, data, watch)
        address, digest = anywhere(store.address), store.attrs["digest"]
        training = Training(address, digest, tuple(layers), views, data.n_classes)
        return each(trial_there, [(training, job) for job in jobs], ordered=True)

    return run


def trial_there(training: Training, job: Job) -> list[Outcome]:
    """The worker's side: a trial on features that are read from the store once.

    Of a head that streams they are read in every epoch.

    Raises:
        StoreError: The store there is not the one that was meant.
    """
    return trial(job, _data(training, on_disk=job.heads[0].streams), unwatched)


@lru_cache(maxsize=1)
def _data(training: Training, *, on_disk: bool) -> Data:
    store = open_store(training.address)
    if store.attrs["digest"] != training.digest:
        raise StoreError(f"{store.address}: a worker found another store here than was asked for")
    _, data = training_data(
        store, training.layers, training.views, training.n_classes, on_disk=on_disk
    )
    return data
