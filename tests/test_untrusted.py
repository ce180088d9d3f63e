"""Attacks that a file from outside may carry; the others stand beside what they attack."""

import io
import json
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from numpy.lib import format as npy
from numpy.typing import NDArray
from stores import columns_for, make_store
from typer.testing import CliRunner

from cache.spec import Layout
from pipeline import archives
from pipeline.archives import NAMES, Archive
from pipeline.errors import InputError
from pipeline.saved import load_head
from pipeline.signs import index_images
from pipeline.weights import load_weights
from stages.__main__ import app
from stages.demo import draw_archives


def test_members_that_point_elsewhere_leave_nothing_there(tmp_path: Path) -> None:
    drawn = tmp_path / "a/b/drawn"
    drawn.mkdir(parents=True)
    draw_archives(drawn, classes=range(3))
    target = tmp_path / "outside"
    with zipfile.ZipFile(drawn / NAMES["train"], "a") as archive:
        up = "GTSRB/Final_Training/Images/../../../../outside"
        for name in ("../../outside", str(target), up):
            archive.writestr(name, b"owned")
        link = zipfile.ZipInfo("GTSRB/Final_Training/Images/00000/00000_00099.ppm")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    before = sorted(tmp_path.rglob("*"))
    opened = {part: Archive(drawn / name) for part, name in NAMES.items()}
    index = index_images(opened)
    assert len(index) > 0
    assert not index["member"].str.contains("outside|00099").any()
    assert opened["train"].read(link.filename) == b"/etc/passwd"  # its bytes, never followed
    assert sorted(tmp_path.rglob("*")) == before


def bomb(path: Path, claimed: int | None = None, member: str = "x") -> None:
    """An archive with a member of half a GiB of zeros, half a megabyte packed."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(member, "w") as file,
    ):
        for _ in range(512):
            file.write(bytes(1 << 20))
    if claimed is not None:  # in the local header and in the directory
        data = path.read_bytes().replace(struct.pack("<I", 1 << 29), struct.pack("<I", claimed))
        path.write_bytes(data)


def test_a_bomb_is_refused_unopened(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.zip")
    assert (tmp_path / "bomb.zip").stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"x unpacks to 536,870,912 bytes; expected .* at most"):
        Archive(tmp_path / "bomb.zip").read("x")


def test_a_bomb_that_claims_to_be_small_unpacks_to_no_more(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.zip", claimed=1000)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"x is damaged \(.*; fetch the archive anew"):
            Archive(tmp_path / "bomb.zip").read("x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_what_real_images_need_is_far_below_the_limit() -> None:
    assert archives.MOST_BYTES > 266 * 266 * 3 * 100


def absurd() -> bytes:
    """An array whose header speaks of petabytes, in a few bytes."""
    file = io.BytesIO()
    npy.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 25, 1 << 25)}
    )
    return file.getvalue()


def npz(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", absurd())


def test_weights_of_absurd_shape_are_one_line(tmp_path: Path) -> None:
    npz(tmp_path / "w.npz", "conv1_W", "conv1_b")
    with pytest.raises(InputError, match=r"w\.npz: expected a \.npz of plain arrays, got "):
        load_weights(str(tmp_path / "w.npz"), None, {"conv1_W": (3,), "conv1_b": (3,)})


def head_in(folder: Path) -> Path:
    """A folder with the settings of a head of two classes; returns where its arrays belong."""
    document = {
        "kind": "ridge",
        "settings": {"scaling": "l2", "components": None, "alpha": 0.1},
        "temperature": 1.0,
        "facts": {},
    }
    (folder / "head.json").write_text(json.dumps(document))
    return folder / "arrays.npz"


HEAD = {
    "classes": np.int64([3, 5]),
    "W0": np.float32([[1, 2], [3, 4], [5, 6]]),
    "b0": np.float32([7, 8]),
    "scaling_mean_": np.float32([9, 10, 11]),
}


def test_a_head_of_absurd_shape_is_one_line(tmp_path: Path) -> None:
    npz(head_in(tmp_path), *HEAD)
    with pytest.raises(InputError, match=r"not a saved head: .*; run `dvc repro`"):
        load_head(tmp_path)


@contextmanager
def little_memory() -> Iterator[None]:
    """See that what is done within takes no room for half a GiB of zeros."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("claimed", [None, 1000])
