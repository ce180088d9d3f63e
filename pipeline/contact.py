"""A contact sheet: what goes in, seen at a glance."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from pipeline.formats import shorten

THUMB_PX, NAME_PX, COLUMNS = 48, 190, 2
MOST_CLASSES = 1000  # more make a picture that no program likes to open


def chosen_images(index: pd.DataFrame, per_class: int) -> dict[int, list[int]]:
    """Rows to show of each class, up to `MOST_CLASSES`: training images, spread over its tracks.

    Args:
        index: As `pipeline.index` describes it.
        per_class: At most so many.
    """
    train = np.flatnonzero(index["split"] == "train")
    label = index["label"].to_numpy()[train]
    shown = {}
    for number in np.unique(label)[:MOST_CLASSES].tolist():
        rows = train[label == number]
        spread = np.linspace(0, len(rows) - 1, min(per_class, len(rows))).astype(int)
        shown[number] = rows[spread].tolist()
    return shown


def contact_sheet(
    rows: dict[int, list[int]], names: Sequence[str], read: Callable[[int], Image.Image]
) -> Image.Image:
    """One line per class: its number and name, then its images.

    Args:
        rows: Class to the rows to show.
        names: By class.
        read: Row to image.
    """
    per_class = max(map(len, rows.values()))
    lines = -(-len(rows) // COLUMNS)
    width = NAME_PX + per_class * THUMB_PX
    sheet = Image.new("RGB", (COLUMNS * width, lines * THUMB_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    indent = max(26, 12 + math.ceil(draw.textlength(str(max(rows)), font)))  # of names
    for place, (label, shown) in enumerate(sorted(rows.items())):
        x, y = place // lines * width, place % lines * THUMB_PX
        draw.text((x + 6, y + THUMB_PX // 2), f"{label:2}", "black", font, "lm")
        name = shorten(names[label], 40)
        while draw.textlength(name, font) > NAME_PX - indent:
            name = shorten(name, len(name) - 1)
        draw.text((x + indent, y + THUMB_PX // 2), name, "black", font, "lm")
        for number, row in enumerate(shown):
            thumb = read(row).resize((THUMB_PX - 2, THUMB_PX - 2), Image.Resampling.BILINEAR)
            sheet.paste(thumb, (x + NAME_PX + number * THUMB_PX + 1, y + 1))
    return sheet
