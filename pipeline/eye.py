"""How images are shown to the network."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.images import Contrast, cropped, resized
from pipeline.views import Box, shifted, view_count

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Eye:
    """What of an image is shown, and how.

    Attributes:
        input_px: Side of what it takes, pixels.
        to_roi: Whether only the region of interest is shown.
        contrast: How it is equalised, if it is.
        shift: See `pipeline.views`.
        enlarges: Whether the device enlarges what is smaller than input_px.
    """

    input_px: int
    to_roi: bool = False
    contrast: Contrast | None = None
    shift: float = 0
    enlarges: bool = False

    def seen(self, image: Image.Image, box: Box | None = None) -> list[Pixels]:
        """What the network is given of an image, or of a box in it.

        Returns:
            One for each view: (H, W, 3) uint8; or smaller, to be enlarged on the device.
        """
        box = box or (0, 0, image.width - 1, image.height - 1)
        views = []
        for view in range(view_count(self.shift)):
            crop = cropped(image, shifted(box, self.shift, view))
            # Equalisation needs it enlarged.
            small = self.enlarges and self.contrast is None
            if not small or max(crop.shape[:2]) > self.input_px:
                crop = resized(crop, self.input_px, self.contrast)
            views.append(crop)
        return views
