"""Who does the work: this process, others on this machine, or the workers of a Dask cluster."""

import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import joblib

from pipeline.backend import chosen
from pipeline.errors import InputError
from stages.cluster import on_cluster

VARIABLE = "FC7CACHE_WORKERS"
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
_edited: list[str] = []  # what was found to differ since, once: modules may have been loaded
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
    where, work = asked_for(), partial(_done, _ENVIRONMENT, function)
    if where.isdigit():
        return _by_processes(int(where), work, tasks, ordered)
    return on_cluster(where, work, tasks, ordered=ordered)


def _done(asked: dict[str, str], function: Callable[..., T], *task: Any) -> T:
    if not _edited:
        now = _environment()
        _edited.extend(f"{k} {now[k]}, not {v}" for k, v in _ENVIRONMENT.items() if now[k] != v)
    differs = [f"{k} {_ENVIRONMENT[k]}, not {v}" for k, v in asked.items() if _ENVIRONMENT[k] != v]
    if faults := _edited or differs:
        raise InputError(
            f"a worker on {platform.node()} has {faults[0]}: start the workers anew, in this "
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
    try:
        yield from parallel(joblib.delayed(function)(*task) for task in tasks)
    except BrokenProcessPool as error:
        raise InputError(
            "a process that works on it was killed (is there too little memory?); what it had "
            "finished is kept: run again"
        ) from error
