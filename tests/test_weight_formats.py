"""The same weights from Caffe's and PyTorch's files; what such files may carry is refused."""

import hashlib
import pickle
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from numpy.typing import NDArray
from weight_files import (
    blob,
    layer,
    message,
    state_dict,
    tensor,
    text,
    varint,
    write_caffemodel,
    write_pth,
    write_stream,
    write_zip,
)

from pipeline.alexnet import build, weight_shapes
from pipeline.channels_first import channels_last
from pipeline.errors import InputError
from pipeline.weights import Arrays, load_weights, weights_digest

SHAPES = {"conv1_W": (2, 2, 3, 4), "conv1_b": (4,), "fc6_W": (72, 5), "fc6_b": (5,)}
RNG = np.random.default_rng(0)
ARRAYS = {name: RNG.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
WRITERS: dict[str, Callable[[Path, Arrays], Path]] = {
    "old.caffemodel": lambda path, arrays: write_caffemodel(path, arrays, legacy=True),
    "new.caffemodel": lambda path, arrays: write_caffemodel(path, arrays, legacy=False),
    "zip.pth": write_pth,
    "stream.pth": lambda path, arrays: write_pth(path, arrays, stream=True),
}
every_format = pytest.mark.parametrize("name", WRITERS)


def written(folder: Path, name: str, arrays: Arrays = ARRAYS) -> Path:
    return WRITERS[name](folder / name, arrays)


def load(path: Path) -> Arrays:
    return load_weights(str(path), None, SHAPES)


@every_format
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    loaded = load(written(tmp_path, name))
    assert list(loaded) == list(SHAPES)
    for part, array in ARRAYS.items():
        assert loaded[part].dtype == np.float32
        np.testing.assert_array_equal(loaded[part], array)
    assert weights_digest(loaded) == weights_digest(ARRAYS)


def narrow_weights() -> Arrays:
    rng = np.random.default_rng(1)
    shapes = weight_shapes("narrow", ["fc8"])
    return {
        name: rng.standard_normal(shape, np.float32)
        * np.float32(0.5 if name.endswith("_b") else (2 / np.prod(shape[:-1])) ** 0.5)
        for name, shape in shapes.items()
    }


def test_the_same_weights_give_the_same_features_whatever_the_format(tmp_path: Path) -> None:
    given = narrow_weights()
    np.savez(tmp_path / "w.npz", **given)  # type: ignore[arg-type]
    pairs = {name[:-2]: [given[name], given[f"{name[:-2]}_b"]] for name in given if "_W" in name}
    np.save(tmp_path / "w.npy", pairs, allow_pickle=True)  # type: ignore[arg-type]
    paths = [
        tmp_path / "w.npz",
        tmp_path / "w.npy",
        *(written(tmp_path, n, given) for n in WRITERS),
    ]
    image = np.random.default_rng(0).integers(0, 256, (2, 227, 227, 3), np.uint8)
    taps, features = ["pool5", "fc6", "fc8"], []
    for path in paths:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        arrays = load_weights(str(path), sha256, weight_shapes("narrow", taps))
        assert weights_digest(arrays) == weights_digest(given)
        features.append(build("narrow", arrays, taps)(image))
    for other in features[1:]:
        for tap in taps:
            np.testing.assert_array_equal(other[tap], features[0][tap])


def test_the_order_of_axes_gives_the_same_sums() -> None:
    patch = RNG.standard_normal((3, 2, 2))  # channels first
    conv = RNG.standard_normal((4, 3, 2, 2))
    ours = channels_last("conv1_W", conv)
    sums = [(kernel * patch).sum() for kernel in conv]
    np.testing.assert_allclose(
        np.einsum("hwi,hwio->o", patch.transpose(1, 2, 0), ours), sums, rtol=1e-12
    )
    maps = RNG.standard_normal((2, 6, 6))
    dense = RNG.standard_normal((5, 72))
    np.testing.assert_allclose(
        maps.transpose(1, 2, 0).ravel() @ channels_last("fc6_W", dense),
        dense @ maps.ravel(),
        rtol=1e-12,
    )
    # fc7 reads features that have no place.
    np.testing.assert_array_equal(channels_last("fc7_W", dense), dense.T)


@every_format
def test_layers_not_asked_for_are_left_out(tmp_path: Path, name: str) -> None:
    wanted = {"fc6_b": (5,)}
    loaded = load_weights(str(written(tmp_path, name)), None, wanted)
    assert set(loaded) == set(wanted)
    np.testing.assert_array_equal(loaded["fc6_b"], ARRAYS["fc6_b"])


@every_format
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {k: w[k] for k in ("conv1_W", "conv1_b")}, r"no weights 'fc6_W'.* it has conv1"),
        (
            lambda w: w | {"fc6_W": np.ones((72, 6))},
            r"fc6_W has shape \(72, 6\); expected",
        ),
        (lambda w: w | {"fc6_W": np.ones((71, 5))}, r"fc6_W has shape \(71, 5\)"),
        (lambda w: w | {"conv1_W": np.ones((2, 2, 4, 3))}, r"conv1_W has shape \(2, 2, 4, 3\)"),
        (lambda w: w | {"fc6_b": np.float32([1, 2, np.nan, 4, 5])}, "fc6_b holds values that are"),
    ],
    ids=["missing", "outputs", "inputs", "channels", "nan"],
)
def test_unfit_arrays(tmp_path: Path, name: str, change: Any, message: str) -> None:
    path = written(tmp_path, name, change(ARRAYS))
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {message}"):
        load(path)


