"""``fc7cache doctor``: what here would make a run fail, or its numbers differ."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import DamagedError, StoreError
from cache.spec import Layout
from cache.store import FeatureStore, open_store
from pipeline.alexnet import layers_up_to
from pipeline.errors import InputError
from stages import machine, reach
from stages.base import FrozenBase
from stages.candidates import candidates_of
from stages.extract import layout_of
from stages.finding import Finding
from stages.params import LOCKED, PARAMS, Params, load_params, prepared_with, stated
from stages.places import INDEX, STORE, scratch_address

OFFICIAL_ROWS = 51_839  # images of GTSRB
GRANTED = f"no {INDEX} yet: taken for the {OFFICIAL_ROWS:,} images of GTSRB"
NO_DVC: dict[str, Any] = {"cache": ".dvc/cache", "remotes": {}, "default": None}


@dataclass(frozen=True)
class Images:
    """How many images features are, or will be, of.

    Attributes:
        rows: How many.
        told_by: What says so; empty where it is taken for granted.
    """

    rows: int
    told_by: str


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
    """Look at the store, the room for it, and what a run would read or fetch."""
    sources, listed = reach.sources(params.prepare)
    prepared, notes = _prepared(params)
    images = _images(None if prepared and INDEX.exists() else listed)
    store, fits = _store(params, images)
    said = machine.answer([sys.executable, "-m", "stages.remotes"], timeout_s=60)
    dvc = NO_DVC if isinstance(said, str) else said
    elsewhere = LOCKED.is_file() and not STORE.exists()
    base_runs = not fits and not (elsewhere and dvc["remotes"])
    prepare_runs = not prepared or not (INDEX.exists() or dvc["remotes"])
    with ThreadPoolExecutor() as pool:
        scratch = pool.submit(reach.scratch, scratch_address())
        weights = pool.submit(reach.base_weights, params.base, needed=base_runs)
        remotes = (
            [Finding("remote", "problem", f"DVC: {said}", "restore .dvc and dvc.yaml from git")]
            if isinstance(said, str)
            else reach.remotes(dvc, needed=elsewhere)
        )
        need = 0 if fits else images.rows * _row_nbytes(params)
        return [
            *notes,
            store,
            *_room(params, Path(dvc["cache"]), scratch.result(), need),
            *([Finding("disk", "note", GRANTED)] if need and not images.told_by else []),
            *(reach.weighed(found, needed=base_runs or prepare_runs) for found in sources),
            *weights.result(),
            *remotes,
        ]


def _prepared(params: Params) -> tuple[bool, list[Finding]]:
    """Whether ``prepare`` has run with these settings; what is wrong where that is not known."""
    try:
        return prepared_with() == params.prepare, []
    except InputError as error:
        return False, [Finding("dvc.lock", "problem", str(error))]


def _room(params: Params, cache: Path, scratch: Finding | None, need: int) -> list[Finding]:
    """Room for the features where they will lie on this machine; scratch that lies elsewhere."""
    kept = need if params.store.address is None else 0
    folders, needs = (
        {"DVC's cache": cache, "data": STORE.parent},
        {"DVC's cache": kept, "data": kept},
    )
    if scratch is not None:
        return [scratch, *machine.disk(folders, needs)]
    here = {"scratch": Path(scratch_address())}
    return machine.disk(here | folders, {"scratch": need} | needs)


def _layout(params: Params, rows: int) -> Layout:
    try:
        layers_up_to(params.base.variant, params.base.layers)
    except ValueError as error:
        raise InputError(f"{PARAMS}: base.layers: {error}") from error
    return layout_of(params, FrozenBase(params, weights={}), rows)


def _row_nbytes(params: Params) -> int:
    layout = _layout(params, OFFICIAL_ROWS)
    return sum(layout.layers.values()) * np.dtype(layout.dtype).itemsize


def _images(listed: int | None) -> Images:
    """How many images there are: those listed, if so many are going to be indexed."""
    if listed is not None:
        return Images(listed, "prepare.source lists")
    try:
        with INDEX.open("rb") as lines:
            return Images(sum(1 for _ in lines) - 1, f"{INDEX} has")
    except FileNotFoundError:
        return Images(OFFICIAL_ROWS, "")


def _store(params: Params, images: Images) -> tuple[Finding, bool]:
    """What is known of the store, and whether it is what settings and index ask for."""
    if not STORE.exists():
        remedy = "`dvc pull`, or `dvc repro --pull`" if LOCKED.is_file() else "`dvc repro`"
        return Finding("store", "note", f"no {STORE} here", remedy), False

    def opened_store() -> FeatureStore | Finding:
        try:
            return open_store(str(STORE))
        except DamagedError as error:
            return Finding("store", "problem", str(error), f"`fc7cache repair {STORE}`")
        except StoreError as error:
            return Finding("store", "problem", str(error))

    remedy = "check the network, credentials; nothing is lost"
    opened = reach.reached("store", str(STORE), opened_store, remedy)
    if isinstance(opened, Finding):
        return opened, False
    wanted = stated(params)
    for part in sorted(wanted):
        if (theirs := opened.made_by.get(part)) != wanted[part]:
            text = f"{STORE}: made with {part} {theirs!r}; params.yaml says {wanted[part]!r}"
            return Finding("store", "note", text, "`dvc repro` extracts anew"), False
    if images.told_by and opened.layout.rows != images.rows:
        text = f"{STORE}: {opened.layout.rows:,} rows; {images.told_by} {images.rows:,}"
        return Finding("store", "note", text, "`dvc repro` extracts what is new"), False
    text = (
        f"{STORE}: {opened.layout.rows:,} rows, as params.yaml asks (`fc7cache verify` reads all)"
    )
    return Finding("store", "ok", text), True
