"""Listed images to the index: each read and decoded once, to know that it is whole."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from pipeline.ahead import loaded_ahead
from pipeline.errors import InputError
from pipeline.images import decode
from pipeline.index import COLUMNS
from pipeline.views import Box

Size = tuple[int, int]  # width, height in pixels
Progress = Callable[[Iterable[Any]], Iterable[Any]]


class Source(Protocol):
    """Where images are read from: an archive or a folder. Safe to read from several threads."""

    path: Path

    def read(self, member: str) -> bytes:
        """The bytes of a member."""


def looked_at(
    listed: pd.DataFrame, sources: Mapping[str, Source], progress: Progress = iter
) -> Iterator[tuple[Any, tuple[Size, str]]]:
    """Read and decode every image, some ahead of whoever consumes.

    Args:
        listed: A row an image; of the columns of `pipeline.index`, ``split`` and ``member``.
        sources: By split.
        progress: Wraps the loop over images, e.g. a tqdm bar.

    Yields:
        The row, as a named tuple, with the image's size and the sha256 of its bytes.

    Raises:
        InputError: An image listed but absent or damaged.
    """
    splits, members = listed["split"].to_list(), listed["member"].to_list()

    def look(row: int) -> tuple[Size, str]:
        source = sources[splits[row]]
        data = source.read(members[row])
        size = decode(data, f"{source.path}: {members[row]}").size
        return size, hashlib.sha256(data).hexdigest()

    rows = range(len(listed))
    seen = loaded_ahead(look, rows)
    for _, row, found in zip(progress(rows), listed.itertuples(), seen, strict=True):
        yield row, found


def check_region(region: Box, size: Size, where: str) -> None:
    """See that a region of interest lies inside its image.

    Raises:
        InputError: It does not.
    """
    (x1, y1, x2, y2), (width, height) = region, size
    if not (0 <= x1 <= x2 < width) or not (0 <= y1 <= y2 < height):
        raise InputError(
            f"{where}: region of interest {x1},{y1} to {x2},{y2} is not inside "
            f"{width} x {height} pixels"
        )


def indexed(listed: pd.DataFrame, digests: list[str]) -> pd.DataFrame:
    """The columns of `pipeline.index`, from all of them but the two that come of the bytes.

    Args:
        listed: (N,) rows.
        digests: (N,) sha256 of the images' bytes.
    """
    table = listed.assign(sha256=digests)
    first = table.groupby("sha256")["image_id"].transform("first")
    table["duplicate_of"] = first.where(first != table["image_id"], "")
    return table[list(COLUMNS)]
