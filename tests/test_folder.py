"""A folder of one's own images: read below its root, and never outside of it."""

import os
import re
from pathlib import Path

import pytest

from pipeline.archives import MOST_BYTES, NAMES, Archive
from pipeline.errors import InputError
from pipeline.folder import Folder, opened, own_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one file, and a secret beside it."""
    root = tmp_path / "images"
    (root / "cat").mkdir(parents=True)
    (root / "cat/a.png").write_bytes(b"picture")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


def test_files_are_read_by_their_path_below_the_root(root: Path) -> None:
    assert Folder(root).read("cat/a.png") == b"picture"


def test_links_that_stay_inside_are_followed_and_the_root_may_be_one(root: Path) -> None:
    (root / "dog").symlink_to(root / "cat")
    (root.parent / "link").symlink_to(root)
    assert Folder(root.parent / "link").read("dog/a.png") == b"picture"


@pytest.mark.parametrize(
    "member",
    ["../secret", "cat/../../secret", "cat/../cat/a.png", "/etc/passwd", "{root}/cat/a.png"],
)
def test_names_that_leave_the_folder_are_refused(root: Path, member: str) -> None:
    with pytest.raises(InputError, match="expected a path below this folder, got one that leaves"):
        Folder(root).read(member.format(root=root))


def test_links_that_leave_the_folder_are_refused(root: Path) -> None:
    (root / "cat/file.png").symlink_to(root.parent / "secret")
    (root / "dog").symlink_to(root.parent)
    (root / "cat/there.png").symlink_to("../../images2/a.png")  # its name begins as the root's does
    (root.parent / "images2").mkdir()
    (root.parent / "images2/a.png").write_bytes(b"secret")
    for member in ("cat/file.png", "dog/secret", "cat/there.png"):
        with pytest.raises(InputError, match=r"is a link to .*, outside of this folder; copy"):
            Folder(root).read(member)


def test_what_cannot_be_read_is_told_in_one_line(root: Path) -> None:
    (root / "loop.png").symlink_to("loop.png")
    (root / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(root / "pipe.png")
    with (root / "huge.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    for member, message in {
        "cat/b.png": "is listed but not there; correct the listing, or bring the file back$",
        "dangling.png": "is listed but not there",
        "loop.png": "cannot be read",
        "a\0b.png": "cannot be read",
        "cat": "is no file",
        "pipe.png": "is no file",
        "huge.png": r"has 268,435,457 bytes; expected an image of at most 268,435,456",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            Folder(root).read(member)
        assert "\n" not in str(error.value)


def test_a_folder_or_an_archive_is_opened(root: Path, drawn: Path) -> None:
    assert isinstance(opened(root), Folder)
    assert isinstance(opened(drawn / NAMES["test"]), Archive)
    with pytest.raises(InputError, match="expected a folder of images, got none"):
        Folder(root / "cat/a.png")


def test_the_source_says_what_is_meant(root: Path, drawn: Path) -> None:
    (root / "list.csv").write_text("path,label\n")
    assert own_root(str(root)) == root
    assert own_root(root.as_uri()) == root
    assert own_root(str(root / "list.csv")) == root
    assert own_root("https://example.org/gtsrb") is None
    assert own_root(str(drawn)) is None
    (root / NAMES["test_labels"]).touch()  # an incomplete mirror: the missing archives are told
    assert own_root(str(root)) is None


@pytest.mark.parametrize("source", ["{0}/empty", "{0}/none", "{0}/none.csv", "https://a.org/b.csv"])
def test_a_source_that_is_nothing_names_all_three_kinds(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    source = source.format(tmp_path)
    with pytest.raises(
        InputError,
        match=rf"nothing to read at {re.escape(source)}; expected a local \.csv .*, a folder "
        rf"with a folder of images per class, or .* official archives \({NAMES['train']}, .*demo$",
    ):
        own_root(source)


@pytest.mark.parametrize("ending", ["", ".csv"])
def test_a_source_that_the_system_refuses_is_told(tmp_path: Path, ending: str) -> None:
    source = str(tmp_path / ("a" * 300 + ending))  # names have at most 255 letters
    with pytest.raises(InputError, match=r"prepare\.source: .* (cannot be read|nothing to read)"):
        own_root(source)
