"""Batches of one size, in flight."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.features import Network, forward
from pipeline.images import resized

Pixels = NDArray[np.uint8]


def base(px: int = 2) -> Any:
    """Features are the pixels."""
    image = keras.Input((px, px, 3), dtype="uint8")
    flat = keras.ops.cast(keras.ops.reshape(image, (-1, 3 * px * px)), "float32")
    model = keras.Model(image, {"fc6": flat, "fc7": -flat})
    model.trainable = False
    return model


class Recorder(Network):
    """Remembers what was started."""

    def __init__(self, batch_rows: int) -> None:
        super().__init__(base(), batch_rows)
        self.started: list[int] = []

    def start(self, images: Any) -> Any:
        self.started.append(len(images))
        outputs = super().start(images)
        assert {block.shape for block in outputs.values()} == {(self.batch_rows, 12)}
        return outputs


def pictures(count: int) -> Iterator[list[Pixels]]:
    """Of each image one view."""
    return ([np.full((2, 2, 3), 1 + number, np.uint8)] for number in range(count))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9])
def test_batches_have_one_size_and_padding_is_cut_off(count: int) -> None:
    network = Recorder(4)
    blocks = [block for (block,) in forward(network, pictures(count))]
    sizes = [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert [len(block["fc6"]) for block in blocks] == network.started == sizes
    for sign, layer in ((1, "fc6"), (-1, "fc7")):
        rows = [row for block in blocks for row in block[layer]]
        assert [list(row) for row in rows] == [[sign * (1 + n)] * 12 for n in range(count)]


def test_views_stay_with_their_images() -> None:
    views = (
        [np.full((2, 2, 3), 10 * image + view, np.uint8) for view in range(3)] for image in range(5)
    )
    batches = list(forward(Network(base(), 4), views))
    assert [len(batch) for batch in batches] == [3, 3]
    for view in range(3):
        got = np.concatenate([batch[view]["fc6"][:, 0] for batch in batches])
        assert list(got) == [10 * image + view for image in range(5)]


def test_one_batch_more_is_started_than_handed_out_and_no_image_more_taken() -> None:
    network, images = Recorder(4), pictures(17)
    forwarding = forward(network, images)
    next(forwarding)
    assert network.started == [4, 4]
    assert len(list(images)) == 17 - 8


def test_small_images_are_enlarged_whatever_is_beside_them() -> None:
    network = Network(base(8), 3)
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((3, 5), (8, 8), (1, 8), (7, 2))
    ]
    got = np.concatenate([b["fc6"] for (b,) in forward(network, ([image] for image in images))])
    expected = [resized(image, 8).ravel() for image in images]
    np.testing.assert_array_equal(got, expected)
