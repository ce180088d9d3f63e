"""``fc7cache doctor``: what here would make a run fail, or its numbers differ."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import DamagedError, StoreError
from cache.remote import is_local
from cache.spec import Layout
from cache.store import open_store
from pipeline.errors import InputError
from stages import machine, reach
from stages.base import FrozenBase
from stages.candidates import candidates_of
from stages.extract import layout_of
from stages.finding import Finding
from stages.params import PARAMS, Params, load_params, stated
from stages.places import INDEX, STORE, scratch_root

LOCKED = Path("dvc.lock")
OFFICIAL_ROWS = 51_839  # images of GTSRB
NO_DVC: dict[str, Any] = {"cache": ".dvc/cache", "remotes": {}, "default": None}


def examine() -> list[Finding]:
    """Look at the machine, and at the project in the current folder, if it is one."""
    with ThreadPoolExecutor() as pool:  # what takes seconds, side by side
        started = pool.submit(machine.backend)
        params, settings = examine_settings()
        project = pool.submit(examine_project, params) if params else None
        precision = params.base.precision if params else None
        shards = 2 * params.store.shard_rows * _row_nbytes(params) if params else None
        return [
            machine.software(),
            machine.lock(),
            started.result(),
            machine.processor(precision),
            machine.memory(shards),
            reach.workers(),
            *settings,
            *(project.result() if project else []),
        ]


def examine_settings() -> tuple[Params | None, list[Finding]]:
    """Read params.yaml, heads' blocks included; None where something in it is wrong."""
    try:
        params = load_params()
        _layout(params, OFFICIAL_ROWS)
        for name in params.heads:
            candidates_of(params, name)
    except InputError as error:
        remedy = f"correct it in {PARAMS}" if PARAMS.exists() else ""
        return None, [Finding("params", "problem", str(error), remedy)]
    return params, [
        Finding("params", "ok", f"{len(params.heads)} heads on {', '.join(params.base.layers)}")
    ]


def examine_project(params: Params) -> list[Finding]:
    """Look at the store, the room for it, and what a run would fetch."""
    rows, granted = _rows()
    store, fits = _store(params, rows)
    said = machine.answer([sys.executable, "-m", "stages.remotes"], timeout_s=60)
    dvc = NO_DVC if isinstance(said, str) else said
    elsewhere = LOCKED.is_file() and not STORE.exists()
    base_runs = not fits and not (elsewhere and dvc["remotes"])
    with ThreadPoolExecutor() as pool:
        sources = pool.submit(reach.sources, params.prepare, needed=base_runs)
        weights = pool.submit(reach.base_weights, params.base, needed=base_runs)
        remotes = (
            [Finding("remote", "problem", f"DVC: {said}", "restore .dvc and dvc.yaml from git")]
            if isinstance(said, str)
            else reach.remotes(dvc, needed=elsewhere)
        )
        folders = {"DVC's cache": Path(dvc["cache"]), "data": STORE.parent}
        if is_local(str(scratch_root())):
            folders["scratch"] = Path(str(scratch_root()))
        need = 0 if fits else rows * _row_nbytes(params)
        return [
            store,
            *machine.disk(folders, need),
            *([Finding("disk", "note", granted)] if granted and need else []),
            *sources.result(),
            *weights.result(),
            *remotes,
        ]


def _layout(params: Params, rows: int) -> Layout:
    try:
        return layout_of(params, FrozenBase(params, weights={}), rows)
    except ValueError as error:
        raise InputError(f"{PARAMS}: base.layers: {error}") from error


def _row_nbytes(params: Params) -> int:
    layout = _layout(params, OFFICIAL_ROWS)
    return sum(layout.layers.values()) * np.dtype(layout.dtype).itemsize


def _rows() -> tuple[int, str]:
    """How many images there are, and what that takes for granted."""
    try:
        with INDEX.open("rb") as lines:
            return sum(1 for _ in lines) - 1, ""
    except FileNotFoundError:
        return OFFICIAL_ROWS, f"no {INDEX} yet: taken for the {OFFICIAL_ROWS:,} images of GTSRB"


def _store(params: Params, rows: int) -> tuple[Finding, bool]:
    """What is known of the store, and whether it is what settings and index ask for."""
    if not STORE.exists():
        remedy = "`dvc pull`, or `dvc repro --pull`" if LOCKED.is_file() else "`dvc repro`"
        return Finding("store", "note", f"no {STORE} here", remedy), False
    try:
        opened = open_store(str(STORE))
    except DamagedError as error:
        return Finding("store", "problem", str(error), f"`fc7cache repair {STORE}`"), False
    except StoreError as error:
        return Finding("store", "problem", str(error)), False
    wanted = stated(params)
    for part in sorted(wanted):
        if (theirs := opened.made_by.get(part)) != wanted[part]:
            text = f"{STORE}: made with {part} {theirs!r}; params.yaml says {wanted[part]!r}"
            return Finding("store", "note", text, "`dvc repro` extracts anew"), False
    if INDEX.exists() and opened.layout.rows != rows:
        text = f"{STORE}: {opened.layout.rows:,} rows; {INDEX} has {rows:,}"
        return Finding("store", "note", text, "`dvc repro` extracts what is new"), False
    text = (
        f"{STORE}: {opened.layout.rows:,} rows, as params.yaml asks (`fc7cache verify` reads all)"
    )
    return Finding("store", "ok", text), True
