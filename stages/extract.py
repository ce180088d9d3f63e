"""``extract``: the frozen base over every image, each view of it once, into the store."""

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cache.errors import DamagedError
from cache.fill import fill
from cache.plan import Source, plan
from cache.spec import Columns, Layout, content_digest
from cache.store import FeatureStore
from cache.writer import create_store, discard, publish
from pipeline import backend
from pipeline.ahead import loaded_ahead
from pipeline.errors import InputError
from pipeline.eye import Pixels
from pipeline.features import Features
from pipeline.index import read_index
from pipeline.reading import usual_workers, workers
from stages.base import FrozenBase, input_keys, load_base
from stages.clock import Clock
from stages.console import bar, run, say
from stages.files import write_json
from stages.params import Params, load_params
from stages.places import EXTRACTED, INDEX, STORE
from stages.scratch import (
    KEYS,
    locked,
    reusable_stores,
    scratch_folder,
    source_of,
    unlike_store,
)

_GROUP = 16  # images read at a time: handing one over takes as long as reading it


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
) -> dict[str, Any]:
    """Bring the store at ``target`` up to date; forward only content never forwarded before.

    Args:
        params: Settings.
        index: The images.
        target: Where to publish.
        extra: Stores outside scratch to copy from, and which rows of them are sound.

    Returns:
        The summary that `main` writes.
    """
    base = load_base(params)
    made_by, runtime = base.made_by(), backend.runtime()
    columns = columns_of(index, params.base.crop)
    layout = layout_of(params, base, len(index))
    folder = scratch_folder(made_by, runtime)
    path = folder / f"{content_digest(layout, columns)[:16]}.zarr"
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
                rows = np.concatenate([np.empty(0, np.int64), *(todo.forward for todo in plans)])
                passes.append(len(rows))
                say(f"extract: {len(rows)} of {len(index)} images to forward, the rest is known")
                # Closed at once if it fails: the readers must not outlive it.
                with clock("fill"), closing(_forwarded(base, index, rows, clock)) as new:
                    fill(store, plans, sources, new)
                clock.add({"writing": store.write_seconds})
                store.finish()
                break
            except DamagedError as error:
                # What lies in scratch can be computed again, and is; nothing else is touched.
                if not isinstance(error.store, FeatureStore) or error.store in dict(extra):
                    raise
                what = "the whole store" if error.shard < 0 else f"shard {error.shard}"
                say(f"extract: {error.store.address}: dropped {what}, which is damaged")
                discard(error.store, error.shard)
        publish(store, target)
    seconds = time.perf_counter() - start
    return {
        "rows": len(index),
        "forwarded": sum(passes),
        "reused": distinct - passes[0],
        "duplicates": len(index) - distinct,
        "seconds": round(seconds, 2),
        "images_per_second": round(sum(passes) / seconds, 1),
        "time": _time(clock, seconds),
        "bytes": sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
        "device": runtime["device"],
        "backend": runtime["backend"],
        "fingerprint": store.fingerprint,
        "layers": dict(layout.layers),
        "made_by": made_by,
    }


def _forwarded(
    base: FrozenBase, index: pd.DataFrame, rows: NDArray[np.int64], clock: Clock
) -> Generator[Features]:
    # Not before a first row is wanted; readers start while the network is compiled.
    count = usual_workers()
    with clock("readers"):
        pool, read = workers(base.reader(index), count)
    with clock("starting"):
        base.network.warm_up()
    groups = [rows[k : k + _GROUP].tolist() for k in range(0, len(rows), _GROUP)]
    ahead = 2 * max(base.network.batch_rows // _GROUP, count)
    loaded = loaded_ahead(read, groups, pool, ahead)

    def images() -> Iterator[list[Pixels]]:
        try:
            for group, seconds in clock.waiting("images", loaded):
                clock.add(seconds)
                yield from group
        except BrokenProcessPool as error:
            raise InputError(
                "a process that reads images was killed (is there too little memory?); run again"
            ) from error

    blocks = base.forward(images())
    with bar(total=len(rows), desc="extract", unit=" images") as progress:
        for block in clock.waiting("blocks", blocks):
            progress.update(len(next(iter(block.values()))))
            yield block


def _time(clock: Clock, seconds: float) -> dict[str, float]:
    """Seconds by what they went to.

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
        "rest": seconds - fill + readers,
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
        + f" -> {STORE} ({summary['bytes'] / 1e6:.0f} MB)"
    )


if __name__ == "__main__":
    run(main, "whole shards are kept; `dvc repro` goes on from there")
