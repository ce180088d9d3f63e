"""Views of an image: names, boxes, and what is cut out where a box leaves the image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.images import cropped, resized
from pipeline.views import shifted, view_count, view_name


def test_there_is_one_view_without_a_shift_and_five_with() -> None:
    assert (view_count(0), view_count(0.04)) == (1, 5)
    names = [view_name("conv3", view) for view in range(3)]
    assert names == ["conv3", "conv3_view1", "conv3_view2"]


def test_the_plain_view_is_the_box_and_the_others_go_to_its_corners() -> None:
    box = (10, 20, 59, 119)  # 50 x 100 pixels
    moved = [shifted(box, 0.04, view) for view in range(5)]
    assert moved[0] == box
    assert {(x1 - 10, y1 - 20) for x1, y1, _, _ in moved[1:]} == {
        (2, 4), (-2, -4), (2, -4), (-2, 4),
    }  # fmt: skip


@given(
    box=st.tuples(*[st.integers(0, 100)] * 2, *[st.integers(101, 300)] * 2),
    shift=st.floats(0, 0.49),
    view=st.integers(0, 4),
)
def test_a_shifted_box_keeps_its_size(
    box: tuple[int, int, int, int], shift: float, view: int
) -> None:
    x1, y1, x2, y2 = shifted(box, shift, view)
    assert (x2 - x1, y2 - y1) == (box[2] - box[0], box[3] - box[1])
    assert abs(x1 - box[0]) <= shift * (x2 - x1 + 1) + 0.5


@pytest.mark.parametrize("box", [(-3, 0, 8, 11), (4, 5, 15, 16), (-5, -5, 20, 30), (2, 3, 7, 8)])
def test_outside_the_image_its_edge_is_repeated(box: tuple[int, int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    padded = np.pad(image, ((40, 40), (40, 40), (0, 0)), "edge")
    x1, y1, x2, y2 = (side + 40 for side in box)
    cut = Image.fromarray(padded[y1 : y2 + 1, x1 : x2 + 1])
    expected = np.asarray(cut.resize((8, 8), Image.Resampling.BILINEAR))
    got = resized(cropped(Image.fromarray(image), box), 8)
    np.testing.assert_array_equal(got, expected)
