"""Where the base's weights come from: checked by hash, read without executing anything."""

import hashlib
import math
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pooch
from numpy.typing import NDArray

from pipeline.caffe import read_caffemodel
from pipeline.errors import UNREADABLE_NPZ, InputError
from pipeline.fetch import fetch, file_name, local_path
from pipeline.npz import read_npz
from pipeline.torch_file import read_pth

Arrays = dict[str, NDArray[np.float32]]
Shapes = Mapping[str, tuple[int, ...]]
DOWNLOADS = Path("data/weights")
SUFFIXES = (".npz", ".npy", ".caffemodel", ".pth")


def load_weights(location: str, sha256: str | None, shapes: Shapes) -> Arrays:
    """The arrays that the network asks for.

    Args:
        location: "seeded", or the path or address of a file, as `read_weights` reads it.
        sha256: Of the file, checked before it is opened. Not looked at for "seeded".
        shapes: What is wanted, as `pipeline.alexnet.weight_shapes` gives it.

    Returns:
        Arrays by name, float32. Layers that were not asked for are left out.

    Raises:
        InputError: No such file, another hash, a missing layer, a wrong shape, a value that is
            not finite, something else than arrays in the file.
    """
    if location == "seeded":
        return seeded_weights(shapes)
    path = obtain_weights(location, sha256)
    return checked_weights(path, read_weights(path, sha256, shapes), shapes)


def load_first_weights(
    sources: Sequence[tuple[str, str | None]], shapes: Shapes, say: Callable[[str], None]
) -> Arrays:
    """The arrays that the network asks for, from the first of several addresses that has them.

    An address is passed over where nothing can be had, or something of another hash. A file of
    the right hash is the one that was meant: what is wrong with its content is an error.

    Args:
        sources: Location and sha256 of each, as `load_weights` takes them, in order.
        shapes: What is wanted.
        say: Told in one line each which were passed over and why, and which was taken; not
            called where there is no choice.

    Raises:
        InputError: As `load_weights`; where there are several, and none can be had, what is wrong
            with each.
    """
    if len(sources) == 1:
        return load_weights(*sources[0], shapes)
    faults = []
    for location, sha256 in sources:
        try:
            path = obtain_weights(location, sha256)
        except InputError as error:
            faults.append(str(error))
            say(f"weights: passed over {location}: {error}")
            continue
        say(f"weights: taken from {location}")
        return checked_weights(path, read_weights(path, sha256, shapes), shapes)
    raise InputError(
        f"base.weights: none of the {len(sources)} addresses has them: {' | '.join(faults)}"
    )


def obtain_weights(location: str, sha256: str | None) -> Path:
    """Fetch a file of weights, if it is not on disk, and check its hash.

    Args:
        location: Path or address.
        sha256: Of the file, lower case; a download must have one.

    Raises:
        InputError: See `weights_path`; no answer from the address, or another hash.
    """
    path = weights_path(location, sha256)
    if local_path(location) is None:
        advice = "name it in base.weights. To try without the weights: make demo"
        fetch(location, f"sha256:{sha256}", DOWNLOADS, advice)
    if sha256 is not None and (got := pooch.file_hash(str(path), alg="sha256")) != sha256:
        raise InputError(
            f"{path}: expected sha256 {sha256}, got {got}; fetch the file anew, or, if these are "
            f"the weights you want, set base.sha256 to {got} (of convert-weights: --sha256)"
        )
    return path


def weights_path(location: str, sha256: str | None) -> Path:
    """Where a file of weights lies, or will lie once it is fetched.

    Args:
        location: Path or address.
        sha256: Of the file, if known.

    Raises:
        InputError: No such file here, a download without a hash, or a kind that is not read.
    """
    path = local_path(location)
    if path is None and sha256 is None:
        raise InputError(
            f"{location}: a download is not taken unchecked; set base.sha256 (of convert-weights: "
            "--sha256)"
        )
    if path is not None and not path.is_file():
        raise InputError(
            f"{path}: no such file; base.weights expects a .npz, .npy, .caffemodel or .pth "
            "file, its address, or `seeded`"
        )
    path = path or DOWNLOADS / file_name(location)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{location}: expected weights in a .npz, .npy, .caffemodel or .pth file")
    return path


