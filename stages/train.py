"""``train``: one head. Settings chosen on held-out tracks, then fitted on all; test rows unseen.

The fitted head is applied to the features of the test images here, since it is at hand, but
nothing in this stage reads a test label.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dvclive.live import Live
from scmrepo.exceptions import SCMError

from cache.store import FeatureStore, open_store
from pipeline.classes import read_classes
from pipeline.errors import InputError
from pipeline.head import Head, mean_scores, probabilities
from pipeline.saved import save_head, settings_of
from pipeline.scaling import Floats
from pipeline.selection import Outcome, Selection, all_classes, refit, select
from pipeline.views import view_count
from pipeline.words import WORDS
from stages.candidates import Candidates, candidates_of
from stages.console import bar, run, say
from stages.files import whole_file, write_json, write_table
from stages.params import load_params, stated
from stages.places import CLASSES, LIVE, MODELS, PROBABILITIES, STORE, SWEEPS, TRAINING
from stages.rows import folds_of, images_to_test, training_data
from stages.start import give_start, stands_in
from stages.sweep import by_workers
from stages.trials import identity_of, remembered


def sweep_table(candidates: Candidates, found: Selection) -> pd.DataFrame:
    """One row for each candidate and fold: trial, fold, what was searched, how it went."""
    return pd.DataFrame(
        [
            {
                "trial": place + 1,
                "fold": fold + 1,
                **{key: settings_of(head)[key] for key in candidates.searched},
                "val_accuracy": outcome.accuracy,
                "val_nll": outcome.nll,
                "seconds": round(outcome.seconds, 2),
                "chosen": place == found.chosen,
            }
            for place, (head, outcomes) in enumerate(
                zip(candidates.heads, found.outcomes, strict=True)
            )
            for fold, outcome in enumerate(outcomes)
        ]
    )


def sweep_summary(candidates: Candidates, found: Selection) -> list[dict[str, Any]]:
    """One entry for each candidate, folds averaged; see `pipeline.results.Trial`."""
    return [
        {
            "settings": {key: settings_of(head)[key] for key in candidates.searched},
            "accuracy": float(np.mean([outcome.accuracy for outcome in outcomes])),
            "nll": float(np.mean([outcome.nll for outcome in outcomes])),
            "chosen": place == found.chosen,
        }
        for place, (head, outcomes) in enumerate(zip(candidates.heads, found.outcomes, strict=True))
    ]


def test_scores(
    heads: Sequence[Head], store: FeatureStore, layers: Sequence[str], view: int
) -> list[Floats]:
    """(N, known classes) scores of the test images in one view, by each of heads of one kind."""
    pieces = [
        [head.scores(blocks) for head in heads]
        for blocks in images_to_test(store, layers, view, heads[0])
    ]
    return [np.concatenate(mine) for mine in zip(*pieces, strict=True)]


def open_live(name: str) -> Live:
    """Where curves are written as they grow, for DVC's commands and editors.

    Raises:
        InputError: A git repository without a commit, which DVCLive cannot do with.
    """
    try:
        return Live(str(LIVE / name), save_dvc_exp=False, dvcyaml=None, report=None)
    except SCMError as error:
        raise InputError(f"DVCLive: {error}; expected a git commit; make one first") from error


def main() -> None:
    """Choose, refit and apply the head that ``--head`` names."""
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    parser.add_argument("--head", required=True, metavar="NAME", help="a block under heads:")
    name = parser.parse_args().head
    params = load_params()
    candidates = candidates_of(params, name)
    give_start(params, name, candidates)
    store, classes = open_store(STORE, stated(params)), read_classes(CLASSES)
    layers, views = candidates.layers, view_count(params.base.shift)
    start = time.perf_counter()
    on_disk = all(head.streams for head in candidates.heads)
    rows, data = training_data(store, layers, views, len(classes.names), on_disk=on_disk)
    folds = folds_of(store.column("track")[rows], data.label, params.split)
    say(
        f"train {name}: {len(candidates.heads)} combinations of settings on {', '.join(layers)}; "
        f"{len(folds[0][0])} images to train on, {len(folds[0][1])} of other "
        f"{WORDS[classes.dataset].track}s to choose on"
    )
    trials = len(candidates.heads) * len(folds)
    with (
        open_live(name) as live,
        bar(total=trials, desc=name, unit=" trials") as progress,
    ):

        def told(place: int, outcome: Outcome) -> None:
            live.log_metric("sweep/val_accuracy", outcome.accuracy)
            live.next_step()
            progress.update()

        found = select(
            candidates.heads,
            folds,
            data,
            remembered(
                identity_of(store, layers, type(candidates.heads[0])),
                by_workers(store, layers, views),
            ),
            told,
            progress.set_postfix_str,
        )
        history = found.outcomes[found.chosen][0].history
        for live.step, entry in enumerate(history, start=1):
            for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
                live.log_metric(f"epoch/{key}", entry[key])
        heads = refit(found, candidates.seeds, data, progress.set_postfix_str)
    # What DVC shows of all heads is results/metrics.json, which `compare` writes.
    Path(live.metrics_file).unlink()
    accuracy = float(np.mean(found.scores.argmax(axis=1) == data.label[found.rows]))
    # One view after the other: all at once, those of many images would not fit.
    scores = [test_scores(heads, store, layers, view) for view in range(views)]
    test = [
        all_classes(h, probabilities(mean_scores(seen), h.temperature_), data.n_classes, 0)
        for h, *seen in zip(heads, *scores, strict=True)
    ]
    if not np.isfinite(test).all():
        raise InputError(
            f"heads.{name}: training diverged, its probabilities are no numbers; lower "
            "learning_rate, or choose another scaling"
        )
    stand_in = stands_in(params, found.best)
    facts = {
        "features": layers,
        "fingerprint": store.fingerprint,
        "made_by": store.made_by,
        "stand_in": stand_in,
        "classes": list(classes.names),
    }
    save_head(heads[0], MODELS / name, facts)

    image_id = store.column("image_id")
    path = PROBABILITIES / f"{name}.npz"
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(
            file,
            validation_id=image_id[rows[found.rows]],
            validation=probabilities(found.scores, found.temperature),
            test_id=image_id[store.column("split") == "test"],
            test=np.stack(test),
        )
    write_table(SWEEPS / f"{name}.csv", sweep_table(candidates, found))
    settings = settings_of(found.best)
    chosen = ", ".join(f"{key} {settings[key]}" for key in candidates.searched)
    seconds = time.perf_counter() - start
    summary: dict[str, Any] = {
        "kind": found.best.kind,
        "features": layers,
        "settings": settings,
        "searched": candidates.searched,
        "seeds": candidates.seeds,
        "temperature": found.temperature,
        "val_accuracy": accuracy,
        "seconds": round(seconds, 2),
        "fingerprint": store.fingerprint,
        "stand_in": stand_in,
        "sweep": sweep_summary(candidates, found),
        "history": history,
    }
    write_json(TRAINING / f"{name}.json", summary)
    say(
        f"train {name}: {chosen or 'nothing to choose'}; {100 * accuracy:.2f} % on validation, "
        f"{seconds:.0f} s -> {MODELS / name}"
    )


if __name__ == "__main__":
    run(main, "trials that are done are kept; `dvc repro` goes on from there")
