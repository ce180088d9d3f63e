"""Work given to a Dask cluster. It needs the extra ``cluster``, imported when it is asked for.

Not by way of joblib's backend for Dask: of a cluster that has one thread in all it makes no use,
and it sends large arguments to one worker alone, with which they are lost.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from importlib.util import find_spec
from typing import Any, TypeVar

from pipeline.errors import InputError

_WAIT_SCHEDULER_S, _WAIT_WORKER_S = 10, 60

T = TypeVar("T")


def on_cluster(
    scheduler: str, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, ordered: bool
) -> Iterator[T]:
    """What a function gives for each task, as soon as it is known.

    A task whose worker is killed is given to another one.

    Args:
        scheduler: Its address.
        function: Importable where the workers are.
        tasks: Its arguments.
        ordered: In the order of the tasks, or of their completion.

    Raises:
        InputError: Dask is not installed; a cluster that does not answer; one without workers, or
            without this project; workers that were killed again and again.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed.comm.core import CommClosedError
    except ImportError as error:
        raise InputError(f"{scheduler} asks for Dask: pip install 'fc7cache[cluster]'") from error
    # It logs what becomes of connections, with tracebacks; what that means is said below.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        asyncio.run(_knock(scheduler))
        client = Client(scheduler, timeout=_WAIT_SCHEDULER_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # of TLS without certificates
        reason = str(error) or f"none within {_WAIT_SCHEDULER_S} s"
        raise InputError(
            f"no Dask scheduler answers at {scheduler} ({reason}); start one with "
            "`dask scheduler`, or unset FC7CACHE_WORKERS"
        ) from error
    with client:
        _see_that_all_can(client, scheduler)
        try:
            yield from _results(client, scheduler, function, tasks, ordered)
        except KilledWorker as error:
            raise InputError(
                f"workers of the cluster were killed again and again ({error.last_worker.address} "
                "was the last; is there too little memory?); what they had finished is kept: "
                "run again"
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise InputError(
                f"the Dask scheduler at {scheduler} went away; what its workers had finished is "
                "kept: run again"
            ) from error


async def _knock(scheduler: str) -> None:
    """See that a scheduler answers: a client would wait for ever for its first words."""
    from distributed import Security
    from distributed.comm.core import connect

    known = Security().get_connection_args("client")  # type: ignore[no-untyped-call]
    connected = connect(scheduler, timeout=_WAIT_SCHEDULER_S / 2, **known)  # type: ignore[no-untyped-call]
    (await asyncio.wait_for(connected, _WAIT_SCHEDULER_S)).abort()


def _see_that_all_can(client: Any, scheduler: str) -> None:
    """Ask for the project first: without it, a worker would say nothing, a scheduler too much."""
    try:
        client.wait_for_workers(1, timeout=_WAIT_WORKER_S)
    except TimeoutError as error:
        raise InputError(
            f"the Dask scheduler at {scheduler} has no workers; start some with "
            f"`dask worker {scheduler} --nthreads 1`, in this environment"
        ) from error
    limit = {"callback_timeout": _WAIT_WORKER_S}
    try:
        have = [
            client.sync(client.run_on_scheduler, find_spec, __package__, **limit),
            *client.sync(client.run, find_spec, __package__, on_error="ignore", **limit).values(),
        ]
    except (OSError, TimeoutError) as error:
        raise InputError(
            f"a worker of the Dask scheduler at {scheduler} does not answer within "
            f"{_WAIT_WORKER_S} s; stop it, and run again"
        ) from error
    if not all(have):
        raise InputError(
            f"the scheduler at {scheduler} and every worker need this project installed, and "
            f"{have.count(None)} of {len(have)} have not"
        )


def _results(
    client: Any,
    scheduler: str,
    function: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    ordered: bool,
) -> Iterator[T]:
    from distributed import wait

    started = [client.submit(function, *task, pure=False) for task in tasks]
    while started:
        looked_at = started[:1] if ordered else started
        try:
            found = wait(looked_at, _WAIT_WORKER_S, return_when="FIRST_COMPLETED").done  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            if client.scheduler_info()["workers"]:
                continue  # at work on something long
            raise InputError(
                f"the Dask scheduler at {scheduler} has no workers any more; what they had "
                "finished is kept: start some, and run again"
            ) from error
        for future in found:
            try:
                result = future.result(_WAIT_WORKER_S)
            except TimeoutError:
                if future.done():
                    raise  # the task's own
                continue  # lost with its worker, and on its way to be made anew
            started.remove(future)
            yield result
