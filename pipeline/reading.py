"""Rows of the index to what the network is given of them, in threads or processes."""

import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cached_property
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread, current_thread, main_thread

import joblib
import pandas as pd

from pipeline.archives import Archive
from pipeline.errors import InputError
from pipeline.eye import Eye, Pixels
from pipeline.folder import Folder, opened
from pipeline.images import decode

# Threads do until the interpreter lock, under which an archive's headers are parsed, is what they
# wait for; then processes, which take a second or two to start.
_MOST_THREADS = 4
_MOST_WORKERS = 16


class Reader:
    """Reads images of an index. Can be sent to another process before it has read any."""

    def __init__(self, index: pd.DataFrame, archives: Mapping[str, Path], eye: Eye) -> None:
        """Note where they are.

        Args:
            index: See `pipeline.index`.
            archives: Split to the path of an archive, checked, or of a folder.
            eye: How they are shown.
        """
        # Lists share the table's strings; arrays of text would hold each at four bytes a letter.
        self._where = list(zip(index["split"], index["member"], index["sha256"], strict=True))
        self._roi = index[["roi_x1", "roi_y1", "roi_x2", "roi_y2"]].to_numpy()
        self._paths, self._eye = dict(archives), eye

    def open(self) -> None:
        """Open the archives, so that threads need not."""
        self._archives  # noqa: B018

    @cached_property
    def _archives(self) -> dict[str, Archive | Folder]:
        return {split: opened(path) for split, path in self._paths.items()}

    def __call__(self, rows: list[int]) -> tuple[list[list[Pixels]], dict[str, float]]:
        """What `Eye.seen` gives of each row, and the seconds that reading and decoding took.

        Raises:
            InputError: An image that is not what the index lists, or not there.
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


def workers(reader: Reader, count: int) -> tuple[Executor, Read]:
    """Threads or processes to read with, starting, and what to have them do with rows.

    Args:
        reader: What to read with.
        count: How many.
    """
    # A worker's own processes would be too many, and cannot be started beside its main thread.
    if count <= _MOST_THREADS or parent_process() or current_thread() is not main_thread():
        reader.open()
        return ThreadPoolExecutor(count), reader
    spawned = get_context("spawn")  # what a GPU's library has running does not survive a fork
    pool = ProcessPoolExecutor(count, spawned, initializer=_become, initargs=(reader,))
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: the parent answers it
    try:
        for _ in range(count):  # each starts another one
            pool.submit(os.getpid)
    finally:
        signal.signal(signal.SIGINT, answer)
    return pool, _read_here


def usual_workers() -> int:
    """As many as there are cores for this process; more than the network can use are no help."""
    return min(int(joblib.cpu_count()), _MOST_WORKERS)


_here: list[Reader] = []  # of a worker process: its reader


def _become(reader: Reader) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    _here.append(reader)


def _end_with_parent() -> None:
    """An executor's processes would wait for ever for work from a parent that was killed."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _read_here(rows: list[int]) -> tuple[list[list[Pixels]], dict[str, float]]:
    return _here[0](rows)
