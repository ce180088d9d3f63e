"""Enlargement on the device is Pillow's, to the bit, on every backend."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline import backend
from pipeline.enlarge import enlarged, filter_taps, packed

PX = 40
SIDE = st.integers(1, PX)


def pillow(image: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((px, px), Image.Resampling.BILINEAR))


@given(sizes=st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_enlargement_is_pillows_to_the_bit(sizes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    got = backend.fetched(enlarged(*packed(images), PX))
    np.testing.assert_array_equal(got, [pillow(image, PX) for image in images])


@pytest.mark.parametrize("px", [224, 227])
def test_every_size_of_the_network_has_pillows_weights(px: int) -> None:
    # A row of one bright pixel shows its weight in each pixel of the output.
    for size in range(1, px + 1):
        number, weight = filter_taps(size, px)
        for at in {0, size // 2, size - 1}:
            row = np.zeros((1, size, 3), np.uint8)
            row[0, at] = 255
            share = np.where(number == at, weight, 0).sum(axis=1)
            expected = (255 * share.astype(np.int64) + (1 << 21)) >> 22
            np.testing.assert_array_equal(pillow(row, px)[0, :, 0], expected)


def test_lengths_are_few() -> None:
    lengths = {len(packed([np.zeros((n, n, 3), np.uint8)] * 64)[0]) for n in range(1, 200)}
    assert len(lengths) < 9
    assert all(length & (length - 1) == 0 for length in lengths)


SCRIPT = """
import sys
import numpy as np
from pipeline import alexnet, backend
from pipeline.features import Network, forward
from pipeline.images import resized

rng = np.random.default_rng(0)
images = [rng.integers(0, 256, (*rng.integers(20, 200, 2), 3), np.uint8) for _ in range(5)]
taps = ["conv2", "fc7"]
rng = np.random.default_rng(1)
weights = {k: rng.standard_normal(shape, np.float32) / np.prod(shape[:-1]) ** 0.5
           for k, shape in alexnet.weight_shapes("narrow", taps).items()}
network = Network(alexnet.build("narrow", weights, taps), 4)
found = {}
for how, seen in (("host", lambda image: resized(image, 227)), ("device", lambda image: image)):
    blocks = [block for (block,) in forward(network, ([seen(image)] for image in images))]
    found |= {f"{how}_{tap}": np.concatenate([block[tap] for block in blocks]) for tap in taps}
np.savez(sys.argv[1], backend=backend.runtime()["backend"], **found)
"""


@pytest.fixture(scope="module")
def by_backend(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, NDArray[np.float32]]]:
    found = {}
    for name in ("tensorflow", "jax"):
        out = tmp_path_factory.mktemp(name) / "features.npz"
        env = os.environ | {"KERAS_BACKEND": name, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", SCRIPT, str(out)], check=True, env=env)
        found[name] = dict(np.load(out))
        assert str(found[name].pop("backend")).startswith(name)
    return found


@pytest.mark.parametrize("name", ["tensorflow", "jax"])
@pytest.mark.parametrize("tap", ["conv2", "fc7"])
def test_where_images_are_enlarged_changes_no_feature(
    by_backend: dict[str, dict[str, NDArray[np.float32]]], name: str, tap: str
) -> None:
    found = by_backend[name]
    assert found[f"host_{tap}"].std() > 0
    np.testing.assert_array_equal(found[f"host_{tap}"], found[f"device_{tap}"])


@pytest.mark.parametrize("tap", ["conv2", "fc7"])
def test_backends_agree(by_backend: dict[str, dict[str, NDArray[np.float32]]], tap: str) -> None:
    one, other = (by_backend[name][f"device_{tap}"] for name in ("tensorflow", "jax"))
    assert np.linalg.norm(one - other) < 1e-5 * np.linalg.norm(one)