def read_weights(path: Path, sha256: str | None, wanted: Shapes) -> dict[str, Any]:
    """What a file of weights holds, by the names and in the order of axes used here.

    Args:
        path: ``.npz`` (arrays ``conv1_W``, ``conv1_b``, …); ``.npy`` in the layout of Guerzhoy
            and Frossard's ``bvlc_alexnet.npy`` (a pickled dict of name to [W, b]);
            ``.caffemodel``; ``.pth`` (the state_dict of torchvision's AlexNet).
        sha256: The file's, already checked. A ``.npy`` must have one, because it is a pickle.
        wanted: Arrays, of about what shapes; of others the value may be None.

    Raises:
        InputError: Another kind of file, or something else than arrays in it.
    """
    match path.suffix:
        case ".npz":
            return _read_npz(path, wanted)
        case ".npy":
            if sha256 is None:
                got = pooch.file_hash(str(path), alg="sha256")
                raise InputError(
                    f"{path}: a .npy of weights is a pickle and is not opened unchecked; "
                    f"if you trust it, set base.sha256 to {got} (of convert-weights: --sha256)"
                )
            return _read_pickled(path)
        case ".caffemodel":
            return read_caffemodel(path, wanted)
        case ".pth":
            return read_pth(path, wanted)
    raise InputError(f"{path}: expected weights in a .npz, .npy, .caffemodel or .pth file")


def checked_weights(path: Path, arrays: Mapping[str, Any], shapes: Shapes) -> Arrays:
    """The arrays wanted, of what a file holds, as float32.

    Raises:
        InputError: One that is missing, of another shape, or not finite.
    """
    return {name: _checked(path, name, arrays, shape) for name, shape in shapes.items()}


def seeded_weights(shapes: Shapes, seed: int = 2012) -> Arrays:
    """Stand-in weights: He's initialisation, biases zero, the same on every machine.

    Each array has a generator of its own, so a layer's weights do not depend on which other
    layers are wanted.
    """

    def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name.endswith("_b"):
            return np.zeros(shape, np.float32)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        scale = np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        return rng.standard_normal(shape, dtype=np.float32) * scale

    return {name: draw(name, shape) for name, shape in shapes.items()}


def weights_digest(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """sha256 over names, shapes and values: the same for the same weights in any file format."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def _checked(
    path: Path, name: str, arrays: Mapping[str, Any], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    if name not in arrays:
        raise InputError(
            f"{path}: no weights {name!r}, which the layers asked for need; "
            f"it has {_listed(arrays)}"
        )
    array = arrays[name]
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise InputError(f"{path}: {name} is no array of floating-point numbers")
    if array.shape != shape:
        raise InputError(f"{path}: {name} has shape {array.shape}; expected {shape}")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, order="C")
    if not np.isfinite(array).all():
        raise InputError(f"{path}: {name} holds values that are not finite")
    return array


def _listed(names: Mapping[str, Any]) -> str:
    # They come from the file: of any length, number, and characters.
    shown = [name if name.isprintable() else ascii(name) for name in sorted(names)]
    return ", ".join(name[:60] for name in shown[:40]) + (", …" if len(shown) > 40 else "")


def _read_npz(path: Path, wanted: Shapes) -> dict[str, Any]:
    # In any precision, and of another variant: torchvision has 0.2 % more numbers than bvlc.
    most_nbytes = 16 * sum(map(math.prod, wanted.values())) + (1 << 20)
    try:
        with path.open("rb") as file:
            # Present but unwanted arrays (fc8, 16 MB) stay unread; their names serve the message.
            return read_npz(file, wanted, most_nbytes)
    except UNREADABLE_NPZ as error:
        got = " ".join(str(error).split())[:300]  # it may quote the file at any length
        raise InputError(f"{path}: expected a .npz of plain arrays, got {got}") from error


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can make NumPy arrays and builtin containers, and nothing else."""

    # How NumPy 1 and 2, under Python 2 and 3, spell the parts of an array.
    ALLOWED = {
        (module, name)
        for core in ("numpy.core", "numpy._core")
        for module, name in (
            (f"{core}.multiarray", "_reconstruct"),
            (f"{core}.multiarray", "scalar"),
            (f"{core}.numeric", "_frombuffer"),
        )
    } | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        """Refuse whatever is not part of an array."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it wants to use {module}.{name}")
        return super().find_class(module, name)


def _read_pickled(path: Path) -> dict[str, Any]:
    def read(file: BinaryIO) -> Any:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        header(file)
        return _ArraysOnly(file, encoding="latin1").load()

    try:
        with path.open("rb") as file:
            # np.save wraps the dict in an array of one object.
            layers = np.asarray(read(file)).item()
        return {
            f"{name}_{part}": a
            for name, ab in layers.items()
            for part, a in zip("Wb", ab, strict=True)
        }
    except (
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        EOFError,
        IndexError,
        pickle.UnpicklingError,
    ) as error:
        raise InputError(
            f"{path}: expected a pickled dict of name to [W, b] and nothing else; {error}"
        ) from error
