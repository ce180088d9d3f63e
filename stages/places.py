"""Where things lie, from the root of the project. dvc.yaml says the same."""

import os
from pathlib import Path

from upath import UPath

from cache.remote import filesystem_of

INDEX = Path("data/index.csv")
CLASSES = Path("data/classes.json")
THUMBNAILS = Path("data/thumbnails.zip")
STORE = Path("data/features.zarr")
MODELS = Path("models")
RESULTS = Path("results")
TRAINING = RESULTS / "training"
STUDY = RESULTS / "study"
SWEEPS = RESULTS / "sweeps"
LIVE = RESULTS / "live"
PROBABILITIES = RESULTS / "probabilities"
AUDIT = RESULTS / "audit.json"
EXTRACTED = RESULTS / "extract.json"


def scratch_address() -> str:
    """FC7CACHE_SCRATCH, a path or an fsspec address, or ``scratch`` in the project.

    Outside the project it survives ``dvc exp run --temp`` and serves several clones.
    """
    return os.environ.get("FC7CACHE_SCRATCH", "scratch")


def scratch_root() -> UPath:
    """The folder at the `scratch_address`.

    Raises:
        StoreError: An address of a kind that is not known, or whose client is not installed.
    """
    filesystem_of(scratch_address())  # says what is wrong with it
    return UPath(scratch_address())
