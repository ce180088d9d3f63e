"""Loading in front of whoever consumes."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def loaded_ahead(
    load: Callable[[T], R], items: Sequence[T], pool: Executor | int = 2, ahead: int = 128
) -> Iterator[R]:
    """``map(load, items)`` in order, by workers that stay at most ``ahead`` items in front.

    The bound keeps memory flat.

    Args:
        load: What to do with an item.
        items: All of them.
        pool: The workers, shut down at the end; or a number of threads.
        ahead: How far they go.
    """
    with ThreadPoolExecutor(pool) if isinstance(pool, int) else pool as pool:
        waiting = iter(items)
        queue: deque[Future[R]] = deque(pool.submit(load, item) for item in islice(waiting, ahead))
        try:
            while queue:
                result = queue.popleft().result()
                queue.extend(pool.submit(load, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in queue:
                future.cancel()
