"""Making a damaged store whole, and checking a sound one against the base."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.diff import relative_errors
from cache.errors import DamagedError, StoreError
from cache.plan import Source
from cache.publish import publish
from cache.remote import filesystem_of, is_local
from cache.store import FeatureStore
from cache.verify import Finding, damaged_shards
from pipeline.fetch import local_path
from pipeline.index import read_index
from stages.base import FrozenBase, load_base
from stages.extract import extract
from stages.params import Params
from stages.places import INDEX
from stages.scratch import KEYS

_CHECKED_ROWS = 64


def recompute(
    store: FeatureStore, params: Params, rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Push rows through the base again.

    Args:
        store: To be held against the base.
        params: Settings, with the archives and the weights that made it.
        rows: Sound rows of the store.

    Returns:
        Layer to (n,) relative errors, Euclidean.

    Raises:
        StoreError: The settings make other features than these.
        InputError: Archives or weights are not there.
    """
    base = same_base(store, params)
    index = read_index(INDEX).set_index("image_id")
    wanted = store.column("image_id")[rows]
    if missing := set(wanted) - set(index.index):
        raise StoreError(f"{store.address}: {min(missing)} is not in {INDEX}")
    read = base.reader(index.loc[wanted].reset_index())
    blocks = list(base.forward(read([row])[0][0] for row in range(len(rows))))
    return {
        layer: relative_errors(
            np.concatenate([block[layer] for block in blocks]).astype(store.layout.dtype),
            store.features(layer, rows),
        )
        for layer in store.layout.layers
    }


def same_base(store: FeatureStore, params: Params) -> FrozenBase:
    """The base of params.yaml, if it is the one that made the store.

    Raises:
        StoreError: It is not; names the first part that differs.
    """
    base = load_base(params)
    made_by = base.made_by()
    for part in sorted(made_by.keys() | store.made_by.keys()):
        theirs, ours = store.made_by.get(part), made_by.get(part)
        if theirs != ours:
            raise StoreError(
                f"{store.address}: made with {part} {theirs!r}, but params.yaml makes {ours!r}; "
                "this can only be done with the settings and the version that made the store"
            )
    return base


def repair(
    store: FeatureStore, params: Params, findings: list[Finding], target: Path
) -> dict[str, Any]:
    """Publish the store anew, computing only the rows of damaged shards.

    Some sound rows are recomputed first: a machine that gives other floats than the
    one that made the store would patch it with rows that belong to another.

    Raises:
        StoreError: Other settings, or a machine that gives other floats.
    """
    same_base(store, params)
    index = read_index(INDEX)
    sound = store.metadata_fault() is None and _readable(store, "image_id", KEYS)
    if sound and store.column("image_id").tolist() != index["image_id"].tolist():
        raise StoreError(
            f"{store.address}: holds other images than {INDEX}; it can only be repaired with the "
            "index that it was made from"
        )
    bad = damaged_shards(findings)
    shards = [shard for shard in store.present_shards() if shard not in bad]
    rows = np.array([r for s in shards for r in range(*store.layout.bounds(s))], np.int64)
    extra = []
    if len(rows) and sound:  # else no row can be trusted to be what it says
        worst = max(float(e.max()) for e in recompute(store, params, rows[:_CHECKED_ROWS]).values())
        if worst > 0:
            raise StoreError(
                f"{store.address}: this machine gives other floats than the one that made the "
                f"store (relative error {worst:.1e}); get the store whole with `dvc checkout` or "
                "`dvc pull`, or make another with `dvc repro -f extract`"
            )
        extra = [(store, Source(store.column(KEYS), rows))]
    layout = store.layout
    as_it_was = {"address": None, "shard_rows": layout.shard_rows, "chunk_rows": layout.chunk_rows}
    same = params.model_copy(update={"store": params.store.model_copy(update=as_it_was)})
    return extract(same, index, target, extra, here=True)  # by the machine that was just asked


def repair_at(
    address: str, store: FeatureStore, params: Params, findings: list[Finding]
) -> dict[str, Any]:
    """Repair the store that was opened at an address: a folder, an object store, a pointer."""
    # Where a pointer led, or in an object store, others may rely on it.
    if store.address == address and (path := local_path(address)) is not None:
        return repair(store, params, findings, path)
    return repair_there(store, params, findings)


def repair_there(store: FeatureStore, params: Params, findings: list[Finding]) -> dict[str, Any]:
    """As `repair`, where others may rely on the store: at an address that pointers name.

    It is made aside, and takes the place of what is there if it is the very same store. Of an
    object store only files that differ are sent; the root's metadata, which notes the sha256 of
    all the others, goes last: what was cut off is still found damaged.

    Raises:
        StoreError: As `repair`; or what came of it is another store.
    """
    filesystem, root = filesystem_of(store.address)
    with TemporaryDirectory() as folder:
        local = Path(folder) / "features.zarr"
        summary = repair(store, params, findings, local)
        mended = FeatureStore(local)
        digest = mended.attrs["digest"]
        if digest != store.attrs.get("digest", digest):
            raise StoreError(
                f"{store.address}: repairing it here would put another store in its place, which "
                "others may rely on; publish one anew with `dvc repro -f extract`"
            )
        if is_local(store.address):
            publish(mended, Path(root))
            return summary
        files = [path for path in local.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: path == local / "zarr.json"):
            there = f"{root}/{path.relative_to(local).as_posix()}"
            data = path.read_bytes()
            if not filesystem.exists(there) or filesystem.cat_file(there) != data:
                filesystem.makedirs(there.rpartition("/")[0], exist_ok=True)
                filesystem.pipe_file(there, data)
    return summary


def _readable(store: FeatureStore, *columns: str) -> bool:
    try:
        for name in columns:
            store.column(name)
    except DamagedError:
        return False
    return True
