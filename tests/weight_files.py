"""Weights written as Caffe and PyTorch write them, byte by byte, without the code under test."""

import itertools
import math
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
TORCHVISION = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}


def channels_first(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """From the order used here to Caffe's and PyTorch's, row by row where it is not plain."""
    if array.ndim == 1:
        return array
    if array.ndim == 4:
        return np.moveaxis(array, (3, 2), (0, 1))
    turned = np.empty((array.shape[1], array.shape[0]), array.dtype)
    channels = array.shape[0] // 36
    for row in range(array.shape[0]):
        place = row
        if name == "fc6_W":
            y, x, channel = row // channels // 6, row // channels % 6, row % channels
            place = 36 * channel + 6 * y + x
        turned[:, place] = array[row]
    return turned


def varint(value: int) -> bytes:
    """Seven bits to a byte, the lowest first."""
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(number: int, content: bytes) -> bytes:
    """A field of a length and so many bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: NDArray[Any], *, legacy: bool) -> bytes:
    """Caffe's BlobProto."""
    if legacy:
        dims = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(varint(k << 3) + varint(dim) for k, dim in enumerate(dims, 1))
    else:
        shape = message(7, message(1, b"".join(map(varint, array.shape))))
    double = array.dtype == np.float64
    numbers = array.astype("<f8" if double else "<f4").tobytes()
    return shape + message(8 if double else 5, numbers)


def layer(name: str, blobs: Iterable[bytes], *, legacy: bool) -> bytes:
    """A layer, with its type and what it reads, which nobody here asks for."""
    parts = b"".join(message(6 if legacy else 7, part) for part in blobs)
    if legacy:
        kind = varint(5 << 3) + varint(4)  # an enumeration
        return message(2, message(2, b"below") + message(4, name.encode()) + kind + parts)
    return message(100, message(1, name.encode()) + message(2, b"Kind") + parts)


def write_caffemodel(path: Path, arrays: Arrays, *, legacy: bool) -> Path:
    """A network whose layers are these; ``legacy``: as Caffe wrote them until 2014."""
    names = [name.removesuffix("_W") for name in arrays if name.endswith("_W")]
    layers = [layer("data", [], legacy=legacy)]
    for name in names:
        both = [channels_first(f"{name}_{part}", arrays[f"{name}_{part}"]) for part in "Wb"]
        layers.append(layer(name, [blob(array, legacy=legacy) for array in both], legacy=legacy))
        layers.append(layer(f"relu_{name}", [], legacy=legacy))
    path.write_bytes(message(1, b"AlexNet") + b"".join(layers))
    return path


def text(value: str) -> bytes:
    """A pickled str."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    """A pickled int."""
    return b"J" + struct.pack("<i", value)


def tensor(
    key: str, size: int, shape: Iterable[int], strides: Iterable[int], kind: str, offset: int = 0
) -> bytes:
    """A pickled tensor, a view of a storage kept elsewhere."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    numbers = [b"(" + b"".join(map(whole, values)) + b"t" for values in (shape, strides)]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + whole(size) + b"tQ" + whole(offset)
        + numbers[0] + numbers[1] + b"\x89" + b"ccollections\nOrderedDict\n)R" + b"tR"
    )  # fmt: skip


def state_dict(arrays: Arrays) -> tuple[bytes, dict[str, bytes]]:
    """The pickle of torchvision's names, and storages by key."""
    entries, storages = b"", {}
    for key, (name, array) in enumerate(arrays.items()):
        layer_name, part = name.split("_")
        first = np.ascontiguousarray(channels_first(name, array), "<f4")
        strides = [math.prod(first.shape[k + 1 :]) for k in range(first.ndim)]
        full_name = f"{TORCHVISION[layer_name]}.{'weight' if part == 'W' else 'bias'}"
        entries += text(full_name)
        entries += tensor(str(key), first.size, first.shape, strides, "FloatStorage")
        storages[str(key)] = first.tobytes()
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + entries + b"u.", storages


def write_zip(
    path: Path, pickled: bytes, storages: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED
) -> Path:
    """PyTorch's format since 1.6."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, numbers in storages.items():
            archive.writestr(f"archive/data/{key}", numbers)
        archive.writestr("archive/version", "3\n")
    return path


def write_stream(path: Path, pickled: bytes, storages: Mapping[str, bytes], **system: Any) -> Path:
    """PyTorch's format before that."""
    system = {"protocol_version": 1001, "little_endian": True} | system
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    numbers = [struct.pack("<q", len(part) // 4) + part for part in storages.values()]
    keys = pickle.dumps(list(storages), 2)
    path.write_bytes(b"".join(itertools.chain(head, [pickled, keys], numbers)))
    return path


def write_pth(path: Path, arrays: Arrays, *, stream: bool = False) -> Path:
    """What ``torch.save(alexnet.state_dict(), path)`` writes."""
    return (write_stream if stream else write_zip)(path, *state_dict(arrays))
