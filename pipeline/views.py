"""Views of an image: as it is and, where asked for, shifted a little towards each corner.

What is cached of the shifted views only helps to decide: heads are trained on the plain one, and
their scores of all views of an image are averaged (ten-crop testing, as in Krizhevsky et al. 2012,
but never mirrored: several signs are others in the mirror).
"""

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 of the first and last pixel, both inside

_DIRECTIONS = ((0, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))  # of x and y


def view_count(shift: float) -> int:
    """How many views there are of each image; without a shift, one."""
    return len(_DIRECTIONS) if shift else 1


def view_name(layer: str, view: int) -> str:
    """What the features of a layer, seen in one view, are called in a store: "conv3" is view 0."""
    return f"{layer}_view{view}" if view else layer


def shifted(box: Box, shift: float, view: int) -> Box:
    """The box moved by a share of its sides, in whole pixels."""
    x1, y1, x2, y2 = box
    right, down = _DIRECTIONS[view]
    dx, dy = round(right * shift * (x2 - x1 + 1)), round(down * shift * (y2 - y1 + 1))
    return x1 + dx, y1 + dy, x2 + dx, y2 + dy
