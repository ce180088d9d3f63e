"""The same network, fc7 of bvlc AlexNet, as a user of each tool would run it without fc7cache.

Each class is built on the same weights; threads and layout are what the tool chooses by itself.
Mean and order of channels are part of each graph. N images, H W pixels, C channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import backend
from pipeline.alexnet import BVLC, Conv, Dense, Norm, Pool, layers_up_to

MEAN = np.array(BVLC.mean, np.float32)
Weights = Mapping[str, NDArray[np.float32]]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def batched(images: Iterable[Pixels], rows: int) -> Iterator[list[Pixels]]:
    """Lists of so many."""
    images = iter(images)
    while batch := list(islice(images, rows)):
        yield batch


class Batches(ABC):
    """Runs `batch` over all images."""

    name: str
    batch_rows = 64

    def features(self, images: Iterable[Pixels]) -> Floats:
        """Images (227, 227, 3) uint8 to (n, 4096)."""
        return np.concatenate([self.batch(np.stack(b)) for b in batched(images, self.batch_rows)])

    @abstractmethod
    def batch(self, images: Pixels) -> Floats:
        """One batch."""


class KerasPredict:
    """A model of Keras's own layers, grouped convolutions among them, and `model.predict`."""

    name = "Keras predict"
    batch_rows = Batches.batch_rows

    def __init__(self, weights: Weights) -> None:
        """Build the model."""
        import tensorflow as tf

        keras = backend.keras()  # so that float32 is not TF32 on a GPU

        class Lrn(keras.layers.Layer):
            def call(self, x: Any) -> Any:
                return tf.nn.local_response_normalization(x, 2, 1.0, 2e-5, 0.75)

        image = keras.Input((227, 227, 3), dtype="uint8")
        x = keras.ops.cast(image, "float32")[..., ::-1] - MEAN
        for layer in layers_up_to("bvlc", ["fc7"]):
            if isinstance(layer, Conv):
                x = keras.layers.Conv2D(
                    layer.filters, layer.size, layer.stride, layer.padding,
                    groups=layer.groups, activation="relu", name=layer.name,
                )(x)  # fmt: skip
            elif isinstance(layer, Norm):
                x = Lrn()(x)
            elif isinstance(layer, Pool):
                x = keras.layers.MaxPooling2D(3, 2)(x)
            else:
                x = keras.layers.Flatten()(x) if len(x.shape) == 4 else x
                x = keras.layers.Dense(layer.units, "relu", name=layer.name)(x)
        self.model = keras.Model(image, x)
        for layer in layers_up_to("bvlc", ["fc7"]):
            if isinstance(layer, Conv | Dense):
                self.model.get_layer(layer.name).set_weights(
                    [weights[f"{layer.name}_W"], weights[f"{layer.name}_b"]]
                )

    def features(self, images: Iterable[Pixels]) -> Floats:
        """All at once, as `predict` is meant."""
        found = [
            self.model.predict(np.stack(part), self.batch_rows, verbose=0)
            for part in batched(images, 8192)  # more would not fit in memory
        ]
        return np.concatenate(found)


class Lab(Batches):
    """The lab's way: a TensorFlow 1 graph, `tf.split` convolutions, fed by a dict."""

    name = "the lab's graph"

    def __init__(self, weights: Weights) -> None:
        """Build the graph."""
        import tensorflow as tf

        backend.keras()
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph:
            self.image = v1.placeholder(tf.uint8, (None, 227, 227, 3))
            x = tf.cast(self.image, tf.float32)[..., ::-1] - MEAN
            for layer in layers_up_to("bvlc", ["fc7"]):
                if isinstance(layer, Conv):
                    w = v1.Variable(weights[f"{layer.name}_W"])
                    b = v1.Variable(weights[f"{layer.name}_b"])
                    parts, kernels = tf.split(x, layer.groups, 3), tf.split(w, layer.groups, 3)
                    maps = [
                        tf.nn.conv2d(part, kernel, layer.stride, str(layer.padding).upper())
                        for part, kernel in zip(parts, kernels, strict=True)
                    ]
                    x = tf.nn.relu(tf.nn.bias_add(tf.concat(maps, 3), b))
                elif isinstance(layer, Norm):
                    x = tf.nn.local_response_normalization(x, 2, 1.0, 2e-5, 0.75)
                elif isinstance(layer, Pool):
                    x = tf.nn.max_pool2d(x, 3, 2, "VALID")
                else:
                    w = v1.Variable(weights[f"{layer.name}_W"])
                    b = v1.Variable(weights[f"{layer.name}_b"])
                    x = v1.nn.relu_layer(tf.reshape(x, (-1, w.shape[0])), w, b)
            self.out = x
            self.session = v1.Session(graph=graph)
            self.session.run(v1.global_variables_initializer())

    def batch(self, images: Pixels) -> Floats:
        """Run the graph."""
        return np.asarray(self.session.run(self.out, {self.image: images}))


