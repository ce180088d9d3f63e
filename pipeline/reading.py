"""Rows of the index to what the network is given of them: read, decoded, cut out, resized."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import loky
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from pipeline.archives import Archive
from pipeline.errors import InputError
from pipeline.images import Contrast, cropped, decode, resized
from pipeline.views import Box, shifted, view_count

Pixels = NDArray[np.uint8]

# Threads do until the interpreter lock, under which an archive's headers are parsed, is what they
# wait for; then processes, which take a second or two to start.
_MOST_THREADS = 4


@dataclass(frozen=True)
class Eye:
    """How images are shown to the network.

    Attributes:
        input_px: Side of what it takes, pixels.
        to_roi: Whether only the region of interest is shown.
        contrast: How it is equalised, if it is.
        shift: See `pipeline.views`.
        enlarges: Whether the device enlarges what is smaller than input_px.
    """

    input_px: int
    to_roi: bool = False
    contrast: Contrast | None = None
    shift: float = 0
    enlarges: bool = False

    def seen(self, image: Image.Image, box: Box | None = None) -> list[Pixels]:
        """What the network is given of an image, or of a box in it.

        Returns:
            One for each view: (H, W, 3) uint8; or smaller, to be enlarged on the device.
        """
        box = box or (0, 0, image.width - 1, image.height - 1)
        views = []
        for view in range(view_count(self.shift)):
            crop = cropped(image, shifted(box, self.shift, view))
            # Equalisation needs it enlarged.
            small = self.enlarges and self.contrast is None
            if not small or max(crop.shape[:2]) > self.input_px:
                crop = resized(crop, self.input_px, self.contrast)
            views.append(crop)
        return views


class Reader:
    """Reads images of an index. Can be sent to another process before it has read any."""

    def __init__(self, index: pd.DataFrame, archives: Mapping[str, Path], eye: Eye) -> None:
        """Note where they are.

        Args:
            index: See `pipeline.index`.
            archives: Split to path, checked.
            eye: How they are shown.
        """
        # Lists share the table's strings; arrays of text would hold each at four bytes a letter.
        self._where = list(zip(index["split"], index["member"], index["sha256"], strict=True))
        self._roi = index[["roi_x1", "roi_y1", "roi_x2", "roi_y2"]].to_numpy()
        self._paths, self._eye = dict(archives), eye

    @cached_property
    def _archives(self) -> dict[str, Archive]:
        return {split: Archive(path) for split, path in self._paths.items()}

    def __call__(self, rows: list[int]) -> tuple[list[list[Pixels]], dict[str, float]]:
        """What `Eye.seen` gives of each row, and the seconds that reading and decoding took.

        Raises:
            InputError: An archive that is not what the index lists.
        """
        found, seconds = [], {"reading": 0.0, "decoding": 0.0}
        for row in rows:
            start = time.perf_counter()
            data, name = self._read(row)
            read = time.perf_counter()
            x1, y1, x2, y2 = map(int, self._roi[row])
            found.append(
                self._eye.seen(decode(data, name), (x1, y1, x2, y2) if self._eye.to_roi else None)
            )
            seconds["reading"] += read - start
            seconds["decoding"] += time.perf_counter() - read
        return found, seconds

    def _read(self, row: int) -> tuple[bytes, str]:
        split, member, digest = self._where[row]
        archive = self._archives[split]
        data = archive.read(member)
        if hashlib.sha256(data).hexdigest() != digest:
            raise InputError(
                f"{archive.path}: {member} is not the image that data/index.csv lists; "
                "run `dvc repro -f prepare`"
            )
        return data, f"{archive.path}: {member}"


Read = Callable[[list[int]], tuple[list[list[Pixels]], dict[str, float]]]


def workers(reader: Reader, count: int | None = None) -> tuple[Executor, Read]:
    """Threads or processes to read with, starting, and what to have them do with rows.

    Args:
        reader: What to read with.
        count: How many; all cores if not given.
    """
    count = count or os.cpu_count() or 1
    if count <= _MOST_THREADS:
        return ThreadPoolExecutor(count), reader
    # Loky's end by themselves when their parent is killed.
    pool = loky.ProcessPoolExecutor(count, initializer=_become, initargs=(reader,))
    for _ in range(count):
        pool.submit(os.getpid)
    return pool, _read_here


_here: list[Reader] = []  # of a worker process: its reader


def _become(reader: Reader) -> None:
    _here.append(reader)


def _read_here(rows: list[int]) -> tuple[list[list[Pixels]], dict[str, float]]:
    return _here[0](rows)
