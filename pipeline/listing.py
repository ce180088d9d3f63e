"""A person's own images as they list them: folders of classes, or a CSV. No image is opened here.

Nothing is left out silently: what is neither hidden nor an operating system's own is an image in
its place, or an error.
"""

import csv
import difflib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.images import named_as_image
from pipeline.views import Box

SPLITS = ("train", "test")
REGION = ("roi_x1", "roi_y1", "roi_x2", "roi_y2")
CSV_COLUMNS = ("path", "label", "group", "split", *REGION)
# Names that say which part of the data a folder is, and not which class.
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}
_NOT_DATA = {"thumbs.db", "ehthumbs.db", "desktop.ini"}  # Windows leaves them in folders


class Listed(NamedTuple):
    """One image.

    Attributes:
        member: Its path below the root, with "/".
        label: Its class's name.
        group: Equal for images of one object; "" for one that is on its own.
        split: "train" or "test"; "" where none is given.
        region: Region of interest; None for the whole image.
    """

    member: str
    label: str
    group: str
    split: str
    region: Box | None


def list_folder(root: Path) -> list[Listed]:
    """Images of ``ROOT/CLASS/[GROUP/]image``, or of ``ROOT/train/…`` and ``ROOT/test/…``.

    Args:
        root: The folder.

    Raises:
        InputError: Anything but images where they are expected; folders too deep; no class
            folders; parts other than train and test.
    """
    entries = _entries(root)
    names = [entry.name for entry in entries if entry.is_dir()]
    if names and {name.lower() for name in names} <= _PARTS:
        if set(names) != set(SPLITS):
            raise InputError(
                f"{root}: expected the folders train and test, got {' and '.join(names)}; images "
                "to validate on belong to train, of which validation is drawn by group"
            )
        _check_no_image(entries, f"{root}/train/CLASS/image")
        return [
            image for split in SPLITS for image in _of_classes(root / split, f"{split}/", split)
        ]
    if set(SPLITS) <= set(names):
        other = next(name for name in names if name not in SPLITS)
        raise InputError(
            f"{root}: {other!r} stands beside train and test; expected them alone, with the "
            "classes in each, or classes alone"
        )
    return list(_of_classes(root, "", ""))


def _of_classes(folder: Path, prefix: str, split: str) -> Iterator[Listed]:
    entries = _entries(folder)
    _check_no_image(entries, f"{folder}/CLASS/image")
    for entry in entries:
        if entry.is_dir():
            yield from _of_class(Path(entry), f"{prefix}{entry.name}", entry.name, split)


def _check_no_image(entries: list[os.DirEntry[str]], expected: str) -> None:
    for entry in entries:
        if named_as_image(entry.name) and not entry.is_dir():
            raise InputError(f"{entry.path}: an image outside of any class; expected {expected}")


def _of_class(folder: Path, member: str, label: str, split: str) -> Iterator[Listed]:
    if not (entries := _entries(folder)):
        raise InputError(f"{folder}: no images of this class; add some, or remove the folder")
    for entry in entries:
        if not entry.is_dir():
            yield Listed(_image(entry, member), label, "", split, None)
            continue
        if not (images := _entries(Path(entry))):
            raise InputError(f"{entry.path}: no images of this group; add some, or remove it")
        for inner in images:
            if inner.is_dir():
                raise InputError(
                    f"{inner.path}: a folder inside a group; expected images, as in "
                    "CLASS/GROUP/image"
                )
            # The same name under another class is another group.
            group = f"{label}/{entry.name}"
            yield Listed(_image(inner, f"{member}/{entry.name}"), label, group, split, None)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name; without what is hidden or an operating system's own.

    Raises:
        InputError: It is gone or cannot be read, a name in it cannot be printed, or a link in it
            leads in a circle.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: expected a folder of images, got {error}") from error
    entries = [e for e in entries if e.name[0] != "." and e.name.lower() not in _NOT_DATA]
    for entry in entries:
        if not entry.name.isprintable():
            raise InputError(
                f"{folder}: {entry.name!a}: a name that cannot be printed; give it another"
            )
        try:
            entry.is_dir()  # whose answer is kept
        except OSError as error:  # links in a circle
            raise InputError(
                f"{entry.path}: expected an image or a folder, got {error.strerror}; remove it"
            ) from error
    return entries


def _image(entry: os.DirEntry[str], folder: str) -> str:
    if not named_as_image(entry.name):
        raise InputError(
            f"{entry.path}: not an image by its name; expected images alone in folders of classes; "
            "move it away, or hide it with a leading dot"
        )
    return f"{folder}/{entry.name}"


def list_csv(path: Path) -> list[Listed]:
    """Images that a CSV lists: ``path,label``, and if there are such columns, the others.

    Args:
        path: UTF-8, commas, a header; paths in it are relative to its folder.

    Raises:
        InputError: Not such a table, an unknown column, a value that is none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            _check_columns(path, columns)
            listed = [_row(f"{path}: line {reader.line_num}", row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV in UTF-8, got {error}") from error
    seen: set[str] = set()
    for image in listed:
        if image.member in seen:
            raise InputError(f"{path}: {image.member!r} is listed twice; expected each image once")
        seen.add(image.member)
    return listed


def _check_columns(path: Path, columns: list[str]) -> None:
    for name in columns:
        if name not in CSV_COLUMNS:
            near = difflib.get_close_matches(name, CSV_COLUMNS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"expected {','.join(CSV_COLUMNS)}"
            raise InputError(f"{path}: unknown column {name!r}; {hint}")
    if len(set(columns)) < len(columns):
        raise InputError(f"{path}: a column is there twice; got {','.join(columns)}")
    if missing := [name for name in CSV_COLUMNS[:2] if name not in columns]:
        raise InputError(f"{path}: no column {missing[0]!r}; expected at least path,label")
    if 0 < len(absent := [name for name in REGION if name not in columns]) < len(REGION):
        raise InputError(f"{path}: no column {absent[0]!r}; expected all of {','.join(REGION)}")


def _row(where: str, row: dict[str, str]) -> Listed:
    if None in row or None in row.values():
        raise InputError(f"{where}: expected as many values as there are columns")
    for name, value in row.items():
        if not value.isprintable():
            raise InputError(f"{where}: {name} {value!a} cannot be printed; expected plain text")
    for name in ("path", "label"):
        if not row[name].strip():
            raise InputError(f"{where}: no {name}; expected one in every line")
    for name in ("path", "label", "group"):
        if (value := row.get(name, "")) != value.strip():
            raise InputError(f"{where}: {name} {value!r} has a space at its edge; remove it")
    member = PurePosixPath(row["path"])
    if member.is_absolute() or ".." in member.parts:
        raise InputError(
            f"{where}: path {row['path']!r}; expected one relative to the CSV, in its folder or "
            "below"
        )
    split = row.get("split", "")
    if "split" in row and split not in SPLITS:
        raise InputError(f"{where}: split {split!r}; expected train or test")
    return Listed(str(member), row["label"], row.get("group", ""), split, _region(where, row))


def _region(where: str, row: dict[str, str]) -> Box | None:
    if REGION[0] not in row:
        return None
    try:
        x1, y1, x2, y2 = (int(row[name]) for name in REGION)
    except ValueError as error:
        raise InputError(f"{where}: {','.join(REGION)}: expected whole numbers, {error}") from error
    return x1, y1, x2, y2
