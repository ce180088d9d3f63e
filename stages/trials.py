"""Trials that were run before are not run again: an interrupted sweep goes on, a wider one adds.

An outcome is a file of plain arrays and JSON, as joblib's own memory would pickle: scratch may be
shared, and reading it should execute nothing.
"""

import hashlib
import inspect
import json
import os
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
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

# Whatever is in these, or in a head's own module, can change an outcome: their text is part of
# what a trial is known by.
_CODE = ("head.py", "scaling.py", "selection.py")
_LIBRARIES = ("keras", "numpy", "scikit-learn", "scipy", "tensorflow")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def identity_of(store: FeatureStore, layers: Sequence[str], kind: type[Head]) -> str:
    """What outcomes depend on beyond settings and rows: the store's bytes, code, libraries."""
    files = [Path(pipeline.__file__).parent / name for name in _CODE]
    files += [Path(inspect.getfile(base)) for base in kind.__mro__ if issubclass(base, Head)]
    parts = {
        "store": store.attrs["digest"],
        "layers": list(layers),
        "code": [file.read_text(encoding="utf-8") for file in dict.fromkeys(files)],
        "libraries": {name: version(name) for name in _LIBRARIES},
        "backend": os.environ.get("KERAS_BACKEND", ""),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def remembered(identity: str, run: RunTrial = trial) -> RunTrial:
    """A way to run trials that keeps each outcome in scratch, under its identity."""

    def kept(
        heads: Sequence[Head], train: Labels, val: Labels, data: Data, watch: Watch
    ) -> list[Outcome]:
        paths = [_folder() / f"{joblib.hash((identity, head, train, val))}.npz" for head in heads]
        found = {path: outcome for path in paths if (outcome := _read(path))}
        missing = {path: head for path, head in zip(paths, heads, strict=True) if path not in found}
        if missing:
            outcomes = run(list(missing.values()), train, val, data, watch)
            found |= dict(zip(missing, outcomes, strict=True))
        for path in missing:
            _write(path, found[path])
        return [found[path] for path in paths]

    return kept


def nbytes() -> int:
    """Size of all outcomes on disk, bytes."""
    return sum(size for _, size, _ in _files())


def forget(older_than_days: float | None) -> int:
    """Delete outcomes older than this, or all; returns the bytes freed."""
    freed = 0
    for file, size, age_s in _files():
        if age_s > 86400 * (older_than_days or 0):
            file.unlink(missing_ok=True)
            freed += size
    return freed


def _folder() -> Path:
    return scratch_root() / "trials"


def _files() -> Iterator[tuple[Path, int, float]]:
    for file in list(_folder().glob("*.npz")):
        with suppress(FileNotFoundError):  # another process may be at work there
            facts = file.stat()
            yield file, facts.st_size, time.time() - facts.st_mtime


def _write(path: Path, outcome: Outcome) -> None:
    facts = {key: value for key, value in asdict(outcome).items() if key != "scores"}
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, scores=outcome.scores, facts=np.array(json.dumps(facts)))


def _read(path: Path) -> Outcome | None:
    """The outcome; None where there is none, or none that can be read: then it is run again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Outcome(scores=arrays["scores"], **json.loads(str(arrays["facts"])))
    except _UNREADABLE:
        return None
