"""Who does the work: this process, others on this machine, or the workers of a Dask cluster."""

import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import joblib

from pipeline.backend import chosen
from pipeline.errors import InputError

VARIABLE = "FC7CACHE_WORKERS"
_WAIT_SCHEDULER_S, _WAIT_WORKER_S = 10, 60
_PACKAGES = ("pipeline", "cache", "stages")
_LIBRARIES = ("keras", "numcodecs", "numpy", "scikit-learn", "scipy", "tensorflow", "zarr")

T = TypeVar("T")


def _environment() -> dict[str, str]:
    root = Path(__file__).parent.parent
    files = sorted(path for name in _PACKAGES for path in (root / name).glob("*.py"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"code": code, "backend": chosen(), **libraries}


# Taken when this is imported: a worker of a cluster may outlive an edit of the files.
_ENVIRONMENT = _environment()
_stale: list[str] = []  # what was found to differ, once: modules may have been loaded since
_one_at_a_time = Lock()  # such a worker may run tasks in threads; Keras' state is the process's


def elsewhere() -> bool:
    """Whether work is to be done in other processes than this one.

    Raises:
        InputError: FC7CACHE_WORKERS is neither a number nor an address.
    """
    return asked_for() != "1"


def each(
    function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, ordered: bool
) -> Iterator[T]:
    """What a function gives for each task, as soon as it is known.

    Workers must have this code and these libraries. A task whose worker is killed is given to
    another one, on a cluster.

    Args:
        function: Importable where the workers are, so not of ``__main__``.
        tasks: Its arguments.
        ordered: In the order of the tasks, or of their completion.

    Raises:
        InputError: A cluster that does not answer, or workers that were killed.
    """
    where = asked_for()
    if where.isdigit():
        return _by_processes(int(where), function, tasks, ordered)
    return _by_cluster(where, function, tasks, ordered)


def _done(asked: dict[str, str], function: Callable[..., T], *task: Any) -> T:
    for ours in (_ENVIRONMENT, _environment()):
        _stale.extend(f"{k} {ours[k]}, not {v}" for k, v in asked.items() if ours[k] != v)
    if _stale:
        raise InputError(
            f"a worker on {platform.node()} has {_stale[0]}: start the workers anew, in this "
            "environment, with this version of the project"
        )
    with _one_at_a_time:
        return function(*task)


def asked_for() -> str:
    """FC7CACHE_WORKERS: a number of processes, "1" for this one, or a scheduler's address.

    Raises:
        InputError: It is neither.
    """
    where = os.environ.get(VARIABLE) or "1"
    if re.fullmatch(r"[1-9]\d*|\w+://.+", where):
        return where
    raise InputError(
        f"{VARIABLE}: expected a number of processes, or the address of a Dask scheduler as "
        f"tcp://HOST:8786, got {where!r}"
    )


def _by_processes(
    count: int, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], ordered: bool
) -> Iterator[T]:
    parallel = joblib.Parallel(
        count,
        return_as="generator" if ordered else "generator_unordered",
        batch_size=1,
    )
    work = joblib.delayed(_done)
    try:
        yield from parallel(work(_ENVIRONMENT, function, *task) for task in tasks)
    except BrokenProcessPool as error:
        raise InputError(
            "a process that works on it was killed (is there too little memory?); what it had "
            "finished is kept: run again"
        ) from error


def _by_cluster(
    scheduler: str, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], ordered: bool
) -> Iterator[T]:
    # Not by joblib's backend for Dask: it computes here, not there, if there is but one worker,
    # and fails if a worker dies after it has done a task and before it was asked for the result.
    try:
        from distributed import Client, KilledWorker, wait
        from distributed.comm.core import CommClosedError
    except ImportError as error:
        raise InputError(
            f"{VARIABLE}: {scheduler} asks for Dask: pip install 'fc7cache[cluster]'"
        ) from error
    try:
        client = Client(scheduler, timeout=_WAIT_SCHEDULER_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{VARIABLE}: no Dask scheduler answers at {scheduler} ({error}); start one with "
            "`dask scheduler`"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WAIT_WORKER_S)
        except TimeoutError as error:
            raise InputError(
                f"{VARIABLE}: the Dask scheduler at {scheduler} has no workers; start some with "
                f"`dask worker {scheduler} --nthreads 1`, in this environment"
            ) from error
        # Asked first: without the code, a worker would say nothing, and a scheduler too much.
        have = [
            client.run_on_scheduler(find_spec, __package__),  # type: ignore[no-untyped-call]
            *client.run(find_spec, __package__).values(),
        ]
        if not all(have):
            raise InputError(
                f"{VARIABLE}: the scheduler and every worker need this project installed, and "
                f"{have.count(None)} of {len(have)} have not"
            )
        started = [
            client.submit(_done, _ENVIRONMENT, function, *task, pure=False) for task in tasks
        ]
        try:
            while started:
                looked_at = started[:1] if ordered else started
                try:
                    found = wait(looked_at, _WAIT_WORKER_S, return_when="FIRST_COMPLETED")  # type: ignore[no-untyped-call]
                except TimeoutError as error:
                    if client.scheduler_info()["workers"]:
                        continue  # at work on something long
                    raise InputError(
                        f"{VARIABLE}: the Dask scheduler at {scheduler} has no workers any more; "
                        "what they had finished is kept: start some, and run again"
                    ) from error
                started = [future for future in started if future not in found.done]
                for future in found.done:
                    yield future.result()
        except KilledWorker as error:
            raise InputError(
                f"workers of the cluster were killed again and again ({error.last_worker.address} "
                "was the last; is there too little memory?); what they had finished is kept: "
                "run again"
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise InputError(
                f"{VARIABLE}: the Dask scheduler at {scheduler} went away; what its workers had "
                "finished is kept: run again"
            ) from error
