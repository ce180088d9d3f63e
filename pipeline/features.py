"""Batches of pixels through the frozen base."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import backend
from pipeline.enlarge import enlarged, packed

Pixels = NDArray[np.uint8]
Features = dict[str, NDArray[np.float32]]  # layer to (n, D)

CPU_BATCH_ROWS = 64
ACCELERATOR_BATCH_ROWS = 1024
_IN_FLIGHT = 2  # batches: while one is computed, the next is sent and the last one fetched


class Network:
    """The base, compiled for batches of one size.

    Attributes:
        batch_rows: Images in a batch. Fixed for a kind of device, never a setting: the floats of
            a row depend on it (and, measured, on nothing else in the batch: neither the row's
            place nor its neighbours).
        run: A batch (batch_rows, H, W, 3) uint8, on the host or the device, to layer to
            (batch_rows, D) on the device.
    """

    def __init__(self, base: Any, batch_rows: int | None = None) -> None:
        """Compile the model of `pipeline.alexnet.build`."""
        self.input_px: int = base.input_shape[1]
        usual = ACCELERATOR_BATCH_ROWS if backend.accelerated() else CPU_BATCH_ROWS
        self.batch_rows = batch_rows or usual
        self.run = backend.compiled_model(base)
        # Fused, since TensorFlow would compute integers on the host, one step after the other.
        fused = backend.fused(partial(enlarged, out_px=self.input_px))
        self._enlarge = backend.compiled(fused)
        self._warm = False

    def warm_up(self) -> None:
        """Have the network compiled before the time counts, if it is not yet."""
        if not self._warm:
            blank = np.zeros((self.input_px, self.input_px, 3), np.uint8)
            next(forward(self, [[blank]]))
            self._warm = True

    def start(self, images: Sequence[Pixels]) -> Any:
        """Begin on a batch; an accelerator is not waited for.

        Args:
            images: At most batch_rows of (h, w, 3) uint8, RGB: all of the base's input size, or
                of any sizes up to it, which are enlarged on the device as Pillow would.

        Returns:
            Layer to (batch_rows, D) on the device.
        """
        missing = self.batch_rows - len(images)
        if all(image.shape[0] == image.shape[1] == self.input_px for image in images):
            batch = np.zeros((self.batch_rows, *images[0].shape), np.uint8)
            batch[: len(images)] = images
        else:
            blank = [np.zeros((1, 1, 3), np.uint8)] * missing
            batch = self._enlarge(*packed([*images, *blank]))
        return self.run(batch)


def forward(network: Network, images: Iterable[Sequence[Pixels]]) -> Iterator[list[Features]]:
    """Push images through the base, each view of them once.

    Args:
        network: The base.
        images: Of each image its views, as `Network.start` takes them.

    Yields:
        Per batch and view, layer to (n, D) float32, rows in the order of the images; n is
        batch_rows but for the last batch.
    """
    images = iter(images)
    started: deque[tuple[int, list[Any]]] = deque()
    while batch := list(islice(images, network.batch_rows)):
        started.append((len(batch), [network.start(view) for view in zip(*batch, strict=True)]))
        if len(started) == _IN_FLIGHT:
            yield _fetched(*started.popleft())
    while started:
        yield _fetched(*started.popleft())


def _fetched(rows: int, outputs: list[Any]) -> list[Features]:
    return [{layer: backend.fetched(x)[:rows] for layer, x in view.items()} for view in outputs]
