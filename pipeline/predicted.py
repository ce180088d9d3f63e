"""What a head makes of single images, as one HTML page that needs nothing else."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@dataclass(frozen=True)
class Neighbour:
    """A training image that is like the one asked about."""

    image_id: str
    label: str  # its class's name
    similarity: float  # cosine of features, -1..1
    jpeg: bytes


@dataclass(frozen=True)
class Predicted:
    """One image asked about.

    Attributes:
        name: Its file; any text, trusted with nothing.
        jpeg: What it looks like, small.
        classes: Pairs of name and probability 0..1, the likeliest first.
        neighbours: The most similar first; empty if not asked for.
    """

    name: str
    jpeg: bytes
    classes: Sequence[tuple[str, float]]
    neighbours: Sequence[Neighbour]


def render_predicted(head: str, images: Sequence[Predicted], notices: Sequence[str]) -> str:
    """Lay predictions out as one HTML page.

    Args:
        head: Name of the head.
        images: In the order to show.
        notices: Sentences that a reader must know before believing the page; may be empty.

    Returns:
        The page, to be written as UTF-8.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data"] = _data
    template = environment.get_template("predicted.html.j2")
    return template.render(head=head, images=images, notices=notices)


def _data(jpeg: bytes) -> str:
    """An address that holds the picture itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
