"""Batches of pixels through the frozen base."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
R = TypeVar("R")

# Fixed, never a setting: the floats of a row depend on it (and, measured, on nothing else in the
# batch: neither the row's place nor its neighbours).
BATCH_ROWS = 64


def forward(
    base: Any, images: Iterable[NDArray[np.uint8]], batch_rows: int = BATCH_ROWS
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Push images through the base, each once.

    Args:
        base: The model of `pipeline.alexnet.build`.
        images: (H, W, 3) uint8, RGB, of the base's input size.
        batch_rows: Images in a batch; the last batch is padded to it.

    Yields:
        Per batch, layer name to (n, D) float32, rows in the order of the images; n is
        batch_rows but for the last batch.
    """
    images = iter(images)
    while batch := list(islice(images, batch_rows)):
        padded = np.zeros((batch_rows, *batch[0].shape), np.uint8)
        padded[: len(batch)] = batch
        # predict_on_batch compiles the forward pass once, on every Keras backend.
        outputs = base.predict_on_batch(padded)
        yield {layer: np.asarray(block)[: len(batch)] for layer, block in outputs.items()}


def loaded_ahead(
    load: Callable[[T], R], items: Sequence[T], *, threads: int = 2, ahead: int = 2 * BATCH_ROWS
) -> Iterator[R]:
    """``map(load, items)`` in order, by threads that stay at most ``ahead`` items in front.

    Reading, decoding and resizing release the interpreter lock, so they overlap the network;
    the bound keeps memory flat.
    """
    with ThreadPoolExecutor(threads) as pool:
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
