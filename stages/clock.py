"""Where time goes: seconds by name."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Adds up seconds.

    Attributes:
        seconds: By name.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what others took."""
        for name, spent in seconds.items():
            self.seconds[name] += spent

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time spent in a block of code."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: time.perf_counter() - start})

    def waiting(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items, adding the time it takes to get them, not what is done with them."""
        source, end = iter(items), object()
        while True:
            with self(name):
                item = next(source, end)
            if item is end:
                return
            yield item  # type: ignore[misc]
