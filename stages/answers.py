"""What ``train`` and ``study`` left behind of one head, read for the comparison."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.errors import InputError
from pipeline.results import HeadResult, Leak, Trial
from pipeline.scores import Share, wilson
from stages.places import PROBABILITIES, STUDY, SWEEPS, TRAINING


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
        try:
            self.training = json.loads((TRAINING / f"{name}.json").read_text())
            with np.load(path, allow_pickle=False) as arrays:
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
        self.validation_right = self.validation_proba.argmax(axis=1) == self.validation["label"]
        self.test_right = self.test_proba[0].argmax(axis=1) == self.test["label"]


def sweep_of(name: str, searched: list[str]) -> list[Trial]:
    """The sweep's table, its folds averaged."""
    table = pd.read_csv(SWEEPS / f"{name}.csv")
    return [
        Trial(
            settings={key: rows[key].tolist()[0] for key in searched},
            accuracy=float(rows["val_accuracy"].mean()),
            nll=float(rows["val_nll"].mean()),
            chosen=bool(rows["chosen"].iloc[0]),
        )
        for _, rows in table.groupby("trial")
    ]


def studied(result: HeadResult, confidence: float) -> HeadResult:
    """With what `stages.study` found."""
    study = json.loads((STUDY / f"{result.name}.json").read_text())
    by_frame, curve = study["by_frame"], study["curve"]

    def part(counts: dict[str, int]) -> Share:
        return wilson(counts["right"], counts["rows"], confidence)

    return replace(
        result,
        curve={entry["tracks"]: part(entry) for entry in curve},
        leak=Leak(
            frames=part(by_frame),
            tracks=part(curve[-1]),
            test=wilson(result.test.correct, result.test.rows, confidence),
        ),
    )