class Torch(Batches):
    """`torch.nn` modules in a loop without gradients."""

    name = "PyTorch"

    def __init__(self, weights: Weights) -> None:
        """Build the modules."""
        import torch
        from torch import nn

        self.torch = torch
        torch.backends.cudnn.allow_tf32 = False
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        steps: list[Any] = []
        depth = 3
        for layer in layers_up_to("bvlc", ["fc7"]):
            if isinstance(layer, Conv):
                pad = layer.size // 2 if layer.padding == "same" else 0
                conv = nn.Conv2d(
                    depth, layer.filters, layer.size, layer.stride, pad, groups=layer.groups
                )
                conv.weight.data = torch.tensor(weights[f"{layer.name}_W"].transpose(3, 2, 0, 1))
                conv.bias.data = torch.tensor(weights[f"{layer.name}_b"])
                steps += [conv, nn.ReLU()]
                depth = layer.filters
            elif isinstance(layer, Norm):
                steps += [nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)]
            elif isinstance(layer, Pool):
                steps += [nn.MaxPool2d(3, 2)]
            else:
                steps += [nn.Flatten()] if layer.name == "fc6" else []
                w = torch_dense(weights, layer.name)
                dense = nn.Linear(w.shape[1], layer.units)
                dense.weight.data = torch.tensor(w)
                dense.bias.data = torch.tensor(weights[f"{layer.name}_b"])
                steps += [dense, nn.ReLU()]
        self.model = nn.Sequential(*steps).eval().to(self.device)
        self.mean = torch.tensor(MEAN, device=self.device)

    def batch(self, images: Pixels) -> Floats:
        """Pixels are sent as bytes, and prepared on the device."""
        with self.torch.no_grad():
            sent = self.torch.from_numpy(images).to(self.device).flip(-1)
            x = (sent.float() - self.mean).permute(0, 3, 1, 2).contiguous()
            return np.asarray(self.model(x).cpu().numpy())


def torch_dense(weights: Weights, name: str) -> Floats:
    """(out, in), the input of fc6 in C, H, W order."""
    w = weights[f"{name}_W"]
    if name == "fc6":
        side = round((len(w) / 256) ** 0.5)
        w = w.reshape(side, side, 256, -1).transpose(2, 0, 1, 3).reshape(len(w), -1)
    return np.ascontiguousarray(w.T)


def onnx_model(weights: Weights) -> bytes:
    """The network in ONNX's operators, (N, H, W, 3) uint8 RGB to (N, 4096)."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, x = [], [], "prepared"

    def constant(name: str, value: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    flip, mean = constant("flip", np.array([2, 1, 0])), constant("mean", MEAN[:, None, None])
    nodes += [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["rgb"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["rgb", flip], ["bgr"], axis=1),
        helper.make_node("Sub", ["bgr", mean], [x]),
    ]
    for layer in layers_up_to("bvlc", ["fc7"]):
        made = layer.name
        if isinstance(layer, Conv):
            pad = layer.size // 2 if layer.padding == "same" else 0
            w = constant(f"{made}_W", weights[f"{made}_W"].transpose(3, 2, 0, 1))
            b = constant(f"{made}_b", weights[f"{made}_b"])
            how = {"group": layer.groups, "pads": [pad] * 4, "strides": [layer.stride] * 2}
            nodes.append(helper.make_node("Conv", [x, w, b], [f"{made}_linear"], **how))
            nodes.append(helper.make_node("Relu", [f"{made}_linear"], [made]))
        elif isinstance(layer, Norm):
            nodes.append(
                helper.make_node("LRN", [x], [made], alpha=1e-4, beta=0.75, bias=1.0, size=5)
            )
        elif isinstance(layer, Pool):
            shape = {"kernel_shape": [3, 3], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [x], [made], **shape))
        else:
            if layer.name == "fc6":
                nodes.append(helper.make_node("Flatten", [x], ["flat"]))
                x = "flat"
            w = constant(f"{made}_W", torch_dense(weights, made))
            b = constant(f"{made}_b", weights[f"{made}_b"])
            nodes.append(helper.make_node("Gemm", [x, w, b], [f"{made}_linear"], transB=1))
            nodes.append(helper.make_node("Relu", [f"{made}_linear"], [made]))
        x = made
    graph = helper.make_graph(
        nodes,
        "alexnet",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 227, 227, 3])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", 4096])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


class OnnxRuntime(Batches):
    """An inference session with its defaults."""

    name = "ONNX Runtime"

    def __init__(self, weights: Weights) -> None:
        """Open the session."""
        import onnxruntime

        providers = onnxruntime.get_available_providers()
        self.session = onnxruntime.InferenceSession(onnx_model(weights), providers=providers)

    def batch(self, images: Pixels) -> Floats:
        """Run it."""
        return np.asarray(self.session.run(None, {"image": images})[0])


class OpenVino(Batches):
    """A compiled model for the CPU, told to give one request all cores."""

    name = "OpenVINO"
    precision = "f32"

    def __init__(self, weights: Weights) -> None:
        """Compile it."""
        import openvino

        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.precision}
        core = openvino.Core()
        self.model = core.compile_model(core.read_model(onnx_model(weights)), "CPU", hints)

    def batch(self, images: Pixels) -> Floats:
        """Run it."""
        return np.array(self.model(images)[0])


class OpenVinoBfloat16(OpenVino):
    """The same in half precision."""

    name = "OpenVINO, bfloat16"
    precision = "bf16"


CONTESTANTS = {
    c.name: c for c in (KerasPredict, Lab, Torch, OnnxRuntime, OpenVino, OpenVinoBfloat16)
}
