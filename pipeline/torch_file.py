"""A ``.pth`` that PyTorch saved a ``state_dict`` to, read without PyTorch.

Both of its formats are a pickle of names and shapes beside plain numbers: a zip archive of
uncompressed members since PyTorch 1.6, before that one pickle after another and then the numbers.
"""

import io
import math
import os
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.channels_first import channels_last
from pipeline.errors import InputError
from pipeline.torch_pickle import Storage, Tensor, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C  # of the older format
_MOST_PICKLED = 1 << 20  # bytes; names and shapes of AlexNet take 2,000
_LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}
_NAMES = {
    f"{torchvision}.{kind}": f"{layer}_{part}"
    for torchvision, layer in _LAYERS.items()
    for kind, part in (("weight", "W"), ("bias", "b"))
}


def read_pth(path: Path, wanted: Container[str]) -> dict[str, Any]:
    """The arrays of torchvision's AlexNet.

    Args:
        path: The file; nothing in it is executed.
        wanted: Names of arrays as they are here, such as "conv1_W".

    Returns:
        Name to array, in the order used here (see `pipeline.channels_first`); None for what is
        there and not wanted. A name that torchvision's AlexNet does not have stays as it is.

    Raises:
        InputError: Another kind of file, one cut short, or one whose pickle asks for more than a
            ``state_dict`` needs.
    """
    try:
        with path.open("rb") as file:
            read = _read_zip if file.read(4) == b"PK\3\4" else _read_stream
            file.seek(0)
            tensors = read(file, {old for old, new in _NAMES.items() if new in wanted})
        arrays = {_NAMES.get(name, name): tensor for name, tensor in tensors.items()}
        return {k: None if v is None else channels_last(k, v) for k, v in arrays.items()}
    except (
        ValueError, KeyError, EOFError, OSError, RuntimeError, MemoryError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        got = str(error)[:300]  # it may quote a name of any length
        raise InputError(
            f"{path}: expected a state_dict saved by PyTorch and nothing else, got {got}"
        ) from error


def _read_zip(file: BinaryIO, wanted: set[str]) -> dict[str, Any]:
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:

        def member(name: str, most: int = size) -> bytes:
            # PyTorch compresses nothing, so no member can be larger than the file.
            info = archive.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
                raise ValueError(f"{name[:60]!a} compressed, or of {info.file_size:,} bytes")
            return archive.read(info)

        names = archive.namelist()
        found = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(found) != 1:
            raise ValueError(f"{len(found)} pickles of the name data.pkl")
        root = found[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and member(f"{root}byteorder", 6) != b"little":
            raise ValueError("numbers in big-endian order")
        state = _state(read_pickle(io.BytesIO(member(found[0], _MOST_PICKLED))))
        return {
            name: _array(tensor, member(f"{root}data/{tensor.storage.key}"))
            if name in wanted
            else None
            for name, tensor in state.items()
        }


def _read_stream(file: BinaryIO, wanted: set[str]) -> dict[str, Any]:
    head = io.BytesIO(file.read(_MOST_PICKLED))
    if read_pickle(head) != _MAGIC:
        raise ValueError("a pickle of something else")
    _, system, state = read_pickle(head), read_pickle(head), _state(read_pickle(head))
    match system:
        case {"little_endian": True}:
            pass
        case _:
            raise ValueError("numbers in big-endian order")
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    needed = {state[name].storage.key for name in wanted & set(state)}
    kept = {}
    keys = read_pickle(head)
    if not isinstance(keys, list):
        raise ValueError("no list of its numbers")
    file.seek(head.tell())
    for key in map(str, keys):
        storage = storages[key]
        count = int.from_bytes(file.read(8), "little")
        if count != storage.size:
            raise ValueError(f"{count} numbers where {storage.size} were announced")
        nbytes = _nbytes(storage)
        if nbytes > os.fstat(file.fileno()).st_size:
            raise ValueError("more numbers announced than the file can hold")
        if key in needed:
            kept[key] = file.read(nbytes)
        else:
            file.seek(nbytes, os.SEEK_CUR)
    return {
        name: _array(tensor, kept[tensor.storage.key]) if name in wanted else None
        for name, tensor in state.items()
    }


def _state(state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict):
        raise ValueError(f"a pickled {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name[:100]!r} that is no tensor")
    return state


def _nbytes(storage: Storage) -> int:
    return storage.size * np.dtype(storage.dtype).itemsize


def _array(tensor: Tensor, data: bytes) -> np.ndarray[Any, Any]:
    storage, offset, shape, strides = tensor
    # The farthest number must be there; and a shape of more numbers than there are, which
    # strides of zero can describe, would take up memory once the array is copied.
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if (
        min((offset, *strides)) < 0
        or min(shape, default=1) < 1
        or max(last + 1, math.prod(shape)) > storage.size
        or _nbytes(storage) > len(data)
    ):
        raise ValueError(f"a tensor of shape {str(shape)[:100]} in {len(data):,} bytes")
    numbers = np.frombuffer(data, storage.dtype)[offset:]
    return np.lib.stride_tricks.as_strided(
        numbers, shape, [step * numbers.itemsize for step in strides], writeable=False
    )
