"""GTSRB: the official CSVs made into one table of images."""

import io

import pandas as pd

from pipeline.archives import Archive
from pipeline.classes import CLASS_NAMES
from pipeline.contents import Progress, check_region, indexed, looked_at
from pipeline.errors import InputError
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


def index_images(archives: dict[str, Archive], progress: Progress = iter) -> pd.DataFrame:
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
    for row, (size, digest) in looked_at(table, archives, progress):
        where = f"{archives[row.split].path}: {row.member}"
        if size != (row.width, row.height):
            raise InputError(
                f"{where} is {size[0]} x {size[1]} pixels; its CSV says {row.width} x {row.height}"
            )
        check_region((row.roi_x1, row.roi_y1, row.roi_x2, row.roi_y2), size, where)
        digests.append(digest)
    return indexed(table, digests)
