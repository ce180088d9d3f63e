"""The contact sheet: what is written on it can be read."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.contact import MOST_CLASSES, NAME_PX, chosen_images, contact_sheet


def written(label: int, name: str) -> np.ndarray:
    """(W,) whether anything is written in each column of the line of one class."""
    names = {label: name}
    sheet = contact_sheet({label: [0]}, names, lambda _: Image.new("RGB", (8, 8), "white"))  # type: ignore[arg-type]
    return (np.asarray(sheet.convert("L"))[:, :NAME_PX] < 128).any(axis=0)


@pytest.mark.parametrize("label", [7, 42, 100, 999, 12_345])
def test_a_name_keeps_clear_of_its_number(label: int) -> None:
    number, both = written(label, ""), written(label, "M" * 30)
    end = number.nonzero()[0].max()
    name = (both & ~number).nonzero()[0]
    assert name.min() > end + 1
    assert name.max() < NAME_PX
    np.testing.assert_array_equal(both[: end + 1], number[: end + 1])


def test_of_many_classes_the_first_are_shown() -> None:
    label = np.arange(MOST_CLASSES + 5).repeat(2)
    index = pd.DataFrame({"split": "train", "label": label})
    shown = chosen_images(index, 6)
    assert list(shown) == list(range(MOST_CLASSES))
    assert shown[3] == [6, 7]
