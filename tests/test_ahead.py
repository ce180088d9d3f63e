"""Loading in front of the network."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipeline.ahead import loaded_ahead


class Watch:
    """A loader that knows how many items were started, and how many at once."""

    def __init__(self, delay: Callable[[int], float] = lambda _: 0.0) -> None:
        self.lock = threading.Lock()
        self.delay = delay
        self.started: list[int] = []
        self.at_once = self.most_at_once = 0

    def __call__(self, item: int) -> int:
        with self.lock:
            self.started.append(item)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.delay(item))
        with self.lock:
            self.at_once -= 1
        return -item


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_order_is_kept_whoever_is_faster(threads: int, ahead: int) -> None:
    watch = Watch(lambda item: 0.004 * (item % 3 == 0))
    got = list(loaded_ahead(watch, range(30), pool=threads, ahead=ahead))
    assert got == [-item for item in range(30)]
    assert sorted(watch.started) == list(range(30))


def test_threads_work_at_once() -> None:
    barrier = threading.Barrier(3, timeout=10)
    assert list(loaded_ahead(lambda _: barrier.wait() >= 0, range(9), pool=3)) == [True] * 9


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 4), (4, 4)])
def test_loading_goes_ahead_so_far_and_no_further(threads: int, ahead: int) -> None:
    watch = Watch()
    for received, _ in enumerate(loaded_ahead(watch, range(15), pool=threads, ahead=ahead), 1):
        expected, patience = min(received + ahead, 15), time.monotonic() + 10
        while len(watch.started) < expected and time.monotonic() < patience:
            time.sleep(0.001)
        time.sleep(0.02)  # in which one too many would start
        assert len(watch.started) == expected
    assert watch.most_at_once <= threads


def test_nothing_is_loaded_before_it_is_wanted() -> None:
    watch = Watch()
    loaded_ahead(watch, range(5))
    assert watch.started == []


def test_no_items() -> None:
    assert list(loaded_ahead(Watch(), [])) == []


def test_fault_surfaces_in_its_place_and_ends_the_loading(tmp_path: Path) -> None:
    for number in (0, 1, 3, 4, 5, 6, 7, 8, 9):
        Image.new("RGB", (2, 2)).save(tmp_path / f"{number}.png")
    opened = []

    def load(number: int) -> tuple[int, int]:
        opened.append(number)
        with Image.open(tmp_path / f"{number}.png") as image:
            return image.size

    loading = loaded_ahead(load, range(10), pool=1, ahead=2)
    assert [next(loading), next(loading)] == [(2, 2), (2, 2)]
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        next(loading)
    assert list(loading) == []
    assert max(opened) <= 4


def test_stopping_early_stops_the_loading() -> None:
    started, release, before = [], threading.Event(), threading.active_count()

    def load(item: int) -> None:
        started.append(item)
        if item > 0:
            release.wait()

    loading = loaded_ahead(load, range(100), pool=2, ahead=10)
    next(loading)
    threading.Timer(0.5, release.set).start()
    loading.close()
    assert len(started) <= 3
    assert threading.active_count() <= before + 1
