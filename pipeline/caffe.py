"""A ``.caffemodel``, the weights of a network that Caffe trained, read without Caffe.

It is one protocol-buffer message. Of Caffe's definition only what leads to the weights is wanted:
a network (``NetParameter``) has layers, a layer has a name and blobs (weights, then bias), a blob
has a shape and numbers.
"""

import math
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from pipeline.channels_first import channels_last
from pipeline.errors import InputError

_ONE, _MANY = Field.LABEL_OPTIONAL, Field.LABEL_REPEATED
_LEGACY_SHAPE = ("num", "channels", "height", "width")

# Message to its fields: name, number, one or many, type (or the message that it is).
# Numbers are kept as bytes: on the wire a packed list of floats is their little-endian bytes.
_MESSAGES: dict[str, list[tuple[str, int, Any, Any]]] = {
    "BlobShape": [("dim", 1, _MANY, Field.TYPE_INT64)],
    "BlobProto": [
        *((name, 1 + k, _ONE, Field.TYPE_INT32) for k, name in enumerate(_LEGACY_SHAPE)),
        ("data", 5, _ONE, Field.TYPE_BYTES),
        ("shape", 7, _ONE, "BlobShape"),
        ("double_data", 8, _ONE, Field.TYPE_BYTES),
    ],
    "LayerParameter": [("name", 1, _ONE, Field.TYPE_BYTES), ("blobs", 7, _MANY, "BlobProto")],
    "V1LayerParameter": [("name", 4, _ONE, Field.TYPE_BYTES), ("blobs", 6, _MANY, "BlobProto")],
    "NetParameter": [
        ("layers", 2, _MANY, "V1LayerParameter"),  # until 2014, as in bvlc_alexnet.caffemodel
        ("layer", 100, _MANY, "LayerParameter"),
    ],
}


def read_caffemodel(path: Path, wanted: Container[str]) -> dict[str, Any]:
    """The arrays of a network.

    Args:
        path: The file.
        wanted: Names of arrays, such as "conv1_W".

    Returns:
        Name to array, in the order used here (see `pipeline.channels_first`); None for arrays
        that are there and not wanted.

    Raises:
        InputError: No message, none of a network with weights, or a blob whose shape is not that
            of its numbers; CaffeNet.
    """
    net = _net_parameter()()
    try:
        net.ParseFromString(path.read_bytes())
        arrays: dict[str, Any] = {}
        for layer in (*net.layers, *net.layer):
            # Weights, then bias; layers that learn nothing have no blobs.
            for part, blob in zip("Wb", layer.blobs, strict=False):
                name = f"{layer.name.decode(errors='replace')}_{part}"
                if name in arrays:
                    raise ValueError(f"{name[:60]!a} is there twice")
                arrays[name] = channels_last(name, _array(name, blob)) if name in wanted else None
    except (DecodeError, ValueError, MemoryError) as error:
        raise InputError(f"{path}: expected a network saved by Caffe, got {error}") from error
    if not arrays:
        raise InputError(f"{path}: expected a network saved by Caffe, got no layer with weights")
    # CaffeNet's names and shapes are those of AlexNet; only the order of its layers tells.
    order = [layer.name for layer in (*net.layers, *net.layer)]
    if b"pool1" in order and b"norm1" in order[order.index(b"pool1") :]:
        raise InputError(
            f"{path}: expected AlexNet, got CaffeNet (pool1 comes before norm1), which is another "
            "network; take bvlc_alexnet.caffemodel"
        )
    return arrays


def _array(name: str, blob: Any) -> np.ndarray[Any, Any]:
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = tuple(getattr(blob, part) for part in _LEGACY_SHAPE)
        # (1, 1, out, in) is a matrix, (1, 1, 1, out) a vector.
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
    data, dtype = (blob.double_data, "<f8") if blob.double_data else (blob.data, "<f4")
    if len(shape) > len(_LEGACY_SHAPE) or math.prod(shape) * np.dtype(dtype).itemsize != len(data):
        raise ValueError(f"{name} of shape {str(shape)[:100]} in {len(data):,} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _net_parameter() -> Any:
    """The class of the whole message, made from the table above."""
    file = FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, label, kind in fields:
            field = described.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = Field.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = kind
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))
