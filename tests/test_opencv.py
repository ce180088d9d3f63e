"""The whole bvlc network against OpenCV's own run of the same ``.caffemodel``."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from weight_files import write_caffemodel

from pipeline.alexnet import build, weight_shapes
from pipeline.weights import load_weights

# OpenCV 5 reads Caffe's networks no more; a folder with OpenCV 4 in it may be named instead.
ASIDE = os.environ.get("FC7CACHE_OPENCV4", "")
pytestmark = pytest.mark.skipif(
    not (ASIDE or hasattr(cv2.dnn, "readNetFromCaffe")),
    reason=f"OpenCV {cv2.__version__} reads no networks of Caffe's; FC7CACHE_OPENCV4 is not set",
)
# As in Caffe's models/bvlc_alexnet/deploy.prototxt: outputs, kernel, stride, pad, groups.
CONVOLUTIONS = {
    "conv1": (96, 11, 4, 0, 1),
    "conv2": (256, 5, 1, 2, 2),
    "conv3": (384, 3, 1, 1, 1),
    "conv4": (384, 3, 1, 1, 2),
    "conv5": (256, 3, 1, 1, 2),
}
UNITS = {"fc6": 4096, "fc7": 4096, "fc8": 1000}
ORDER = (
    "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 "
    "fc6 relu6 fc7 relu7 fc8"
)
TAPS = {"conv1": "relu1", "conv2": "relu2", "conv3": "relu3", "conv4": "relu4", "conv5": "relu5",
        "pool5": "pool5", "fc6": "relu6", "fc7": "relu7", "fc8": "fc8"}  # fmt: skip

RUN = """
import sys, cv2, numpy as np
net = cv2.dnn.readNetFromCaffe("w.prototxt", "w.caffemodel")
net.setInput(np.load("image.npy"))
np.savez("out.npz", **dict(zip(sys.argv[1:], net.forward(sys.argv[1:]), strict=True)))
"""


def prototxt() -> str:
    """Caffe's description of the network."""
    lines = ['input: "data"', *(f"input_dim: {n}" for n in (2, 3, 227, 227))]
    below = "data"
    for name in ORDER.split():
        if name in CONVOLUTIONS:
            outputs, size, stride, pad, groups = CONVOLUTIONS[name]
            kind = "Convolution"
            settings = (
                f"convolution_param {{ num_output: {outputs} kernel_size: {size} "
                f"stride: {stride} pad: {pad} group: {groups} }}"
            )
        elif name in UNITS:
            kind = "InnerProduct"
            settings = f"inner_product_param {{ num_output: {UNITS[name]} }}"
        else:
            kind, settings = {
                "relu": ("ReLU", ""),
                "norm": ("LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"),
                "pool": ("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"),
            }[name[:4]]
        lines.append(
            f'layer {{ name: "{name}" type: "{kind}" bottom: "{below}" top: "{name}" {settings} }}'
        )
        below = name
    return "\n".join(lines)


def pooled(maps: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """(N, C, H, W) max-pooled 3/2 to 6x6, then flattened in H, W, channel order."""
    while maps.ndim == 4 and maps.shape[2] > 6:
        side = (maps.shape[2] - 3) // 2 + 1
        ends = [slice(k, k + 2 * side - 1, 2) for k in range(3)]
        maps = np.max([maps[:, :, y, x] for y in ends for x in ends], axis=0)
    return np.moveaxis(maps, 1, -1).reshape(len(maps), -1)


@pytest.mark.parametrize("legacy", [True, False])
def test_bvlc_is_opencvs(tmp_path: Path, legacy: bool) -> None:
    rng = np.random.default_rng(0)
    shapes = weight_shapes("bvlc", ["fc8"])
    drawn = {
        name: rng.standard_normal(shape, np.float32)
        * np.float32(0.5 if name.endswith("_b") else (2 / np.prod(shape[:-1])) ** 0.5)
        for name, shape in shapes.items()
    }
    path = write_caffemodel(tmp_path / "w.caffemodel", drawn, legacy=legacy)
    (tmp_path / "w.prototxt").write_text(prototxt())
    image = rng.integers(0, 256, (2, 16, 16, 3), np.uint8).repeat(15, 1).repeat(15, 2)
    image = image[:, :227, :227]
    mean = np.float32([104.00698793, 116.66876762, 122.67891434])
    np.save(tmp_path / "image.npy", (image[..., ::-1] - mean).transpose(0, 3, 1, 2))
    subprocess.run(
        [sys.executable, "-c", RUN, *TAPS.values()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ASIDE},
        check=True,
    )
    theirs = np.load(tmp_path / "out.npz")
    ours = build("bvlc", load_weights(str(path), None, shapes), list(TAPS)).predict_on_batch(image)
    for tap in TAPS:
        expected = pooled(theirs[TAPS[tap]])
        error = np.linalg.norm(ours[tap] - expected) / np.linalg.norm(expected)
        print(f"{tap}: relative error {error:.1e}")
        assert error < 1e-5
