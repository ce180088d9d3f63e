"""The table of images that ``prepare`` writes and everything after it reads."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.errors import InputError

COLUMNS = {
    "image_id": str,  # of GTSRB train/CCCCC/TTTTT_FFFFF or test/NNNNN; else SPLIT/path
    "split": str,  # train or test
    "label": int,
    "track": int,  # equal for frames of one physical sign, images of one group; -1: unpublished
    "frame": int,  # place in its track; -1 where unpublished
    "width": int,  # pixels, of the upright image
    "height": int,
    "roi_x1": int,
    "roi_y1": int,
    "roi_x2": int,  # last pixel inside
    "roi_y2": int,
    "sha256": str,  # of the image file's bytes
    "duplicate_of": str,  # the first image_id with the same bytes, else empty
    "member": str,  # path inside the split's archive or folder
}


def read_index(path: Path) -> pd.DataFrame:
    """Read the whole table.

    Raises:
        InputError: Absent, or not such a table.
    """
    return pd.concat(index_blocks(path, 1 << 20))


def index_blocks(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    """Read the table in blocks of so many rows, numbered on.

    Raises:
        InputError: Absent, or not such a table.
    """
    try:
        with pd.read_csv(path, dtype=COLUMNS, keep_default_na=False, chunksize=rows) as blocks:
            for block in blocks:
                yield block[list(COLUMNS)]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no index of images; run `dvc repro prepare`") from error
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not an index of images ({reason}); run `dvc repro prepare`"
        ) from error
