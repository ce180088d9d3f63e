"""The base that params.yaml asks for: its weights, its identity, its forward pass."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

import pipeline
from pipeline import alexnet
from pipeline.archives import Archive, fetch_archive
from pipeline.errors import InputError
from pipeline.features import BATCH_ROWS, forward
from pipeline.images import Contrast, decode, pixels
from pipeline.views import Box, shifted, view_count, view_name
from pipeline.weights import load_weights, weights_digest
from stages.params import Params, stated

# Whatever is in these, and in this file, can change a feature: their text is part of what made it.
_CODE = ("alexnet.py", "frozen.py", "features.py", "images.py", "views.py")


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
    def views(self) -> int:
        """How many views of each image are forwarded."""
        return view_count(self.params.base.shift)

    @property
    def widths(self) -> dict[str, int]:
        """Array of the store (a layer in one view) to the number of its features."""
        widths = alexnet.tap_widths(self.params.base.variant, self.params.base.layers)
        return {view_name(k, view): widths[k] for view in range(self.views) for k in widths}

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

    def seen(self, image: Image.Image, box: Box | None = None) -> NDArray[np.uint8]:
        """What the network is given of an image, or of a box in it.

        Returns:
            (V, H, W, 3) uint8, V views.
        """
        asked = self.params.base.contrast
        contrast = Contrast(asked.clip, asked.tiles) if asked else None
        box = box or (0, 0, image.width - 1, image.height - 1)
        boxes = [shifted(box, self.params.base.shift, view) for view in range(self.views)]
        return np.stack([pixels(image, self.input_px, each, contrast) for each in boxes])

    def reader(self, index: pd.DataFrame) -> Callable[[int], NDArray[np.uint8]]:
        """A function from a row of the index to what `seen` gives of it."""
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
            return self.seen(decode(data, f"{archive.path}: {member}"), box)

        return read

    def forward(
        self, images: Iterable[NDArray[np.uint8]]
    ) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Push images through the base, each view once; see `pipeline.features.forward`.

        Args:
            images: (V, H, W, 3) each, as `seen` gives them.

        Yields:
            Per batch, array of the store to (n, D) float32.
        """
        images = iter(images)
        while batch := list(islice(images, BATCH_ROWS)):
            blocks: dict[str, NDArray[np.float32]] = {}
            for view in range(self.views):
                (block,) = forward(self.model, (image[view] for image in batch))
                blocks |= {view_name(layer, view): block[layer] for layer in block}
            yield blocks


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
