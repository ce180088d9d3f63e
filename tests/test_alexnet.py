"""The base against a slow twin in NumPy, against published facts, and frozen."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import backend
from pipeline.alexnet import (
    BVLC,
    TAPS,
    TORCHVISION,
    VARIANTS,
    build,
    layers_up_to,
    tap_widths,
    weight_shapes,
)
from pipeline.features import CPU_BATCH_ROWS as BATCH_ROWS
from pipeline.features import Network, forward
from pipeline.weights import Arrays

Floats = NDArray[np.floating[Any]]
every_variant = pytest.mark.parametrize("variant", ["narrow", "torchvision"])


def pictures(variant: str, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of random colours, so that neighbouring pixels go together as in photos."""
    side = VARIANTS[variant].input_px
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8)
    return blocks.repeat(15, axis=1).repeat(15, axis=2)[:, :side, :side]


@cache
def weights(variant: str) -> Arrays:
    """He's initialisation, but with biases, which `seeded` weights do without."""
    rng = np.random.default_rng(1)
    drawn = {}
    for name, shape in weight_shapes(variant, ["fc8"]).items():
        scale = 0.5 if name.endswith("_b") else (2 / np.prod(shape[:-1])) ** 0.5
        drawn[name] = rng.standard_normal(shape, np.float32) * np.float32(scale)
    return drawn


@cache
def base(variant: str, taps: tuple[str, ...] = TAPS, precision: str = "float32") -> Any:
    return build(variant, weights(variant), taps, precision)


