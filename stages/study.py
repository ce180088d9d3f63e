"""``study``: what a split by frame would have claimed of a head; how it fares on fewer tracks."""

import argparse
import json

import numpy as np

from cache.store import open_store
from pipeline.errors import InputError
from pipeline.head import Head, Labels
from pipeline.saved import settings_of
from pipeline.splits import some_tracks, split_by_frame
from stages.candidates import candidates_of
from stages.console import bar, run, say
from stages.files import write_json
from stages.params import load_params, stated
from stages.places import STORE, STUDY, TRAINING
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
    training = json.loads((TRAINING / f"{name}.json").read_text())
    head = chosen_head(candidates.heads, training["settings"])
    store = open_store(STORE, stated(params))
    rows, data = training_data(store, candidates.layers)
    track = store.column("track")[rows]
    train, val = folds_of(track, data.label, params.split)[0]
    seed, identity, trial = params.split.seed, identity_of(store, candidates.layers), remembered()
    curve = []
    with bar(total=len(params.study.fractions) + 2, desc=name, unit=" trials") as progress:

        def right(train: Labels, val: Labels) -> list[bool]:
            (found,) = trial(identity, [head], train, val, data, progress.set_postfix_str)
            progress.update()
            answer: list[bool] = (found.scores.argmax(axis=1) == data.label[val]).tolist()
            return answer

        for fraction in [*sorted(params.study.fractions), 1.0]:
            some = train[some_tracks(track[train], data.label[train], fraction=fraction, seed=seed)]
            answers = right(some, val)
            curve.append(
                {"tracks": len(np.unique(track[some])), "rows": len(val), "right": sum(answers)}
            )
        by_frame = right(*split_by_frame(data.label, n_val=len(val), seed=seed))
    leak = {"rows": len(by_frame), "right": sum(by_frame)}
    write_json(STUDY / f"{name}.json", {"curve": curve, "by_frame": leak})
    say(
        f"study {name}: {100 * curve[-1]['right'] / len(val):.2f} % on tracks held out; a random "
        f"split of frames would claim {100 * leak['right'] / leak['rows']:.2f} % "
        f"-> {STUDY / name}.json"
    )


if __name__ == "__main__":
    run(main, "trials that are done are kept; `dvc repro` goes on from there")
