"""``train``: one head on the cached features of the training tracks."""

import argparse
import time
from pathlib import Path

import pandas as pd

from cache.store import open_store
from pipeline.errors import InputError
from pipeline.heads import KINDS, Head
from pipeline.saved import save_head
from stages.console import bar, run, say
from stages.files import write_json, write_table
from stages.params import Params, checked, load_params, stated
from stages.rows import training_rows

STORE = Path("data/features.zarr")
MODELS = Path("models")
TRAINING = Path("results/training")
HISTORY = Path("results/history")


def make_head(params: Params, name: str) -> tuple[Head, str | None]:
    """The untrained head of a block in params.yaml, and the layer it wants.

    Raises:
        InputError: No such block, an unknown kind, an unknown or missing setting.
    """
    if name not in params.heads:
        raise InputError(f"params.yaml: no head {name!r}; it has {', '.join(params.heads)}")
    settings = dict(params.heads[name])
    layer, kind = settings.pop("features", None), settings.get("kind")
    if kind not in KINDS:
        raise InputError(
            f"params.yaml: heads.{name}.kind: expected one of {', '.join(KINDS)}, got {kind!r}"
        )
    return checked(KINDS[kind], settings, f"heads.{name}"), layer


def main() -> None:
    """Train the head that ``--head`` names; write it, and how it went."""
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    parser.add_argument("--head", required=True, metavar="NAME", help="a block under heads:")
    name = parser.parse_args().head
    params = load_params()
    head, layer = make_head(params, name)
    store = open_store(STORE, stated(params))
    layer = layer or list(store.layout.layers)[-1]
    train, val = training_rows(store, params)
    label = store.column("label")
    x, x_val = store.features(layer, train), store.features(layer, val)
    say(f"train {name}: {len(train)} images of {layer}, {len(val)} of other tracks to choose on")
    start = time.perf_counter()
    head.fit(x, label[train], x_val, label[val], lambda total: bar(total=total, desc=name))
    seconds = time.perf_counter() - start
    facts = {"features": layer, "fingerprint": store.fingerprint, "made_by": store.made_by}
    save_head(head, MODELS / name, facts)
    accuracy = max(entry["val_accuracy"] for entry in head.history_)
    summary = {"chosen": head.chosen_, "val_accuracy": accuracy, "seconds": round(seconds, 2)}
    write_json(TRAINING / f"{name}.json", summary)
    curve = pd.DataFrame(head.history_)
    curve.insert(0, "step", range(1, len(curve) + 1))
    write_table(HISTORY / f"{name}.csv", curve)
    say(
        f"train {name}: {head.chosen_}, {100 * accuracy:.1f} % on validation, "
        f"{seconds:.0f} s -> {MODELS / name}"
    )


if __name__ == "__main__":
    run(main)
