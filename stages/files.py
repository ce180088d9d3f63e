"""Results on disk: whole, or not there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from upath import UPath

from pipeline.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write to, and move it to ``path`` once all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that nobody else has: two may be at work on the same file in a shared scratch, and
    # processes of two containers have the same numbers.
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: UPath, data: bytes) -> None:
    """Write a file of this machine or of an object store."""
    if path.protocol in ("", "file"):
        with whole_file(Path(path.path)) as part:
            part.write_bytes(data)
    else:
        path.fs.pipe_file(path.path, data)  # in one request: there whole, or not at all


def read_json(path: Path) -> Any:
    """Read what a stage wrote of its run.

    Raises:
        InputError: Absent, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected the summary of a stage ({error}); run `dvc repro`, or "
            "`dvc repro --pull` where results are on a remote"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read too."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write CSV, the same bytes on every system."""
    with whole_file(path) as part:
        table.to_csv(part, index=False, lineterminator="\n")
