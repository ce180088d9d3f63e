"""What ``train`` and ``study`` left behind of one head, read for the comparison."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import UNREADABLE_NPZ, InputError
from pipeline.npz import read_npz
from pipeline.results import HeadResult, Leak
from pipeline.scores import Share, share_by_track
from stages.files import read_json
from stages.params import Params
from stages.places import LIVE, MODELS, PROBABILITIES, RESULTS, STUDY, TRAINING


class Answers:
    """What one head said of held-out training images and of test images, beside the truth.

    Attributes:
        training: Summary of the training stage.
        validation: Index rows held out, (M,) in the order of ``validation_proba`` (M, C).
        test: Index rows of the test set, (N,) in the order of ``test_proba`` (S, N, C), S seeds.
    """

    def __init__(self, name: str, index: pd.DataFrame) -> None:
        """Read.

        Raises:
            InputError: The head is not trained, or on other images.
        """
        path = PROBABILITIES / f"{name}.npz"
        self.training = read_json(TRAINING / f"{name}.json")
        try:
            with path.open("rb") as file:
                arrays = read_npz(file)
            self.validation = index.loc[arrays["validation_id"]]
            self.test = index.loc[arrays["test_id"]]
            self.validation_proba = arrays["validation"]
            self.test_proba = arrays["test"]
        except FileNotFoundError as error:
            raise InputError(
                f"{error.filename}: no such head was trained; run `dvc repro`"
            ) from error
        except KeyError as error:
            raise InputError(
                f"{path}: of other images than data/index.csv; run `dvc repro`"
            ) from error
        except UNREADABLE_NPZ as error:
            raise InputError(f"{path}: is damaged ({error}); run `dvc repro`") from error
        self.validation_right = self.validation_proba.argmax(axis=1) == self.validation["label"]
        self.test_right = self.test_proba[0].argmax(axis=1) == self.test["label"]


def same_rows(answers: dict[str, Answers]) -> None:
    """See that all heads answered of the same images, in the same order.

    Raises:
        InputError: They did not: they were trained at different times.
    """
    first, *others = answers
    for name in others:
        for part in ("validation", "test"):
            if not getattr(answers[first], part).index.equals(getattr(answers[name], part).index):
                raise InputError(
                    f"{PROBABILITIES}: {first} and {name} answered of different {part} images; "
                    "run `dvc repro`"
                )


def no_strays(params: Params) -> None:
    """See that no results of heads are left that params.yaml no longer has.

    They would travel with the others, and be hashed with them.

    Raises:
        InputError: There are some.
    """
    for folder, known in ((TRAINING, list(params.heads)), (STUDY, params.study.heads)):
        for path in sorted(folder.glob("*.json")):
            if (name := path.stem) not in known:
                rest = f"rm -r {MODELS}/{name} {LIVE}/{name} {RESULTS}/*/{name}.*"
                raise InputError(
                    f"{path}: params.yaml asks for no such head here; remove what is left of it "
                    f"(`{rest if folder == TRAINING else f'rm {path}'}`) and run again"
                )


def studied(result: HeadResult, confidence: float) -> HeadResult:
    """With what `stages.study` found.

    Where no track has two images, holding out images is holding out tracks: no leak is stated.
    """
    study = read_json(STUDY / f"{result.name}.json")

    def part(answers: dict[str, Any]) -> Share:
        return share_by_track(
            np.array(answers["right"], bool), np.array(answers["of_track"]), confidence
        )

    return replace(
        result,
        curve={answers["tracks"]: part(answers) for answers in study["curve"]},
        leak=Leak(
            frames=part(study["by_frame"]),
            tracks=part(study["curve"][-1]),
            test=result.test.top1,
        )
        if study["by_frame"]
        else None,
    )
