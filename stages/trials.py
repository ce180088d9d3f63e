"""Trials that were run before are not run again: an interrupted sweep goes on, a wider one adds.

An outcome is a file of plain arrays and JSON, as joblib's own memory would pickle: scratch may be
shared, and reading it should execute nothing.
"""

import hashlib
import inspect
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
from upath import UPath

import pipeline
from cache.store import FeatureStore
from pipeline.backend import chosen
from pipeline.errors import UNREADABLE_NPZ
from pipeline.head import Head, Watch
from pipeline.npz import read_npz
from pipeline.selection import Data, Job, Outcome, RunTrials, in_turn
from stages.files import write_bytes
from stages.places import scratch_root

# Whatever is in these, or in a head's own module, can change an outcome: their text is part of
# what a trial is known by.
_CODE = ("head.py", "scaling.py", "selection.py", "streaming.py")
_LIBRARIES = ("keras", "numpy", "scikit-learn", "scipy", "tensorflow")
# An outcome; or what a writer that was killed left of one, under the name that `whole_file` gives.
_OURS = re.compile(r"\.?[0-9a-f]{32}\.npz(?P<part>\.[0-9a-f]{32}\.part)?")
_DEAD_S = 3600  # no writer takes so long
_UNREADABLE = (*UNREADABLE_NPZ, KeyError)


def identity_of(store: FeatureStore, layers: Sequence[str], kind: type[Head]) -> str:
    """What outcomes depend on beyond settings and rows: the store's bytes, code, libraries."""
    files = [Path(pipeline.__file__).parent / name for name in _CODE]
    files += [Path(inspect.getfile(base)) for base in kind.__mro__ if issubclass(base, Head)]
    parts = {
        "store": store.attrs["digest"],
        "layers": list(layers),
        "code": [file.read_text(encoding="utf-8") for file in dict.fromkeys(files)],
        "libraries": {name: version(name) for name in _LIBRARIES},
        "backend": chosen(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def remembered(identity: str, run: RunTrials = in_turn) -> RunTrials:
    """A way to run trials that keeps each outcome in scratch, under its identity.

    Args:
        identity: What `identity_of` gave.
        run: How to run those that are not there.
    """

    def kept(jobs: Sequence[Job], data: Data, watch: Watch) -> Iterator[list[Outcome]]:
        paths = [
            [_folder() / f"{joblib.hash((identity, head, j.train, j.val))}.npz" for head in j.heads]
            for j in jobs
        ]
        found = {path: outcome for mine in paths for path in mine if (outcome := _read(path))}
        # By job, the heads to be fitted; what two jobs have in common is the first one's to do.
        todo: list[dict[UPath, Head]] = []
        given = set(found)
        for job, mine in zip(jobs, paths, strict=True):
            heads = dict(zip(mine, job.heads, strict=True))
            todo.append({path: head for path, head in heads.items() if path not in given})
            given |= heads.keys()
        missing = [
            replace(job, heads=list(new.values()))
            for job, new in zip(jobs, todo, strict=True)
            if new
        ]
        outcomes = run(missing, data, watch)
        for mine, new in zip(paths, todo, strict=True):
            if new:
                for path, outcome in zip(new, next(outcomes), strict=True):
                    _write(path, outcome)
                    found[path] = outcome
            yield [found[path] for path in mine]

    return kept


def nbytes() -> int:
    """Size of all outcomes on disk, bytes."""
    return sum(size for _, size, _ in _files())


def forget(older_than_days: float | None) -> int:
    """Delete outcomes older than this, or all; returns the bytes freed."""
    freed = 0
    for file, size, age_s in _files():
        # Without a limit all go, those too that another machine's clock dates in the future.
        if older_than_days is None or age_s > 86400 * older_than_days:
            file.unlink(missing_ok=True)
            freed += size
    return freed


def _folder() -> UPath:
    return scratch_root() / "trials"


def _files() -> Iterator[tuple[UPath, int, float]]:
    for file in list(_folder().glob("*")):
        if not (ours := _OURS.fullmatch(file.name)):
            continue
        with suppress(FileNotFoundError):  # another process may be at work there
            facts = file.stat()
            age_s = time.time() - facts.st_mtime
            if not ours["part"] or age_s > _DEAD_S:
                yield file, facts.st_size, age_s


def _write(path: UPath, outcome: Outcome) -> None:
    facts = {key: value for key, value in asdict(outcome).items() if key != "scores"}
    data = io.BytesIO()
    np.savez(data, scores=outcome.scores, facts=np.array(json.dumps(facts)))
    write_bytes(path, data.getvalue())


def _read(path: UPath) -> Outcome | None:
    """The outcome; None where there is none, or none that can be read: then it is run again."""
    try:
        with path.open("rb") as file:
            arrays = read_npz(file)
        return Outcome(scores=arrays["scores"], **json.loads(str(arrays["facts"])))
    except _UNREADABLE:
        return None
