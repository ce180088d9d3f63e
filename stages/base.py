"""The base that params.yaml asks for: its weights, its identity, its forward pass."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import pipeline
from pipeline import alexnet, backend
from pipeline.archives import fetch_archive
from pipeline.errors import InputError
from pipeline.eye import Eye
from pipeline.features import Features, Network, Pixels, forward
from pipeline.folder import own_root
from pipeline.images import Contrast
from pipeline.reading import Reader
from pipeline.views import view_count, view_name
from pipeline.weights import load_first_weights, weights_digest
from stages.console import warn
from stages.params import Params, stated

# Whatever is in these, and in this file, can change a feature: their text is part of what made it.
_CODE = (
    "alexnet.py", "backend.py", "enlarge.py", "eye.py", "features.py", "frozen.py", "images.py",
    "views.py",
)  # fmt: skip


@dataclass(frozen=True)
class FrozenBase:
    """Weights loaded, network built on first use."""

    params: Params
    weights: dict[str, NDArray[np.float32]]
    _archives: dict[str, Path] = field(default_factory=dict, repr=False)  # those checked

    @cached_property
    def model(self) -> Any:
        """The Keras model."""
        base = self.params.base
        return alexnet.build(base.variant, self.weights, base.layers, base.precision)

    @cached_property
    def network(self) -> Network:
        """The model, compiled."""
        return Network(self.model)

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

    @cached_property
    def eye(self) -> Eye:
        """How images are shown to it."""
        base = self.params.base
        contrast = Contrast(base.contrast.clip, base.contrast.tiles) if base.contrast else None
        return Eye(self.input_px, base.crop == "roi", contrast, base.shift)

    def reader(self, index: pd.DataFrame) -> Reader:
        """A reader of the index's images.

        Raises:
            InputError: An archive is missing, or another one; a folder is missing.
        """
        settings = self.params.prepare
        root = own_root(settings.source)
        for split in sorted(set(index["split"]) - self._archives.keys()):
            md5 = getattr(settings.md5, split)
            self._archives[split] = root or fetch_archive(settings.source, split, md5)
        return Reader(index, self._archives, replace(self.eye, enlarges=backend.accelerated()))

    def forward(self, images: Iterable[Sequence[Pixels]]) -> Iterator[Features]:
        """Push images through the base, each view once; see `pipeline.features.forward`.

        Args:
            images: Of each its views, as `Eye.seen` gives them.

        Yields:
            Per batch, array of the store to (n, D) float32.
        """
        for views in forward(self.network, images):
            yield {
                view_name(layer, view): block
                for view, blocks in enumerate(views)
                for layer, block in blocks.items()
            }


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
    return FrozenBase(params, load_first_weights(base.sources, shapes, warn))


def input_keys(index: pd.DataFrame, crop: str) -> NDArray[np.uint8]:
    """(N, 32) uint8: a digest of what enters the base, equal for rows with equal features."""
    digests = [bytes.fromhex(digest) for digest in index["sha256"]]
    if crop == "roi":
        boxes = index[["roi_x1", "roi_y1", "roi_x2", "roi_y2"]].to_numpy("<i4")
        pairs = zip(digests, boxes, strict=True)
        digests = [hashlib.sha256(digest + box.tobytes()).digest() for digest, box in pairs]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(index), 32)
