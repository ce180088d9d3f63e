"""The base that params.yaml asks for: its weights, its identity, its forward pass."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import pipeline
from pipeline import alexnet, features
from pipeline.archives import Archive, fetch_archive
from pipeline.errors import InputError
from pipeline.images import decode, pixels
from pipeline.weights import load_weights, weights_digest
from stages.params import Params, stated

# Whatever is in these, and in this file, can change a feature: their text is part of what made it.
_CODE = ("alexnet.py", "frozen.py", "features.py", "images.py")


@dataclass(frozen=True)
class FrozenBase:
    """Weights loaded, network built on first use."""

    params: Params
    weights: dict[str, NDArray[np.float32]]

    @cached_property
    def model(self) -> Any:
        """The Keras model."""
        base = self.params.base
        return alexnet.build(base.variant, self.weights, base.layers, base.precision)

    @property
    def input_px(self) -> int:
        """Side of the images the network takes, pixels."""
        return alexnet.VARIANTS[self.params.base.variant].input_px

    @property
    def widths(self) -> dict[str, int]:
        """Layer to the number of its features."""
        return alexnet.tap_widths(self.params.base.variant, self.params.base.layers)

    def made_by(self) -> dict[str, Any]:
        """The parts that a feature's value depends on; goes into the store, so no paths here."""
        folder = Path(pipeline.__file__).parent
        code = b"".join(
            path.read_bytes() for path in (*(folder / n for n in _CODE), Path(__file__))
        )
        return stated(self.params) | {
            "weights_sha256": weights_digest(self.weights),
            "code_sha256": hashlib.sha256(code).hexdigest(),
        }

    def reader(self, index: pd.DataFrame) -> Callable[[int], NDArray[np.uint8]]:
        """A function from a row of the index to the pixels the network is given."""
        roi = index[["roi_x1", "roi_y1", "roi_x2", "roi_y2"]].to_numpy()
        # Lists share the table's strings; arrays of text would hold each at four bytes a letter.
        splits, members = index["split"].to_list(), index["member"].to_list()
        digests = index["sha256"].to_list()
        settings = self.params.prepare
        opened = {
            split: Archive(fetch_archive(settings.source, split, getattr(settings.md5, split)))
            for split in sorted(set(splits))
        }
        cropped = self.params.base.crop == "roi"

        def read(row: int) -> NDArray[np.uint8]:
            archive, member = opened[splits[row]], members[row]
            data = archive.read(member)
            if hashlib.sha256(data).hexdigest() != digests[row]:
                raise InputError(
                    f"{archive.path}: {member} is not the image that data/index.csv lists; "
                    "run `dvc repro -f prepare`"
                )
            x1, y1, x2, y2 = map(int, roi[row])
            box = (x1, y1, x2, y2) if cropped else None
            return pixels(decode(data, f"{archive.path}: {member}"), self.input_px, box)

        return read

    def forward(self, images: Any) -> Any:
        """See `pipeline.features.forward`."""
        return features.forward(self.model, images)


def load_base(params: Params) -> FrozenBase:
    """Read and check the weights that the layers asked for need.

    Raises:
        InputError: An unknown layer; weights absent, of another hash, of another shape.
    """
    base = params.base
    try:
        shapes = alexnet.weight_shapes(base.variant, base.layers)
    except ValueError as error:
        raise InputError(f"params.yaml: base.layers: {error}") from error
    return FrozenBase(params, load_weights(base.weights, base.sha256, shapes))


def input_keys(index: pd.DataFrame, crop: str) -> NDArray[np.uint8]:
    """(N, 32) uint8: a digest of what enters the base, equal for rows with equal features."""
    digests = [bytes.fromhex(digest) for digest in index["sha256"]]
    if crop == "roi":
        boxes = index[["roi_x1", "roi_y1", "roi_x2", "roi_y2"]].to_numpy("<i4")
        pairs = zip(digests, boxes, strict=True)
        digests = [hashlib.sha256(digest + box.tobytes()).digest() for digest, box in pairs]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(index), 32)