def features(model: Any, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    return {tap: np.asarray(rows) for tap, rows in model.predict_on_batch(images).items()}


def conv(x: Floats, w: Floats, b: Floats, stride: int = 1, pad: int = 0, groups: int = 1) -> Floats:
    """Convolution and ReLU: one sum over the offsets in the kernel for each group."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    size, inputs, outputs = w.shape[0], x.shape[3] // groups, w.shape[3] // groups
    side = (x.shape[1] - size) // stride + 1
    maps = np.empty((len(x), side, side, w.shape[3]))
    maps[:] = b
    reach = stride * (side - 1) + 1
    for group in range(groups):
        into = slice(group * outputs, (group + 1) * outputs)
        part = x[..., group * inputs : (group + 1) * inputs]
        for i in range(size):
            for j in range(size):
                seen = part[:, i : i + reach : stride, j : j + reach : stride]
                maps[..., into] += np.tensordot(seen, w[i, j, :, into], 1)
    return np.maximum(maps, 0)


def pool(x: Floats) -> Floats:
    side = (x.shape[1] - 3) // 2 + 1
    reach = 2 * side - 1
    shifted = [x[:, i : i + reach : 2, j : j + reach : 2] for i in range(3) for j in range(3)]
    return np.max(shifted, axis=0)


def caffe_norm(x: Floats, local_size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Floats:
    """https://caffe.berkeleyvision.org/tutorial/layers/lrn.html, k = 1."""
    out = np.empty_like(x)
    for channel in range(x.shape[-1]):
        first, last = channel - local_size // 2, channel + local_size // 2
        window = x[..., max(first, 0) : last + 1]
        total = (window**2).sum(axis=-1)
        out[..., channel] = x[..., channel] / (1 + alpha / local_size * total) ** beta
    return out


def rows(x: Floats) -> Floats:
    return x.reshape(len(x), -1)


def bvlc_twin(images: NDArray[np.uint8], w: Callable[[str], tuple[Floats, Floats]]) -> Any:
    x = images[..., ::-1] - np.array([104.00698793, 116.66876762, 122.67891434])
    conv1 = conv(x, *w("conv1"), stride=4)
    conv2 = conv(pool(caffe_norm(conv1)), *w("conv2"), pad=2, groups=2)
    conv3 = conv(pool(caffe_norm(conv2)), *w("conv3"), pad=1)
    conv4 = conv(conv3, *w("conv4"), pad=1, groups=2)
    conv5 = conv(conv4, *w("conv5"), pad=1, groups=2)
    return conv1, conv2, conv3, conv4, conv5


def torchvision_twin(images: NDArray[np.uint8], w: Callable[[str], tuple[Floats, Floats]]) -> Any:
    x = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    conv1 = conv(x, *w("conv1"), stride=4, pad=2)
    conv2 = conv(pool(conv1), *w("conv2"), pad=2)
    conv3 = conv(pool(conv2), *w("conv3"), pad=1)
    conv4 = conv(conv3, *w("conv4"), pad=1)
    return conv1, conv2, conv3, conv4, conv(conv4, *w("conv5"), pad=1)


@cache
def twin(variant: str, count: int) -> dict[str, Floats]:
    def w(layer: str) -> tuple[Floats, Floats]:
        arrays = weights(variant)
        return arrays[f"{layer}_W"].astype(float), arrays[f"{layer}_b"].astype(float)

    convolutional = torchvision_twin if variant == "torchvision" else bvlc_twin
    maps = zip(TAPS[:5], convolutional(pictures(variant, count), w), strict=True)
    times = {"conv1": 3, "conv2": 2, "conv3": 1, "conv4": 1, "conv5": 1}  # 55, 27, 13 px to 6
    taps = {}
    for tap, x in maps:
        for _ in range(times[tap]):
            x = pool(x)
        taps[tap] = rows(x)
    taps["pool5"] = taps["conv5"]
    for layer, before in (("fc6", "pool5"), ("fc7", "fc6"), ("fc8", "fc7")):
        kernel, bias = w(layer)
        taps[layer] = taps[before] @ kernel + bias
        if layer != "fc8":
            taps[layer] = np.maximum(taps[layer], 0)
    return taps


def distance(got: Floats, expected: Floats) -> float:
    """Largest relative distance of a row."""
    assert got.shape == expected.shape
    length = np.linalg.norm(expected, axis=1)
    assert (length > 0).all()
    return float((np.linalg.norm(got - expected, axis=1) / length).max())


@every_variant
def test_every_tap_is_the_twins(variant: str) -> None:
    got = features(base(variant), pictures(variant, 2))
    assert tuple(got) == TAPS
    for tap, expected in twin(variant, 2).items():
        assert got[tap].dtype == np.float32
        assert distance(got[tap], expected) < 1e-5, tap


def test_twin_notices_what_it_should() -> None:
    """The pictures are such that norm, groups, channel order and biases matter to every tap."""
    images = pictures("narrow", 2)
    expected = twin("narrow", 2)
    w = weights("narrow")
    halved = w["conv1_W"] / 2, w["conv1_b"] / 2  # and doubled again: only the norm can tell
    changes: list[tuple[Arrays, NDArray[np.uint8]]] = [
        (w, images[..., ::-1]),
        (w | {"conv1_b": 0 * w["conv1_b"]}, images),
        (w | {"conv2_W": np.roll(w["conv2_W"], 16, axis=3)}, images),
        (w | {"conv1_W": halved[0], "conv1_b": halved[1], "conv2_W": 2 * w["conv2_W"]}, images),
    ]
    for changed, seen in changes:
        got = features(build("narrow", changed, ["conv3"]), seen)["conv3"]
        assert distance(got, expected["conv3"]) > 1e-3


def test_parameters_are_as_many_as_published() -> None:
    counts = {
        variant: sum(int(np.prod(shape)) for shape in weight_shapes(variant, ["fc8"]).values())
        for variant in ("bvlc", "torchvision")
    }
    assert counts == {"bvlc": 60_965_224, "torchvision": 61_100_840}


@pytest.mark.parametrize(
    ("variant", "maps"),
    [
        (
            "bvlc",
            {
                "conv1": (55, 55, 96),
                "norm1": (55, 55, 96),
                "pool1": (27, 27, 96),
                "conv2": (27, 27, 256),
                "norm2": (27, 27, 256),
                "pool2": (13, 13, 256),
                "conv3": (13, 13, 384),
                "conv4": (13, 13, 384),
                "conv5": (13, 13, 256),
                "pool5": (6, 6, 256),
            },
        ),
        (
            "torchvision",
            {
                "conv1": (55, 55, 64),
                "pool1": (27, 27, 64),
                "conv2": (27, 27, 192),
                "pool2": (13, 13, 192),
                "conv3": (13, 13, 384),
                "conv4": (13, 13, 256),
                "conv5": (13, 13, 256),
                "pool5": (6, 6, 256),
            },
        ),
    ],
)
def test_maps_are_as_large_as_published(
    variant: str, maps: dict[str, tuple[int, int, int]]
) -> None:
    shapes = weight_shapes(variant, ["pool5"])
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    model = build(variant, arrays, ["pool5"])
    got = {name: model.get_layer(name).output.shape[1:] for name in maps}
    assert got == maps
    assert [layer.name for layer in layers_up_to(variant, ["pool5"])] == list(maps)


def test_kernels_are_as_published() -> None:
    bvlc, torchvision = (weight_shapes(variant, ["fc8"]) for variant in ("bvlc", "torchvision"))
    dense = {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}
    assert {name[:-2]: shape for name, shape in bvlc.items() if name.endswith("W")} == {
        "conv1": (11, 11, 3, 96),
        "conv2": (5, 5, 48, 256),
        "conv3": (3, 3, 256, 384),
        "conv4": (3, 3, 192, 384),
        "conv5": (3, 3, 192, 256),
    } | dense
    assert {name[:-2]: shape for name, shape in torchvision.items() if name.endswith("W")} == {
        "conv1": (11, 11, 3, 64),
        "conv2": (5, 5, 64, 192),
        "conv3": (3, 3, 192, 384),
        "conv4": (3, 3, 384, 256),
        "conv5": (3, 3, 256, 256),
    } | dense
    for shapes in (bvlc, torchvision):
        assert all(shapes[f"{name[:-2]}_b"] == shape[-1:] for name, shape in shapes.items())


@every_variant
def test_widths_are_those_of_the_features(variant: str) -> None:
    got = features(base(variant), pictures(variant, 2))
    assert tap_widths(variant, TAPS) == {tap: block.shape[1] for tap, block in got.items()}
    assert list(tap_widths(variant, ["fc7", "conv3"])) == ["fc7", "conv3"]


def test_widths_of_the_published_networks() -> None:
    convolutional = {"pool5": 9216, "conv5": 9216, "fc6": 4096, "fc7": 4096, "fc8": 1000}
    assert tap_widths("bvlc", TAPS) == convolutional | {
        "conv1": 3456,
        "conv2": 9216,
        "conv3": 13824,
        "conv4": 13824,
    }
    assert tap_widths("torchvision", TAPS) == convolutional | {
        "conv1": 2304,
        "conv2": 6912,
        "conv3": 13824,
        "conv4": 9216,
    }


@pytest.mark.parametrize("channels", [3, 12, 96])
def test_norm_is_caffes_and_tensorflows(channels: int) -> None:
    backend.keras()
    import tensorflow as tf

    from pipeline.frozen import LocalResponseNorm

    x = np.random.default_rng(0).normal(0, 300, (2, 3, 4, channels)).astype(np.float32)
    got = np.asarray(LocalResponseNorm()(x))
    assert distance(rows(x), rows(got)) > 0.1
    native = tf.nn.local_response_normalization(x, depth_radius=2, bias=1, alpha=2e-5, beta=0.75)
    np.testing.assert_allclose(got, native, rtol=1e-5)
    np.testing.assert_allclose(got, caffe_norm(x.astype(float)), rtol=1e-5)


COLOUR = (200, 30, 120)  # RGB


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("bvlc", (120 - 104.00698793, 30 - 116.66876762, 200 - 122.67891434)),
        ("narrow", (120 - 104.00698793, 30 - 116.66876762, 200 - 122.67891434)),
        (
            "torchvision",
            (
                (200 / 255 - 0.485) / 0.229,
                (30 / 255 - 0.456) / 0.224,
                (120 / 255 - 0.406) / 0.225,
            ),
        ),
    ],
)
def test_preprocessing_is_the_networks_own(variant: str, expected: Sequence[float]) -> None:
    keras = backend.keras()
    shapes = weight_shapes(variant, ["conv3"])
    model = build(variant, {n: np.zeros(s, np.float32) for n, s in shapes.items()}, ["conv3"])
    assert model.layers[1].__class__.__name__ == "Preprocess"
    image = np.empty((1, *model.input_shape[1:]), np.uint8)
    image[:] = COLOUR
    got = np.asarray(keras.Model(model.input, model.layers[1].output)(image))
    assert got.shape == image.shape
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=1e-6, atol=1e-5)


