"""Trials that were run before are not run again: an interrupted sweep goes on, a wider one adds.

An outcome is a file of plain arrays and JSON, as joblib's own memory would pickle: scratch may be
shared, and reading it should execute nothing.
"""

import hashlib
import json
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np

import pipeline
from cache.store import FeatureStore
from pipeline.head import Head, Labels, Watch
from pipeline.selection import Data, Outcome, RunTrial, trial
from stages.files import whole_file
from stages.places import scratch_root

# Whatever is in these can change an outcome: their text is part of what a trial is known by.
CODE = ("head.py", "linear.py", "gradient.py", "neighbours.py", "scaling.py", "selection.py")
_LIBRARIES = ("keras", "numpy", "scikit-learn", "scipy", "tensorflow")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def identity_of(store: FeatureStore, layers: Sequence[str]) -> str:
    """What outcomes depend on beyond settings and rows: the store's bytes, code, libraries."""
    folder = Path(pipeline.__file__).parent
    parts = {
        "store": store.attrs["digest"],
        "layers": list(layers),
        "code": {name: (folder / name).read_text(encoding="utf-8") for name in CODE},
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def remembered(run: RunTrial = trial) -> RunTrial:
    """A way to run trials that keeps outcomes in scratch as each is done."""

    def kept(
        identity: str, heads: Sequence[Head], train: Labels, val: Labels, data: Data, watch: Watch
    ) -> list[Outcome]:
        path = _folder() / f"{joblib.hash((identity, list(heads), train, val))}.npz"
        if path.is_file():
            try:
                return _read(path)
            except _UNREADABLE:
                path.unlink()  # cut short or altered: it is run again
        outcomes = run(identity, heads, train, val, data, watch)
        with whole_file(path) as part, part.open("wb") as file:
            facts = [{k: v for k, v in asdict(o).items() if k != "scores"} for o in outcomes]
            scores = np.stack([outcome.scores for outcome in outcomes])
            np.savez(file, scores=scores, facts=np.array(json.dumps(facts)))
        return outcomes

    return kept


def nbytes() -> int:
    """Size of all outcomes on disk, bytes."""
    return sum(file.stat().st_size for file in _folder().glob("*"))


def forget(older_than_days: float | None) -> int:
    """Delete outcomes older than this, or all; returns the bytes freed."""
    before = nbytes()
    for file in list(_folder().glob("*")):
        if time.time() - file.stat().st_mtime > 86400 * (older_than_days or 0):
            file.unlink()
    return before - nbytes()


def _folder() -> Path:
    return scratch_root() / "trials"


def _read(path: Path) -> list[Outcome]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        facts, scores = json.loads(str(arrays["facts"])), arrays["scores"]
    return [Outcome(scores=mine, **fact) for mine, fact in zip(scores, facts, strict=True)]
