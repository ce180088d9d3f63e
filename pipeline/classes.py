"""What labels mean: GTSRB's 43 classes and six families, or a person's own classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import InputError

CLASS_NAMES = (
    *(f"speed limit {speed}" for speed in (20, 30, 50, 60, 70, 80)),
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no passing",
    "no passing for trucks",
    "right of way at crossing",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "general danger",
    "curve left",
    "curve right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic signals",
    "pedestrians",
    "children",
    "bicycles",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "straight or right",
    "straight or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing for trucks",
)

# The six families of Stallkamp et al., IJCNN 2011.
FAMILIES = {
    "speed limits": [0, 1, 2, 3, 4, 5, 7, 8],
    "other prohibitions": [9, 10, 15, 16],
    "derestriction": [6, 32, 41, 42],
    "mandatory": list(range(33, 41)),
    "danger": [11, *range(18, 32)],
    "unique": [12, 13, 14, 17],
}


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset.

    Attributes:
        dataset: "gtsrb", or "own" for any other; see `pipeline.words`.
        names: C names, by class number.
        families: Class numbers by family, in the order to show them; empty where there are none.
    """

    dataset: Literal["gtsrb", "own"]
    names: tuple[str, ...]
    families: dict[str, list[int]]


GTSRB = Classes("gtsrb", CLASS_NAMES, FAMILIES)


def read_classes(path: Path) -> Classes:
    """Read what ``prepare`` wrote.

    Raises:
        InputError: Absent, or no such file.
    """
    try:
        return TypeAdapter(Classes).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no list of classes; run `dvc repro prepare`") from error
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise InputError(
            f"{path}: not a list of classes ({reason}); run `dvc repro -f prepare`"
        ) from error