def test_a_bomb_in_weights_or_a_head_is_refused(tmp_path: Path, claimed: int | None) -> None:
    bomb(tmp_path / "w.npz", claimed, "conv1_W.npy")
    bomb(head_in(tmp_path), claimed, "W0.npy")
    said = "arrays of 536,870,912 bytes; expected at most " if claimed is None else ""
    with little_memory(), pytest.raises(InputError, match=f"npz of plain arrays, got {said}"):
        load_weights(str(tmp_path / "w.npz"), None, {"conv1_W": (3,)})
    with little_memory(), pytest.raises(InputError, match=f"not a saved head: {said}"):
        load_head(tmp_path)


@pytest.mark.parametrize("entry", ["weights", "head"])
@pytest.mark.filterwarnings("ignore:Reading")  # NumPy's, of a header that Python 2 could have made
def test_whatever_bit_is_flipped_no_other_arrays_come_of_it(tmp_path: Path, entry: str) -> None:
    def read() -> list[NDArray[Any]]:
        if entry == "weights":
            weights = load_weights(str(path), None, {k: HEAD[k].shape for k in ("W0", "b0")})
            return list(weights.values())
        return list(load_head(tmp_path)[0].state().values())

    path = head_in(tmp_path)
    np.savez(path, **HEAD)  # type: ignore[arg-type]
    data, whole, told = path.read_bytes(), read(), 0
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = read()
        except InputError as error:
            told += 1
            assert len(str(error)) < 500  # noqa: PT017 (either is right)
        else:
            for array, wanted in zip(found, whole, strict=True):
                assert array.dtype == wanted.dtype
                np.testing.assert_array_equal(array, wanted)
    assert told > 3 * len(data)


def test_the_limit_of_numpy_is_what_refuses_it() -> None:
    with pytest.raises((MemoryError, ValueError)):
        np.load(io.BytesIO(absurd()))


HOSTILE = "\x1b]0;owned\x07\n"


def test_a_strangers_store_cannot_steer_a_terminal(tmp_path: Path) -> None:
    layout, stores = Layout(21, {f"fc6{HOSTILE}": 3, "fc7": 5}), [tmp_path / "a", tmp_path / "b"]
    for path in stores:
        columns = columns_for(layout.rows) | {f"x{HOSTILE}": np.arange(21) + len(path.name)}
        columns["split"] = np.array([f"train{HOSTILE}"] * 21)
        columns["image_id"] = np.array([f"{path.name}{HOSTILE}{row // 2 * 2}" for row in range(21)])
        made_by = {"weights": f"{path.name}{HOSTILE}", "layers": [f"fc6{HOSTILE}"]}
        make_store(path, layout, columns=columns, made_by=made_by)
    for args in (["info", "a"], ["diff", "a", "b"]):
        said = CliRunner().invoke(app, [args[0], *(str(tmp_path / name) for name in args[1:])])
        assert said.exit_code == (args[0] == "diff"), said.output
        assert said.output.count(r"\x1b]0;owned\x07\n") > 3
        assert "\x1b" not in said.output


@pytest.mark.parametrize("error", ["InputError", "StoreError", "DamagedError"])
def test_no_error_can_steer_a_terminal(error: str) -> None:
    code = (
        "from cache.errors import *\nfrom pipeline.errors import *\n"
        "from stages.console import run\n"
        f"def main(): raise {error}({HOSTILE!r})\n"
        "run(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "error: \\x1b]0;owned\\x07\\n\n"