@every_format
def test_cut_short_anywhere(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    data = path.read_bytes()
    for kept in range(0, len(data), 23):
        path.write_bytes(data[:kept])
        with pytest.raises(InputError, match=r"expected a |no weights ") as error:
            load(path)
        assert "\n" not in str(error.value)


@every_format
def test_any_byte_altered_gives_one_line_or_arrays(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    data = path.read_bytes()
    rng = np.random.default_rng(2)
    for place in rng.integers(0, len(data), 100).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            loaded = load(path)
        except InputError as error:
            assert len(str(error)) < 2000  # noqa: PT017 (either is right)
        else:
            assert {k: v.shape for k, v in loaded.items()} == SHAPES


@pytest.mark.parametrize("ending", ["caffemodel", "pth"])
@pytest.mark.parametrize(
    "content", [b"", b"anything", b"<!DOCTYPE html><html></html>", b"PK\3\4" + bytes(40), bytes(99)]
)
def test_something_else(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"w.{ending}"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=f"^{re.escape(str(path))}: expected a (network|state_dict)"
    ):
        load(path)


# Caffe


def test_caffe_in_double_precision(tmp_path: Path) -> None:
    doubles = {name: array.astype(np.float64) for name, array in ARRAYS.items()}
    path = write_caffemodel(tmp_path / "w.caffemodel", doubles, legacy=False)
    assert weights_digest(load(path)) == weights_digest(ARRAYS)


@pytest.mark.parametrize("legacy", [False, True])
def test_caffenet_is_not_taken_for_alexnet(tmp_path: Path, legacy: bool) -> None:
    path = write_caffemodel(tmp_path / "w.caffemodel", ARRAYS, legacy=legacy)
    data = path.read_bytes()
    norm, pool = (layer(name, [], legacy=legacy) for name in ("norm1", "pool1"))
    path.write_bytes(data + norm + pool)
    assert weights_digest(load(path)) == weights_digest(ARRAYS)
    path.write_bytes(data + pool + norm)
    with pytest.raises(InputError, match=r"expected AlexNet, got CaffeNet .*; take bvlc_alexnet"):
        load(path)


def claiming(*dims: int) -> bytes:
    """A blob that holds one number and says this of its shape."""
    return message(7, message(1, b"".join(map(varint, dims)))) + message(5, bytes(4))


@pytest.mark.parametrize(
    "data",
    [
        layer("conv1", [claiming(1 << 40, 1 << 40)], legacy=False),
        layer("conv1", [claiming((1 << 64) - 1)], legacy=False),  # minus one
        layer("conv1", [claiming(*[1] * 5)], legacy=False),
        layer("conv1", [claiming(2)], legacy=True),
        layer("conv1", [message(5, bytes(5))], legacy=False),
        layer("conv1", [claiming(1), claiming(1)], legacy=True) * 2,
        varint(100 << 3 | 2) + varint(1 << 62) + b"x",
        varint(100 << 3 | 2) + b"\xff" * 11,
        varint(100 << 3 | 3) * 10_000,  # a group in a group in a group ...
    ],
    ids=["petabytes", "negative", "axes", "one short", "torn", "twice", "length", "varint", "deep"],
)
def test_absurd_caffemodels(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"expected a network saved by Caffe, got ") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_names_of_layers_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    blobs = [blob(np.ones(1), legacy=False)]
    names = ["\x1b[2Jowned", "x" * 999, *(f"y{k:02}" for k in range(100))]
    path.write_bytes(b"".join(layer(name, blobs, legacy=False) for name in names))
    shown = r"it has '\\x1b\[2Jowned_W', x{60}, y00_W, .*, …$"
    with pytest.raises(InputError, match=shown) as error:
        load(path)
    assert "y37_W" in str(error.value)
    assert "y38_W" not in str(error.value)
    path.write_bytes(layer("\x1b[2J" * 999, blobs, legacy=False) * 2)
    with pytest.raises(InputError, match=r"got '(\\x1b\[2J){15}' is there twice$"):
        load(path)


# PyTorch

# The files in tests/data are PyTorch 2.14's, of random numbers:
#
#   rng, state = numpy.random.default_rng(7), {}
#   for name, shape in REAL.items():
#       state[name] = torch.tensor(rng.standard_normal(shape, numpy.float32))
#   torch.save(state, "torch_zip.pth")
#   torch.save(state, "torch_protocol_4.pth", pickle_protocol=4)
#   torch.save(state, "torch_stream.pth", _use_new_zipfile_serialization=False)
#   state = {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}
#   torch.save(state, "torch_parameters.pth")
REAL = {
    "features.0.weight": (4, 3, 2, 2),
    "features.0.bias": (4,),
    "classifier.1.weight": (5, 72),
    "classifier.1.bias": (5,),
}


def real_arrays() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(7)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in REAL.items()}


def assert_real(loaded: Arrays) -> None:
    for old, new in zip(real_arrays().values(), SHAPES, strict=True):
        np.testing.assert_array_equal(loaded[new], channels_last(new, old))


@pytest.mark.parametrize("name", ["zip", "protocol_4", "stream", "parameters"])
def test_files_that_pytorch_wrote(name: str) -> None:
    assert_real(load(ROOT / f"tests/data/torch_{name}.pth"))


def test_whatever_pytorch_writes_today(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    plain = {name: torch.tensor(array) for name, array in real_arrays().items()}
    weight = plain["features.0.weight"]
    other = {
        "doubles": {name: value.double() for name, value in plain.items()},
        "parameters": {name: torch.nn.Parameter(value) for name, value in plain.items()},
        "channels last": plain
        | {"features.0.weight": weight.to(memory_format=torch.channels_last)},
        "views": {name: torch.stack([value, value + 1])[0] for name, value in plain.items()},
        "later views": {name: torch.stack([value + 1, value])[1] for name, value in plain.items()},
        "transposed": plain | {"classifier.1.weight": plain["classifier.1.weight"].T.clone().T},
    }
    path = tmp_path / "w.pth"
    for state in (plain, *other.values()):
        for as_zip in (True, False):
            for protocol in (2, 3, 4, 5):
                torch.save(
                    state,
                    path,
                    pickle_protocol=protocol,
                    _use_new_zipfile_serialization=as_zip,
                )
                assert_real(load(path))
    for state in (plain["features.0.bias"], [plain], {"state": plain}, torch.nn.Linear(2, 2)):
        for as_zip in (True, False):
            torch.save(state, path, _use_new_zipfile_serialization=as_zip)
            with pytest.raises(InputError, match="expected a state_dict saved by PyTorch"):
                load(path)


def test_torchvisions_network_by_pytorch_itself(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    nn = torch.nn
    torch.manual_seed(0)
    net = nn.Module()
    net.features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    net.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000),
    )  # fmt: skip
    torch.save(net.state_dict(), tmp_path / "w.pth")
    image = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    mean, std = np.float32([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    seen = torch.tensor(((image / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))
    with torch.no_grad():
        scores = net.eval().classifier(net.features(seen).flatten(1)).numpy()
    arrays = load_weights(str(tmp_path / "w.pth"), None, weight_shapes("torchvision", ["fc8"]))
    ours = build("torchvision", arrays, ["fc8"]).predict_on_batch(image)["fc8"]
    error = np.linalg.norm(ours - scores) / np.linalg.norm(scores)
    print(f"relative error of fc8 {error:.1e}")
    assert error < 1e-5


def called(module: str, name: str, argument: str, how: str) -> bytes:
    """Operations that call a function on a text, in each of the ways that pickle knows."""
    named = f"{module}\n{name}\n".encode()
    return {
        "reduce": b"c" + named + text(argument) + b"\x85R",
        "stack": text(module) + text(name) + b"\x93" + text(argument) + b"\x85R",
        "inst": b"(" + text(argument) + b"i" + named,
        "obj": b"(c" + named + text(argument) + b"o",
        "new": b"c" + named + text(argument) + b"\x85\x81",
        "build": b"c" + named + b"}" + text("x") + text(argument) + b"sb" + b"0",
    }[how]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["reduce", "stack", "inst", "obj", "new"])
@pytest.mark.parametrize("place", ["instead", "beside", "as a note"])
def test_code_in_a_pickle_is_refused_and_not_executed(
    tmp_path: Path, stream: bool, how: str, place: str
) -> None:
    victim = tmp_path / "victim"
    attack = called("os", "mkdir", str(victim), how)
    if how not in ("new", "inst", "obj"):  # which want a class, and get it below
        pickle.loads(b"\x80\x04" + attack + b".")
        assert victim.is_dir()
        victim.rmdir()
    pickled, storages = state_dict(ARRAYS)
    content = {
        "instead": b"\x80\x04" + attack + b".",
        "beside": pickled[:-2] + text("extra") + attack + b"u.",
        "as a note": pickled[:-1] + b"}" + text("_metadata") + attack + b"sb.",
    }[place]
    path = (write_stream if stream else write_zip)(tmp_path / "w.pth", content, storages)
    with pytest.raises(InputError, match=r"nothing else, got .*(wants to call|operation)"):
        load(path)
    assert not victim.exists()


def test_a_class_is_not_made_either(tmp_path: Path) -> None:
    victim = tmp_path / "victim.zip"
    for how in ("inst", "obj", "reduce"):
        attack = b"\x80\x02(" + text(str(victim)) + text("w") + b"izipfile\nZipFile\n."
        pickle.loads(attack)
        assert victim.exists()
        victim.unlink()
        path = write_zip(tmp_path / "w.pth", attack, {})
        with pytest.raises(InputError, match="an operation INST"):
            load(path)
        assert not victim.exists(), how


@pytest.mark.parametrize("name", ["torch.load", "torch._utils._rebuild_tensor", "builtins.eval"])
def test_other_functions_of_pytorch_are_not_known(tmp_path: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    path = write_zip(
        tmp_path / "w.pth", b"\x80\x02" + called(module, function, "x", "reduce") + b".", {}
    )
    with pytest.raises(InputError, match=f"wants to call '{module} {function}'"):
        load(path)
    write_zip(path, f"\x80\x02c{module}\n{function}\n)R.".encode("latin1"), {})
    with pytest.raises(InputError, match=f"wants to call '{module} {function}'"):
        load(path)


def only(entry: bytes) -> bytes:
    """The pickle of a state_dict with one more entry, conv1's bias."""
    return b"\x80\x02}(" + text("features.0.bias") + entry + b"u."


# A pair of a pair of a pair ..., 2 ** 60 leaves in a few hundred bytes.
DOUBLED = b"\x80\x02K\x00" + b"".join(b"q%ch%c\x86" % (k, k) for k in range(60))


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_a_view_of_other_numbers(tmp_path: Path, write: Any) -> None:
    numbers = np.arange(20, dtype=np.float32)
    view = tensor("0", 20, (2, 3), (1, 4), "FloatStorage", offset=5)
    pickled = b"\x80\x02}" + text("classifier.4.weight") + view + b"s."
    path = write(tmp_path / "w.pth", pickled, {"0": numbers.tobytes()})
    np.testing.assert_array_equal(
        load_weights(str(path), None, {"fc7_W": (3, 2)})["fc7_W"], [[5, 6], [9, 10], [13, 14]]
    )


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (only(tensor("0", 1, (1 << 30, 1 << 30), (0, 0), "FloatStorage")), "a tensor of shape"),
        (only(tensor("0", 4, (5,), (1,), "FloatStorage")), "a tensor of shape"),
        (only(tensor("0", 5, (5,), (1,), "FloatStorage")), "a tensor of shape .* in 16 bytes"),
        (only(tensor("0", 4, (2,), (-1,), "FloatStorage")), "a tensor of shape"),
        (only(tensor("0", 4, (2, 2), (1,), "FloatStorage")), "shorter"),
        (only(tensor("0", 4, (4,), (1,), "LongStorage")), "kept as 'torch LongStorage'"),
        (only(tensor("9", 4, (4,), (1,), "FloatStorage")), "no item named 'archive/data/9'"),
        (only(tensor("../0", 4, (4,), (1,), "FloatStorage")), r"no item named 'archive/data/\.\.")
        ,
        (only(b"N"), "'features.0.bias' that is no tensor"),
        (b"\x80\x02]K\x01a.", "a pickled list"),
        (b"\x80\x02}K\x01K\x02s.", "a key that is no text but int"),
        (b"\x80\x02a.", "makes no sense"),
        (b"\x80\x02h\x07.", "makes no sense"),
        (b"\x80\x02N", "STOP"),
        (b"\x80\x02K\x00" + b"\x85" * 200_000 + b".", "a pickled tuple"),
        (DOUBLED + b"Q.", "refers to something else"),
        (DOUBLED + b")R.", "calls what it made itself"),
        (DOUBLED + text("x") + b"\x93.", "makes no sense"),
        (b"\x80\x02" + b"N" * 200_000 + b"(t" * 100_000 + b".", "a pickled tuple"),
        (only(tensor("0", 4, [1] * 9, [1] * 9, "FloatStorage")), "a shape of at most 8"),
        (only(tensor("0", 4, (3,), (1,), "FloatStorage", offset=2)), "a tensor of shape"),
        (b"\x80\x02" + b"N" * (1 << 20) + b".", "compressed, or of 1,048,579 bytes"),
    ],
    ids=["stride 0", "too long", "too few bytes", "negative", "axes", "kind", "absent", "elsewhere",
         "none", "list", "key", "underflow", "memo", "endless", "deep", "doubled",
         "doubled call", "doubled name", "marks", "nine axes", "offset", "large"],
)  # fmt: skip
def test_absurd_pickles(tmp_path: Path, pickled: bytes, message: str) -> None:
    path = write_zip(tmp_path / "w.pth", pickled, {"0": bytes(16)})
    with pytest.raises(InputError, match=f"and nothing else, got .*{message}") as error:
        load_weights(str(path), None, {"conv1_b": (4,)})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@contextmanager
def at_most(nbytes: int) -> Iterator[None]:
    """Fails if more memory is taken at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < nbytes
    finally:
        tracemalloc.stop()


def test_what_takes_no_memory_here(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), at_most(10 << 20):
        bytes(11 << 20)
    path = write_zip(tmp_path / "w.pth", b"\x80\x02K\x00r\xff\xff\xff\x0f.", {})
    with at_most(10 << 20), pytest.raises(InputError, match="a pickled int"):
        load(path)  # where pickle makes room for 2 ** 29 entries of its memo
    path = tmp_path / "w.caffemodel"
    path.write_bytes(layer("conv1", [claiming(1 << 20, 1 << 10)], legacy=False))
    with at_most(10 << 20), pytest.raises(InputError, match="in 4 bytes"):
        load(path)


@pytest.mark.parametrize("claimed", [None, 1000])
def test_a_bomb_in_a_pth_is_refused_unopened(tmp_path: Path, claimed: int | None) -> None:
    path = tmp_path / "w.pth"
    pickled, _ = state_dict({"conv1_b": np.zeros(1000, np.float32)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        member = zipfile.ZipInfo("archive/data/0")
        member.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(member, "w") as file:
            for _ in range(128):
                file.write(bytes(1 << 20))
            file.write(bytes(0x12345))  # so that the size is found below, and nothing else
    if claimed is not None:  # in the local header and in the directory
        sizes = struct.pack("<I", (1 << 27) + 0x12345), struct.pack("<I", claimed)
        path.write_bytes(path.read_bytes().replace(*sizes))
    assert path.stat().st_size < 1 << 20
    with at_most(10 << 20), pytest.raises(InputError, match="data/0' compressed, or of"):
        load_weights(str(path), None, {"conv1_b": (1000,)})


def test_names_of_members_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("\x1b[2J" * 999 + "/data.pkl", b"")
    with pytest.raises(InputError, match=r"got '(\\x1b\[2J){15}' compressed, or of"):
        load(path)
    write_zip(path, only(tensor("\x1b[2J" * 999, 4, (4,), (1,), "FloatStorage")), {})
    with pytest.raises(InputError, match="There is no item named") as error:
        load_weights(str(path), None, {"conv1_b": (4,)})
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 500 + len(str(path))


def test_numbers_announced_and_not_there(tmp_path: Path) -> None:
    pickled, storages = state_dict(ARRAYS)
    path = write_stream(tmp_path / "w.pth", pickled, storages)
    data = path.read_bytes()
    place = data.rindex(struct.pack("<q", 5))  # of the last bias
    path.write_bytes(data[:place] + struct.pack("<q", 1 << 60) + data[place + 8 :])
    with pytest.raises(InputError, match=f"{1 << 60} numbers where 5 were announced"):
        load(path)
    huge = only(tensor("0", 2**31 - 1, (4,), (1,), "FloatStorage"))
    path = write_stream(path, huge, {"0": b""})
    data = path.read_bytes()
    path.write_bytes(data[:-8] + struct.pack("<q", 2**31 - 1))
    with pytest.raises(InputError, match="more numbers announced than the file can hold"):
        load(path)


def test_numbers_without_a_list_of_them(tmp_path: Path) -> None:
    pickled, storages = state_dict(ARRAYS)
    path = write_stream(tmp_path / "w.pth", pickled, storages)
    keys = pickle.dumps(list(storages), 2)
    path.write_bytes(path.read_bytes().replace(keys, b"\x80\x02N."))
    with pytest.raises(InputError, match="no list of its numbers"):
        load(path)


def test_big_endian_numbers_are_refused(tmp_path: Path) -> None:
    pickled, storages = state_dict(ARRAYS)
    path = write_stream(tmp_path / "w.pth", pickled, storages, little_endian=False)
    with pytest.raises(InputError, match="big-endian"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(InputError, match="big-endian"):
        load(path)
