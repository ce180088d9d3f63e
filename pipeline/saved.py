"""Trained heads on disk: JSON and plain arrays, nothing that executes."""

import itertools
import json
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.errors import InputError
from pipeline.heads import KINDS, Head
from pipeline.scaling import Scaling


def save_head(head: Head, folder: Path, facts: dict[str, Any]) -> None:
    """Write ``head.json`` and ``arrays.npz``: readable by anything, executing nothing.

    Args:
        head: Fitted.
        folder: Created if need be.
        facts: JSON-ready, kept beside: features, fingerprint, …
    """
    folder.mkdir(parents=True, exist_ok=True)
    # First gone, last written: arrays never stand beside the settings of another head.
    (folder / "head.json").unlink(missing_ok=True)
    arrays: dict[str, NDArray[Any]] = {
        f"{part}{number}": array
        for number, pair in enumerate(head.layers_)
        for part, array in zip("Wb", pair, strict=True)
    }
    arrays["classes"] = head.classes_
    if head.scaling == "standardize":
        arrays |= {"mean": head.scaling_.mean_, "scale": head.scaling_.scale_}
    settings = {entry.name: getattr(head, entry.name) for entry in fields(head) if entry.init}
    document = {
        "settings": settings,
        "chosen": head.chosen_,
        "history": head.history_,
        "facts": facts,
    }
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
    (folder / "head.json").write_text(json.dumps(document, indent=1) + "\n")


def load_head(folder: Path) -> tuple[Head, dict[str, Any]]:
    """Read what `save_head` wrote.

    Returns:
        The fitted head and the facts saved with it.

    Raises:
        InputError: Absent, or not what it writes.
    """
    try:
        document = json.loads((folder / "head.json").read_text())
        settings = document["settings"]
        head = TypeAdapter(KINDS[settings["kind"]]).validate_json(json.dumps(settings))
        head.chosen_, head.history_ = document["chosen"], document["history"]
        facts = document["facts"]
        head.scaling_ = Scaling(head.scaling)
        with (
            (folder / "arrays.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            if head.scaling == "standardize":
                head.scaling_.mean_, head.scaling_.scale_ = arrays["mean"], arrays["scale"]
            head.classes_ = arrays["classes"]
            numbers = itertools.takewhile(lambda i: f"W{i}" in arrays, itertools.count())
            head.layers_ = [(arrays[f"W{i}"], arrays[f"b{i}"]) for i in numbers]
        if not head.layers_:
            raise ValueError("no weights")
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: no trained head ({error.filename} is missing); run `dvc repro`"
        ) from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: not a saved head: {reason}; run `dvc repro`") from error
    return head, facts
