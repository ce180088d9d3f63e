"""``extract``: the frozen base over every image, each view of it once, into the store."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cache.describe import stored_nbytes
from cache.errors import DamagedError
from cache.plan import ShardPlan, Source, plan, rounds
from cache.publish import publish, publish_at
from cache.spec import Columns, Layout, content_digest
from cache.store import FeatureStore
from cache.writer import create_store, discard
from pipeline import backend
from pipeline.errors import InputError
from pipeline.fetch import anywhere
from pipeline.index import read_index
from stages.base import FrozenBase, input_keys
from stages.clock import Clock
from stages.console import bar, run, say
from stages.files import write_json
from stages.params import Params, load_params
from stages.places import EXTRACTED, INDEX, STORE, scratch_root
from stages.scratch import (
    KEYS,
    locked,
    reusable_stores,
    scratch_folder,
    source_of,
    unlike_store,
)
from stages.shards import Filled, Job, base_of, fill_shards
from stages.workers import each, elsewhere


def columns_of(index: pd.DataFrame, crop: str) -> Columns:
    """What the store keeps beside the features."""
    digests = [bytes.fromhex(digest) for digest in index["sha256"]]
    return {
        "image_id": index["image_id"].to_numpy(object),
        "split": index["split"].to_numpy(object),
        "sha256": np.frombuffer(b"".join(digests), np.uint8).reshape(len(index), 32),
        KEYS: input_keys(index, crop),
        **{name: index[name].to_numpy(np.int64) for name in ("label", "track", "frame")},
    }


def layout_of(params: Params, base: FrozenBase, rows: int) -> Layout:
    """The store's layout.

    Raises:
        InputError: Settings that do not fit together.
    """
    store = params.store
    try:
        return Layout(rows, base.widths, store.dtype, store.shard_rows, store.chunk_rows)
    except ValueError as error:
        raise InputError(f"params.yaml: {error}") from error


def extract(
    params: Params,
    index: pd.DataFrame,
    target: Path,
    extra: Sequence[tuple[FeatureStore, Source]] = (),
    *,
    here: bool = False,
) -> dict[str, Any]:
    """Bring the store at ``target`` up to date; forward only content never forwarded before.

    Args:
        params: Settings.
        index: The images.
        target: Where to publish.
        extra: Stores outside scratch to copy from, and which rows of them are sound.
        here: By this process, whatever FC7CACHE_WORKERS says.

    Returns:
        The summary that `main` writes.
    """
    params = _anywhere(params)
    base = base_of(params)
    here = here or not elsewhere()
    made_by, runtime = base.made_by(), _runtime(here)
    columns = columns_of(index, params.base.crop)
    layout = layout_of(params, base, len(index))
    folder = scratch_folder(made_by, runtime)
    path = str(folder / f"{content_digest(layout, columns)[:16]}.zarr")
    distinct = len(np.unique(columns[KEYS], axis=0))
    say(f"extract: {_described(base)}, on {runtime['device']} ({runtime['backend']})")
    if unlike := unlike_store(folder, made_by):
        other, part = unlike
        say(
            f"extract: {other.address} is not reused: made with {part} "
            f"{other.made_by.get(part)!r}, not {made_by.get(part)!r}"
        )
    start, passes, clock = time.perf_counter(), [], Clock()
    with locked(folder):
        while True:
            try:
                store = create_store(path, layout, made_by, columns)
                known = [(s, source_of(s)) for s in reusable_stores(folder, store)]
                sources, offered = zip(*known, *extra, strict=True) if known or extra else ((), ())
                plans = plan(columns[KEYS], layout, store.present_shards(), offered)
                passes.append(sum(len(todo.forward) for todo in plans))
                say(f"extract: {passes[-1]} of {len(index)} images to forward, the rest is known")
                addresses = tuple(anywhere(source.address) for source in sources)
                job = Job(params, made_by, runtime, anywhere(path), addresses)
                written: dict[str, str] = {}
                with bar(total=passes[-1], desc="extract", unit=" images") as progress:
                    filled = _carried_out(job, index, plans, layout, here, progress.update)
                    for done in filled:
                        written |= done.written
                        clock.add(done.seconds)
                _see_that_all_write_here(store, written)
                store.finish(written)
                break
            except DamagedError as error:
                # What lies in scratch can be computed again, and is; nothing else is touched.
                ours = {anywhere(source.address) for source, _ in extra}
                if not error.address or anywhere(error.address) in ours:
                    raise
                what = "the whole store" if error.shard < 0 else f"shard {error.shard}"
                say(f"extract: {error.address}: dropped {what}, which is damaged")
                discard(error.address, error.shard)
        address = _publish(store, params.store.address, target)
    seconds = time.perf_counter() - start
    return {
        "rows": len(index),
        "forwarded": sum(passes),
        "reused": distinct - passes[0],
        "duplicates": len(index) - distinct,
        "seconds": round(seconds, 2),
        "images_per_second": round(sum(passes) / seconds, 1),
        "time": _time(clock, seconds),
        "bytes": sum(stored_nbytes(store).values()),
        "device": runtime["device"],
        "backend": runtime["backend"],
        "fingerprint": store.fingerprint,
        "layers": dict(layout.layers),
        "made_by": made_by,
        "address": address,
    }


def _runtime(here: bool) -> dict[str, str]:
    if here:
        return backend.runtime()
    return next(each(backend.runtime, [()], ordered=True))


def _carried_out(
    job: Job,
    index: pd.DataFrame,
    plans: Sequence[ShardPlan],
    layout: Layout,
    here: bool,
    forwarded: Callable[[int], Any],
) -> Iterator[Filled]:
    def images(part: Sequence[ShardPlan]) -> pd.DataFrame:
        rows = [np.empty(0, np.int64), *(todo.forward for todo in part)]
        return index.iloc[np.concatenate(rows)]

    if here:
        # In one go: the network need not wait between shards.
        yield fill_shards(job, images(plans), plans, forwarded)
        return
    for part in rounds(plans, layout):
        tasks = [(job, images([todo]), [todo]) for todo in part]
        for done in each(fill_shards, tasks, ordered=False):
            forwarded(done.forwarded)
            yield done


def _see_that_all_write_here(store: FeatureStore, written: Mapping[str, str]) -> None:
    present = set(store.present_shards())
    shards = {int(key.split("/")[-2]) for key in written}
    if lost := sorted(shards - present):
        raise InputError(
            f"{store.address}: a worker has written shard {lost[0]}, and it is not here; workers "
            "must share this folder: set FC7CACHE_SCRATCH to one that all of them see"
        )


def _anywhere(params: Params) -> Params:
    """With addresses that mean the same to a worker in another folder."""
    prepare = params.prepare.model_copy(update={"source": anywhere(params.prepare.source)})
    weights = params.base.weights
    located = weights if params.base.seeded else [anywhere(location) for location in weights]
    base = params.base.model_copy(update={"weights": located})
    address = params.store.address and anywhere(params.store.address)
    scratch = anywhere(str(scratch_root()))
    store = params.store.model_copy(update={"address": address})
    if address and f"{address}/".startswith(f"{scratch.rstrip('/')}/"):
        raise InputError(
            f"params.yaml: store.address: {address} is inside scratch, which `fc7cache prune` "
            "empties; choose another folder, or another FC7CACHE_SCRATCH"
        )
    return params.model_copy(update={"prepare": prepare, "base": base, "store": store})


def _publish(store: FeatureStore, address: str | None, target: Path) -> str:
    if address is None:
        publish(store, target)
        return str(target)
    # Named by what it is: never in the place of one that others rely on.
    where = f"{address.rstrip('/')}/{store.fingerprint[:16]}-{store.attrs['digest'][:16]}.zarr"
    publish_at(store, where, target)
    return where


def _time(clock: Clock, seconds: float) -> dict[str, float]:
    """Seconds by what they went to, added up over workers where there are several.

    Those up to the rest make up the whole; what reading and writing took beside them, in threads
    or processes of their own, comes behind.
    """
    names = "readers", "starting", "images", "blocks", "fill"
    readers, starting, images, blocks, fill = (clock.seconds[name] for name in names)
    parts = {
        "starting": starting,
        "network": blocks - images,
        "waiting_for_images": images,
        "copying_and_waiting_for_store": fill - blocks - starting - readers,
        "rest": max(0.0, seconds - fill) + readers,
        "readers_reading": clock.seconds["reading"],
        "readers_decoding": clock.seconds["decoding"],
        "writer_writing": clock.seconds["writing"],
    }
    return {name: round(spent, 2) for name, spent in parts.items()}


def _described(base: FrozenBase) -> str:
    settings = base.params.base
    stand_in = " with seeded (stand-in) weights" if settings.seeded else ""
    seen = settings.crop + (", contrast equalised" if settings.contrast else "")
    views = f", {base.views} views" if base.views > 1 else ""
    return f"{settings.variant} AlexNet{stand_in}, {', '.join(settings.layers)}, {seen}{views}"


def main() -> None:
    """Read the settings and the index; write the store and a summary."""
    params = load_params()
    summary = extract(params, read_index(INDEX), STORE)
    write_json(EXTRACTED, summary)
    say(
        "extract: forwarded: {forwarded}, reused: {reused}, duplicates: {duplicates}, "
        "{images_per_second} images/s".format(**summary)
        + f" -> {summary['address']} ({summary['bytes'] / 1e6:.0f} MB)"
    )


if __name__ == "__main__":
    run(main, "whole shards are kept; `dvc repro` goes on from there")
