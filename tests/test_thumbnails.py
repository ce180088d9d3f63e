"""Thumbnails: what goes in comes out, the same bytes always, and damage is told."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Workspace
from PIL import Image

from pipeline.errors import InputError
from pipeline.thumbnails import LONGEST_PX, Thumbnails, thumbnail, write_thumbnails

IDS = ["train/00003/00001_00029", "test/00000"]


def picture(width: int, height: int) -> Image.Image:
    """A smooth one, so that JPEG changes it little."""
    ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width))
    return Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1).astype(np.uint8))


def pictures() -> list[tuple[str, bytes]]:
    return [(name, thumbnail(picture(30 + 50 * k, 31))) for k, name in enumerate(IDS)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 64), (64, 64)), ((25, 63), (25, 63)), ((266, 133), (64, 32)), ((2, 900), (1, 64))],
)
def test_the_longest_side_is_at_most_64_px_and_nothing_grows(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = picture(*size)
    small = Image.open(io.BytesIO(thumbnail(image)))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", expected)
    assert image.size == size, "the image given is left as it was"
    assert LONGEST_PX == 64


def test_a_thumbnail_looks_like_its_image() -> None:
    image = picture(40, 50)
    small = np.asarray(Image.open(io.BytesIO(thumbnail(image))), np.int64)
    assert np.abs(small - np.asarray(image)).mean() < 4


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "thumbnails.zip"
    write_thumbnails(path, pictures())
    with Thumbnails(path) as opened:
        assert [(name, opened.jpeg(name)) for name in IDS] == pictures()
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{name}.jpg" for name in IDS]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_the_same_pictures_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_thumbnails(tmp_path / "a", iter(pictures()))
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("sys.platform", "win32")
    write_thumbnails(tmp_path / "b", pictures())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "thumbnails.zip"
    with pytest.raises(InputError, match=r"thumbnails\.zip: no thumbnails; .*`dvc repro prepare`"):
        Thumbnails(path)
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"expected a zip archive of thumbnails, got .*repro -f"):
        Thumbnails(path)
    write_thumbnails(path, pictures())
    with Thumbnails(path) as opened, pytest.raises(InputError, match="no thumbnail of test/00001;"):
        opened.jpeg("test/00001")


def test_any_damaged_byte_is_told_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "thumbnails.zip"
    right = {name: bytes(range(40 * k, 80 * k)) for k, name in enumerate(IDS, start=1)}
    write_thumbnails(path, right.items())
    whole, told = path.read_bytes(), 0
    for place in range(len(whole)):
        for bit in (0, 6):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            path.write_bytes(data)
            try:
                with Thumbnails(path) as opened:
                    read = {name: opened.jpeg(name) for name in IDS}
            except InputError:
                told += 1
            else:
                assert read == right, f"byte {place}, bit {bit}"
    assert told > 2 * sum(map(len, right.values()))


def test_prepare_makes_one_of_each_image(workspace: Workspace) -> None:
    said = workspace.run("stages.prepare")
    assert "data/thumbnails.zip" in said
    index = pd.read_csv(workspace.root / "data/index.csv")
    with zipfile.ZipFile(workspace.root / "data/thumbnails.zip") as archive:
        assert archive.namelist() == [f"{name}.jpg" for name in index["image_id"]]
        for name, width, height in index[["image_id", "width", "height"]].itertuples(index=False):
            size = Image.open(io.BytesIO(archive.read(f"{name}.jpg"))).size
            assert max(size) == min(64, max(width, height))
    before = (workspace.root / "data/thumbnails.zip").read_bytes()
    workspace.run("stages.prepare")
    assert (workspace.root / "data/thumbnails.zip").read_bytes() == before
