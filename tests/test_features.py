"""Loading in front of the network, and batches of one size."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.features import forward, loaded_ahead


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
    got = list(loaded_ahead(watch, range(30), threads=threads, ahead=ahead))
    assert got == [-item for item in range(30)]
    assert sorted(watch.started) == list(range(30))


def test_threads_work_at_once() -> None:
    barrier = threading.Barrier(3, timeout=10)
    assert list(loaded_ahead(lambda _: barrier.wait() >= 0, range(9), threads=3)) == [True] * 9


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 4), (4, 4)])
def test_loading_goes_ahead_so_far_and_no_further(threads: int, ahead: int) -> None:
    watch = Watch()
    for received, _ in enumerate(loaded_ahead(watch, range(15), threads=threads, ahead=ahead), 1):
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

    loading = loaded_ahead(load, range(10), threads=1, ahead=2)
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

    loading = loaded_ahead(load, range(100), threads=2, ahead=10)
    next(loading)
    threading.Timer(0.5, release.set).start()
    loading.close()
    assert len(started) <= 3
    assert threading.active_count() <= before + 1


class Recorder:
    """Stands for the base: features are the pixels, batches are remembered."""

    def __init__(self) -> None:
        self.batches: list[NDArray[np.uint8]] = []

    def predict_on_batch(self, batch: NDArray[np.uint8]) -> dict[str, Any]:
        self.batches.append(batch)
        pixels = batch.reshape(len(batch), -1).astype(np.float32)
        return {"fc6": pixels, "fc7": -pixels}


def pictures(count: int) -> Iterator[NDArray[np.uint8]]:
    return (np.full((2, 2, 3), 1 + number, np.uint8) for number in range(count))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9])
def test_batches_have_one_size_and_padding_is_cut_off(count: int) -> None:
    base = Recorder()
    blocks = list(forward(base, pictures(count), batch_rows=4))
    assert [len(block["fc6"]) for block in blocks] == [4] * (count // 4) + [count % 4] * (
        count % 4 > 0
    )
    assert {batch.shape for batch in base.batches} <= {(4, 2, 2, 3)}
    assert len(base.batches) == len(blocks)
    for sign, layer in ((1, "fc6"), (-1, "fc7")):
        rows = [row for block in blocks for row in block[layer]]
        assert [list(row) for row in rows] == [[sign * (1 + n)] * 12 for n in range(count)]


def test_forward_takes_no_more_images_than_it_needs() -> None:
    images = pictures(9)
    next(forward(Recorder(), images, batch_rows=4))
    assert len(list(images)) == 5
