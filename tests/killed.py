"""``python killed.py FOLDER``: make and publish a store, die before the N-th touch of the disk.

Done for every N, each in FOLDER/N, until one lives to the end.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from stores import columns_for, make_store

from cache.spec import Layout
from cache.writer import publish

LAYOUT = Layout(5, {"fc7": 2}, shard_rows=4, chunk_rows=2)
COLUMNS = {"image_id": columns_for(LAYOUT.rows)["image_id"]}
TOUCHES = {"open", "os.rename", "os.link", "os.remove"}


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


def main(root: Path) -> None:
    """Fork once for every touch; FOLDER/old.zarr is what the store is published over."""
    touch, lived = 0, False
    while not lived:
        touch += 1
        folder = root / str(touch)
        shutil.copytree(root / "old.zarr", folder / "data" / "features.zarr")
        if (child := os.fork()) == 0:
            die_before(touch, str(folder))
            store = make_store(folder / "s.zarr", LAYOUT, columns=COLUMNS)
            publish(store, folder / "data" / "features.zarr")
            os._exit(0)
        lived = os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
