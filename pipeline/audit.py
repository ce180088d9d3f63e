"""What a person should know of the images before trusting a result on them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd


def audit(index: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """Count classes, tracks and sizes, and list what is there twice.

    Args:
        index: See `pipeline.index`.
        names: Of the classes, by number.
    """
    train, test = index[index["split"] == "train"], index[index["split"] == "test"]
    kinds: dict[str, list[list[str]]] = {"within_train": [], "within_test": [], "across": []}
    again = index[index["sha256"].duplicated(keep=False)]
    for _, group in again.groupby("sha256", sort=False):
        splits = set(group["split"])
        kind = "across" if len(splits) > 1 else f"within_{splits.pop()}"
        kinds[kind].append(group["image_id"].tolist())
    frames = train.groupby("track").size()
    counts = {
        "train": train.groupby("label").size(),
        "test": test.groupby("label").size(),
        "tracks": train.groupby("label")["track"].nunique(),
    }
    return {
        "images": {"train": len(train), "test": len(test)},
        "classes": {
            str(label): {"name": name}
            | {key: int(count.get(label, 0)) for key, count in counts.items()}
            for label, name in enumerate(names)
        },
        "tracks": {
            "count": len(frames),
            "frames_min": int(frames.min()),
            "frames_max": int(frames.max()),
        },
        "size_px": {
            side: {
                "min": int(index[side].min()),
                "median": float(index[side].median()),
                "max": int(index[side].max()),
            }
            for side in ("width", "height")
        },
        "exact_duplicates": kinds,
    }
