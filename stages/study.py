"""``study``: what a split by frame would have claimed of a head; how it fares on fewer tracks."""

import argparse
from typing import Any

import numpy as np

from cache.store import open_store
from pipeline.classes import read_classes
from pipeline.errors import InputError
from pipeline.head import Head, Labels
from pipeline.saved import settings_of
from pipeline.splits import some_tracks, split_by_frame
from pipeline.views import view_count
from pipeline.words import WORDS
from stages.candidates import candidates_of
from stages.console import bar, run, say
from stages.files import read_json, write_json
from stages.params import load_params, stated
from stages.places import CLASSES, STORE, STUDY, TRAINING
from stages.rows import folds_of, training_data
from stages.start import give_start
from stages.trials import identity_of, remembered


def chosen_head(heads: list[Head], settings: dict[str, object]) -> Head:
    """The candidate with these settings.

    Raises:
        InputError: None has them: params.yaml was edited since.
    """
    for head in heads:
        if settings_of(head) == settings:
            return head
    raise InputError("params.yaml asks for other settings than were trained; run `dvc repro`")


def main() -> None:
    """Study the head that ``--head`` names, with the settings that ``train`` chose."""
    parser = argparse.ArgumentParser(prog="python -m stages.study", description=__doc__)
    parser.add_argument("--head", required=True, metavar="NAME", help="a block under heads:")
    name = parser.parse_args().head
    params = load_params()
    candidates = candidates_of(params, name)
    give_start(params, name, candidates)
    training = read_json(TRAINING / f"{name}.json")
    head = chosen_head(candidates.heads, training["settings"])
    store, classes = open_store(STORE, stated(params)), read_classes(CLASSES)
    views = view_count(params.base.shift)
    rows, data = training_data(store, candidates.layers, views, len(classes.names))
    track = store.column("track")[rows]
    train, val = folds_of(track, data.label, params.split)[0]
    seed = params.split.seed
    trial = remembered(identity_of(store, candidates.layers, type(head)))
    with bar(total=len(params.study.fractions) + 2, desc=name, unit=" trials") as progress:

        def right(train: Labels, val: Labels) -> dict[str, Any]:
            (found,) = trial([head], train, val, data, progress.set_postfix_str)
            progress.update()
            answers = found.scores.argmax(axis=1) == data.label[val]
            return {
                "accuracy": found.accuracy,
                "tracks": len(np.unique(track[train])),
                "right": answers.astype(int).tolist(),
                "of_track": track[val].tolist(),
            }

        curve = [
            right(
                train[some_tracks(track[train], data.label[train], fraction=fraction, seed=seed)],
                val,
            )
            for fraction in [*sorted(params.study.fractions), 1.0]
        ]
        by_frame = right(*split_by_frame(data.label, n_val=len(val), seed=seed))
    write_json(STUDY / f"{name}.json", {"curve": curve, "by_frame": by_frame})
    words = WORDS[classes.dataset]
    say(
        f"study {name}: {100 * curve[-1]['accuracy']:.2f} % on {words.track}s held out; a random "
        f"split of {words.frame}s would claim {100 * by_frame['accuracy']:.2f} % "
        f"-> {STUDY / name}.json"
    )


if __name__ == "__main__":
    run(main, "trials that are done are kept; `dvc repro` goes on from there")
