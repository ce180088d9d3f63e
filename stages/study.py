"""``study``: what a split by frame would have claimed of a head; how it fares on fewer tracks."""

import argparse

import numpy as np

from cache.store import open_store
from pipeline.classes import read_classes
from pipeline.errors import InputError
from pipeline.head import Head
from pipeline.saved import settings_of
from pipeline.selection import Job
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
from stages.sweep import by_workers
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
    views, n_classes = view_count(params.base.shift), len(classes.names)
    rows, data = training_data(store, candidates.layers, views, n_classes, on_disk=head.streams)
    track = store.column("track")[rows]
    train, val = folds_of(track, data.label, params.split)[0]
    seed = params.split.seed
    fewer = [
        train[some_tracks(track[train], data.label[train], fraction=fraction, seed=seed)]
        for fraction in [*sorted(params.study.fractions), 1.0]
    ]
    jobs = [Job([head], part, val) for part in fewer]
    # Of images that are each a track, this is no other way to hold out.
    if leaks := len(np.unique(track)) < len(track):
        jobs.append(Job([head], *split_by_frame(data.label, n_val=len(val), seed=seed)))
    run_trials = remembered(
        identity_of(store, candidates.layers, type(head)),
        by_workers(store, candidates.layers, views),
    )
    answers = []
    with bar(total=len(jobs), desc=name, unit=" trials") as progress:
        for job, (found,) in zip(
            jobs, run_trials(jobs, data, progress.set_postfix_str), strict=True
        ):
            progress.update()
            right = found.scores.argmax(axis=1) == data.label[job.val]
            answers.append(
                {
                    "accuracy": found.accuracy,
                    "tracks": len(np.unique(track[job.train])),
                    "right": right.astype(int).tolist(),
                    "of_track": track[job.val].tolist(),
                }
            )
    curve, by_frame = answers[: len(fewer)], answers[len(fewer) :]
    write_json(STUDY / f"{name}.json", {"curve": curve, "by_frame": by_frame[0] if leaks else None})
    words = WORDS[classes.dataset]
    claims = [
        f"; a random split of {words.frame}s would claim {100 * found['accuracy']:.2f} %"
        for found in by_frame
    ]
    say(
        f"study {name}: {100 * curve[-1]['accuracy']:.2f} % on {words.track}s held out"
        f"{''.join(claims)} -> {STUDY / name}.json"
    )


if __name__ == "__main__":
    run(main, "trials that are done are kept; `dvc repro` goes on from there")
