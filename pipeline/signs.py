"""GTSRB: the official CSVs made into one table of images."""

import hashlib
import io
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from pipeline.archives import Archive
from pipeline.classes import CLASS_NAMES
from pipeline.errors import InputError
from pipeline.images import decode
from pipeline.index import COLUMNS

_CSV_COLUMNS = ["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
_TRAIN_DIR, _TEST_DIR = "GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images"


def read_csv(archive: Archive, member: str) -> pd.DataFrame:
    """Read one of the official annotation files.

    Raises:
        InputError: A missing column, a value that is no integer, an unknown class, no rows.
    """
    where = f"{archive.path}: {member}"
    try:
        table = pd.read_csv(io.BytesIO(archive.read(member)), sep=";", dtype=str)
    except ValueError as error:  # pandas' own errors are of this kind
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: not a semicolon-separated table: {reason}") from error
    if missing := [name for name in _CSV_COLUMNS if name not in table.columns]:
        raise InputError(
            f"{where}: no column {missing[0]!r}; expected {';'.join(_CSV_COLUMNS)}, "
            f"got {';'.join(map(str, table.columns))}"
        )
    try:
        table = table.astype(dict.fromkeys(_CSV_COLUMNS[1:], int))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: expected whole numbers, got {error}") from error
    unknown = table[~table["ClassId"].isin(range(len(CLASS_NAMES)))]
    if len(unknown):
        row = unknown.iloc[0]
        raise InputError(
            f"{where}: {row['Filename']} has unknown class {row['ClassId']}; "
            f"expected 0 to {len(CLASS_NAMES) - 1}"
        )
    return table


def listed_images(train: Archive, test: Archive, test_labels: Archive) -> pd.DataFrame:
    """Every annotated image, in an order that does not depend on the archives' own.

    Returns:
        The columns of `pipeline.index` but the two that need the images: training images by
        class, track and frame, then test images by name.
    """
    parts = []
    for member in sorted(m for m in train.members if m.endswith(".csv")):
        folder, _, _ = member.rpartition("/")
        rows = read_csv(train, member)
        names = rows["Filename"].str.extract(r"^(\d+)_(\d+)\.\w+$")
        if names.isna().any(axis=None):
            bad = rows["Filename"][names.isna().any(axis=1)].iloc[0]
            raise InputError(f"{train.path}: {member}: expected TRACK_FRAME.ppm, got {bad!r}")
        rows["split"], rows["frame"] = "train", names[1].astype(int)
        rows["track"] = 100_000 * rows["ClassId"] + names[0].astype(int)
        rows["member"] = folder + "/" + rows["Filename"]
        parts.append(rows)
    rows = read_csv(test_labels, "GT-final_test.csv")
    rows["split"], rows["track"], rows["frame"] = "test", -1, -1
    rows["member"] = f"{_TEST_DIR}/" + rows["Filename"]
    if not parts or rows.empty:
        raise InputError(
            f"{train.path}: expected training and test images under {_TRAIN_DIR}, "
            f"got {sum(map(len, parts))} and {len(rows)} in the CSVs"
        )
    table = pd.concat([*parts, rows], ignore_index=True)
    stem = table["member"].str.rpartition(".")[0]
    stem = stem.str.removeprefix(f"{_TRAIN_DIR}/").str.removeprefix(f"{_TEST_DIR}/")
    table["image_id"] = table["split"] + "/" + stem
    table = table.rename(columns={"ClassId": "label"}).rename(columns=_lower)
    if table["image_id"].duplicated().any():
        twice = table["image_id"][table["image_id"].duplicated()].iloc[0]
        raise InputError(f"{train.path}: image {twice} is listed twice; expected each once")
    # Names are zero-padded, so their order is that of class, track and frame.
    table["is_test"] = table["split"] == "test"
    table = table.sort_values(["is_test", "image_id"], ignore_index=True)
    return table[[name for name in COLUMNS if name in table.columns]]


def _lower(name: str) -> str:
    return name.lower().replace(".", "_")


def index_images(
    archives: dict[str, Archive], progress: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> pd.DataFrame:
    """One row per annotated image, each image read and decoded once to know that it is whole.

    Args:
        archives: "train", "test" and "test_labels".
        progress: Wraps the loop over images, e.g. a tqdm bar.

    Returns:
        The columns of `pipeline.index`.

    Raises:
        InputError: An image listed but absent, damaged, or other than its CSV says.
    """
    table = listed_images(archives["train"], archives["test"], archives["test_labels"])
    digests = []
    for row in progress(table.itertuples()):
        archive = archives[row.split]
        data = archive.read(row.member)
        size = decode(data, f"{archive.path}: {row.member}").size
        if size != (row.width, row.height):
            raise InputError(
                f"{archive.path}: {row.member} is {size[0]} x {size[1]} pixels; its CSV says "
                f"{row.width} x {row.height}"
            )
        if not (0 <= row.roi_x1 <= row.roi_x2 < row.width) or not (
            0 <= row.roi_y1 <= row.roi_y2 < row.height
        ):
            raise InputError(
                f"{archive.path}: {row.member}: region of interest {row.roi_x1},{row.roi_y1} to "
                f"{row.roi_x2},{row.roi_y2} is not inside {row.width} x {row.height} pixels"
            )
        digests.append(hashlib.sha256(data).hexdigest())
    table["sha256"] = digests
    first = table.groupby("sha256")["image_id"].transform("first")
    table["duplicate_of"] = first.where(first != table["image_id"], "")
    return table[list(COLUMNS)]


def audit(index: pd.DataFrame) -> dict[str, Any]:
    """What a person should know of the images before trusting a result on them."""
    train, test = index[index["split"] == "train"], index[index["split"] == "test"]
    groups = index.groupby("sha256").filter(lambda group: len(group) > 1)
    kinds: dict[str, list[list[str]]] = {"within_train": [], "within_test": [], "across": []}
    for _, group in groups.groupby("sha256", sort=False):
        splits = set(group["split"])
        kind = "across" if len(splits) > 1 else f"within_{splits.pop()}"
        kinds[kind].append(group["image_id"].tolist())
    frames = train.groupby("track").size()
    return {
        "images": {"train": len(train), "test": len(test)},
        "classes": {
            str(label): {
                "name": name,
                "train": int((train["label"] == label).sum()),
                "test": int((test["label"] == label).sum()),
                "tracks": int(train["track"][train["label"] == label].nunique()),
            }
            for label, name in enumerate(CLASS_NAMES)
        },
        "tracks": {
            "count": len(frames),
            "frames_min": int(frames.min()),
            "frames_max": int(frames.max()),
        },
        "size_px": {
            side: {
                "min": int(index[side].min()),
                "median": float(index[side].median()),
                "max": int(index[side].max()),
            }
            for side in ("width", "height")
        },
        "exact_duplicates": kinds,
    }
