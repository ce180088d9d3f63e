"""Trained heads on disk: JSON and plain arrays, nothing that executes."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from pipeline.errors import UNREADABLE_NPZ, InputError
from pipeline.head import Head
from pipeline.heads import KINDS
from pipeline.npz import read_npz


def settings_of(head: Head) -> dict[str, Any]:
    """Its hyper-parameters by name, JSON-ready."""
    return {entry.name: getattr(head, entry.name) for entry in fields(head) if entry.init}


def save_head(head: Head, folder: Path, facts: dict[str, Any]) -> None:
    """Write ``head.json`` and ``arrays.npz``: readable by anything, executing nothing.

    Args:
        head: Fitted.
        folder: Created if need be.
        facts: JSON-ready, kept beside: features, fingerprint, …
    """
    folder.mkdir(parents=True, exist_ok=True)
    # First gone, last written: arrays never stand beside the settings of another head.
    # Removed, not written over: what DVC checked out may be a link into its cache.
    for name in ("head.json", "arrays.npz"):
        (folder / name).unlink(missing_ok=True)
    np.savez(folder / "arrays.npz", **head.state())  # type: ignore[arg-type]
    document = {
        "kind": head.kind,
        "settings": settings_of(head),
        "temperature": head.temperature_,
        "facts": facts,
    }
    (folder / "head.json").write_text(json.dumps(document, indent=1) + "\n")


def load_head(folder: Path) -> tuple[Head, dict[str, Any]]:
    """Read what `save_head` wrote.

    Returns:
        The fitted head, without its history, and the facts saved with it.

    Raises:
        InputError: Absent, or not what it writes.
    """
    try:
        document = json.loads((folder / "head.json").read_text())
        settings = json.dumps(document["settings"])
        head: Head = TypeAdapter(KINDS[document["kind"]]).validate_json(settings)
        head.temperature_, head.history_ = float(document["temperature"]), []
        facts = document["facts"]
        with (folder / "arrays.npz").open("rb") as file:
            head.restore(read_npz(file))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: no trained head ({error.filename} is missing); run `dvc repro`"
        ) from error
    except (KeyError, *UNREADABLE_NPZ) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: not a saved head: {reason}; run `dvc repro`") from error
    return head, facts