def test_nothing_is_trainable() -> None:
    model = base("narrow")
    assert model.trainable_variables == []
    assert len(model.weights) == len(weights("narrow")) == 16
    assert not any(layer.trainable for layer in model.layers)


def test_no_gradient_flows_back() -> None:
    import tensorflow as tf

    model = base("narrow")
    kernels = [weight.value for weight in model.weights]
    image = tf.constant(pictures("narrow", 1), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([image, *kernels])
        outputs = model(image)
        inside = tf.reduce_sum(model.get_layer("conv1")(image))
    for output in outputs.values():
        assert tape.gradient(output, image) is None
        assert tape.gradient(output, kernels) == [None] * len(kernels)
    assert tape.gradient(inside, image) is not None


def test_there_is_no_training_mode() -> None:
    images = pictures("narrow", 2)
    still, trained = (base("narrow")(images, training=mode) for mode in (False, True))
    for tap in TAPS:
        np.testing.assert_array_equal(still[tap], trained[tap])


@every_variant
def test_conv5_and_pool5_are_the_same(variant: str) -> None:
    got = features(base(variant), pictures(variant, 2))
    np.testing.assert_array_equal(got["conv5"], got["pool5"])


@pytest.mark.parametrize("tap", TAPS)
def test_one_tap_alone_gives_what_all_give(tap: str) -> None:
    images = pictures("narrow", 3)
    alone = features(base("narrow", (tap,)), images)
    assert set(alone) == {tap}
    np.testing.assert_array_equal(alone[tap], features(base("narrow"), images)[tap])


def test_taps_come_in_the_order_asked_for() -> None:
    model = build("narrow", weights("narrow"), ["fc7", "conv3", "fc6"])
    assert list(features(model, pictures("narrow", 1))) == ["fc7", "conv3", "fc6"]


@pytest.mark.parametrize("tap", TAPS)
def test_nothing_behind_the_deepest_tap_is_computed(tap: str) -> None:
    model = base("narrow", (tap,))
    behind = TAPS[TAPS.index(tap) + 1 :]
    built = {layer.name for layer in model.layers}
    assert tap in built
    assert not built & set(behind)
    assert set(weight_shapes("narrow", [tap])) == {
        name for name in weights("narrow") if name[:-2] not in behind
    }


def test_weights_not_asked_for_are_not_wanted() -> None:
    needed = {name: weights("narrow")[name] for name in weight_shapes("narrow", ["conv4"])}
    images = pictures("narrow", 1)
    got = features(build("narrow", needed, ["conv4"]), images)["conv4"]
    np.testing.assert_array_equal(got, features(base("narrow"), images)["conv4"])


@every_variant
def test_bits_of_a_row_do_not_depend_on_the_batch(variant: str) -> None:
    network = Network(base(variant, ("conv5", "fc7")), BATCH_ROWS)
    images = pictures(variant, BATCH_ROWS + 1)

    def of(batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        blocks = [block for (block,) in forward(network, ([image] for image in batch))]
        return {tap: np.concatenate([block[tap] for block in blocks]) for tap in blocks[0]}

    whole = of(images)
    others = [
        (images[:1], slice(0, 1)),  # alone, padded with black
        (images[-1:], slice(BATCH_ROWS, None)),
        (images[1:], slice(1, None)),  # each one place on, a full batch
        (images[::-1][:40], slice(None, BATCH_ROWS - 40, -1)),
    ]
    for batch, place in others:
        for tap, got in of(batch).items():
            np.testing.assert_array_equal(got, whole[tap][place])
    assert len(np.unique(whole["fc7"], axis=0)) == BATCH_ROWS + 1


@every_variant
def test_bfloat16_is_close_but_not_the_same(variant: str) -> None:
    rough = features(base(variant, ("conv3", "fc7"), "bfloat16"), pictures(variant, 2))
    for tap, got in rough.items():
        assert got.dtype == np.float32
        assert 1e-4 < distance(got, twin(variant, 2)[tap]) < 0.04


@pytest.fixture(params=["build", "shapes", "widths"])
def asking(request: pytest.FixtureRequest) -> Callable[[list[str]], Any]:
    ways: dict[str, Callable[[list[str]], Any]] = {
        "build": lambda taps: build("narrow", weights("narrow"), taps),
        "shapes": lambda taps: weight_shapes("bvlc", taps),
        "widths": lambda taps: tap_widths("torchvision", taps),
    }
    return ways[request.param]


@pytest.mark.parametrize("tap", ["fc9", "conv0", "pool2", "FC7", ""])
def test_unknown_tap_names_the_choices(asking: Callable[[list[str]], Any], tap: str) -> None:
    with pytest.raises(
        ValueError,
        match=f"^no layer '{tap}' to read; choose from {', '.join(TAPS)}$",
    ):
        asking(["fc7", tap])


def test_narrow_is_bvlc_with_an_eighth_of_the_channels() -> None:
    wide, narrow = (weight_shapes(variant, ["fc8"]) for variant in ("bvlc", "narrow"))
    for name, shape in wide.items():
        eighth = tuple(size // 8 if size > 11 else size for size in shape)
        assert narrow[name] == eighth
    assert [type(layer) for layer in VARIANTS["narrow"].layers] == [type(x) for x in BVLC.layers]
    assert VARIANTS["narrow"].input_px == BVLC.input_px == 227
    assert TORCHVISION.input_px == 224
