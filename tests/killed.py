"""``python killed.py FOLDER JOB``: do a job, die before the N-th touch of the disk.

Done for every N, each in FOLDER/N, a copy of FOLDER/before, until one lives to the end.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stores import columns_for, make_store

from cache.publish import publish
from cache.spec import Layout
from cache.writer import discard

LAYOUT = Layout(5, {"fc7": 2}, shard_rows=4, chunk_rows=2)
COLUMNS = {"image_id": columns_for(LAYOUT.rows)["image_id"]}
TOUCHES = {"open", "os.rename", "os.link", "os.remove"}


def make_and_publish(folder: Path) -> None:
    """Over a store already there."""
    store = make_store(folder / "s.zarr", LAYOUT, columns=COLUMNS)
    publish(store, folder / "data" / "features.zarr")


def discard_shard(folder: Path) -> None:
    """Of a finished store."""
    discard(folder / "s.zarr", 1)


def die_before(touch: int, folder: str) -> None:
    """Arm this process."""
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in TOUCHES:
            return
        if event == "open" and not (str(args[0]).startswith(folder) and args[2] & os.O_CREAT):
            return
        seen += 1
        if seen == touch:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main(root: Path, job: Callable[[Path], None]) -> None:
    """Fork once for every touch."""
    touch, lived = 0, False
    while not lived:
        touch += 1
        folder = root / str(touch)
        shutil.copytree(root / "before", folder)
        if (child := os.fork()) == 0:
            die_before(touch, str(folder))
            job(folder)
            os._exit(0)
        lived = os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), globals()[sys.argv[2]])
