"""The table of images that ``prepare`` writes and everything after it reads."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.errors import InputError

COLUMNS = {
    "image_id": str,  # train/CCCCC/TTTTT_FFFFF or test/NNNNN
    "split": str,  # train or test
    "label": int,
    "track": int,  # equal for frames of one physical sign; -1 where unpublished
    "frame": int,  # -1 where unpublished
    "width": int,
    "height": int,
    "roi_x1": int,
    "roi_y1": int,
    "roi_x2": int,  # last pixel inside
    "roi_y2": int,
    "sha256": str,  # of the image file's bytes
    "duplicate_of": str,  # the first image_id with the same bytes, else empty
    "member": str,  # path inside the split's archive
}


def read_index(path: Path, columns: Sequence[str] = tuple(COLUMNS)) -> pd.DataFrame:
    """Read the table, all of it or some columns.

    Raises:
        InputError: Absent, or not such a table.
    """
    try:
        table = pd.read_csv(path, dtype=COLUMNS, keep_default_na=False, usecols=list(columns))
        return table[list(columns)]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no index of images; run `dvc repro prepare`") from error
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{path}: not an index of images ({error}); run `dvc repro prepare`"
        ) from error
