"""Draws the 43 traffic signs of GTSRB as clean frontal pictures, from shapes alone.

A sign is an outline (red ring, warning triangle, blue disc, ...) and a pictogram inside it. The
outline paints itself and hands back a pen scaled to its inside; the pictogram draws with that pen
in unit coordinates: x to the right, y down, the inside reaching from about -1 to 1.

A point is the complex number x + yj, so that turning and shifting are products and sums. Most
pictograms are written as marks with "/" between them: "x,y x,y ..." fills a polygon, "x,y,width
x,y,width ..." draws a line with round ends and a width at each joint; a colour may stand first.
"""

import cmath
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

WHITE, BLACK, GREY = "white", "#141416", "#8c8e92"
RED, BLUE, YELLOW, GREEN = "#c81622", "#0054a6", "#ffc600", "#009654"
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Pen:
    """Draws in one colour, in units which `origin`, `right` and `down` place on the canvas."""

    draw: ImageDraw.ImageDraw
    origin: complex
    right: complex
    down: complex
    ink: str = BLACK

    def vector(self, step: complex) -> complex:
        """Returns a step in units as a step in pixels."""
        return step.real * self.right + step.imag * self.down

    def at(self, origin: complex, unit: complex) -> "Pen":
        """Returns a pen moved to an origin, its units scaled and turned by a factor."""
        right, down = self.vector(unit), self.vector(unit * 1j)
        return replace(self, origin=self.origin + self.vector(origin), right=right, down=down)

    def area(self, points: Sequence[complex]) -> None:
        """Fills a polygon."""
        corners = [self.origin + self.vector(point) for point in points]
        self.draw.polygon([(corner.real, corner.imag) for corner in corners], fill=self.ink)

    def line(self, points: Sequence[complex], widths: Sequence[float]) -> None:
        """Draws a line with round ends through points, with a width at each of them."""
        for point, width in zip(points, widths, strict=True):
            self.area(polygon(60, width / 2, 0, point))
        for (a, a_width), (b, b_width) in pairwise(zip(points, widths, strict=True)):
            side = 0.5j * (b - a) / (abs(b - a) or 1)
            ends = side * a_width, side * b_width
            self.area([a + ends[0], b + ends[1], b - ends[1], a - ends[0]])

    def mark(self, text: str) -> None:
        """Draws marks, written as the module says."""
        for words in map(str.split, text.split("/")):
            pen = self if "," in words[0] else replace(self, ink=words.pop(0))
            x, y, *width = zip(*(map(float, word.split(",")) for word in words), strict=True)
            points = list(map(complex, x, y))
            pen.line(points, *width) if width else pen.area(points)


Outline = Callable[[Pen], Pen]
Pictogram = Callable[[Pen], None]


def polygon(sides: int, radius: float, turn: float, centre: complex = 0j) -> list[complex]:
    """Returns the corners of a regular polygon, the first at an angle (degrees, 0 is right)."""
    return [centre + cmath.rect(radius, math.radians(turn + 360 * k / sides)) for k in range(sides)]


def plate(
    sides: int, turn: float, *layers: tuple[float, float, str], y: float = 0, inside: float = 1
) -> Outline:
    """Returns an outline of regular polygons around (0, y), one on another.

    Each layer is the polygon's size (0 for a disc), how far it is grown all around, and its
    colour; `inside` is the scale of the pictogram. Its ink is black on white, else white.
    """

    def outline(pen: Pen) -> Pen:
        for size, grown, colour in layers:
            corners = polygon(sides, size, turn, y * 1j)
            layer = replace(pen, ink=colour)
            layer.area(corners)
            layer.line([*corners, corners[0]], [2 * grown] * (sides + 1))
        return replace(pen.at(0.85j * y, inside), ink=BLACK if colour == WHITE else WHITE)

    return outline


red_ring = plate(3, 0, (0, 1, WHITE), (0, 0.97, RED), (0, 0.75, WHITE), inside=0.62)
red_disc = plate(3, 0, (0, 1, WHITE), (0, 0.97, RED))
blue_disc = plate(3, 0, (0, 1, WHITE), (0, 0.95, BLUE), inside=0.74)
white_disc = plate(3, 0, (0, 1, WHITE), (0, 0.98, BLACK), (0, 0.93, WHITE), inside=0.68)
octagon = plate(8, 22.5, (1.08, 0, WHITE), (1.02, 0, RED))
diamond = plate(4, 0, (0.95, 0.05, BLACK), (0.92, 0.05, WHITE), (0.64, 0.05, YELLOW))
bordered = (1.016, 0.12, WHITE), (1.016, 0.09, RED), (0.8, 0.03, WHITE)
triangle = plate(3, -90, *bordered, y=0.254, inside=0.44)
inverted_triangle = plate(3, 90, *bordered, y=-0.254)


def sketch(*parts: str | Pictogram) -> Pictogram:
    """Returns marks and pictograms drawn on one another."""

    def draw(pen: Pen) -> None:
        for part in parts:
            pen.mark(part) if isinstance(part, str) else part(pen)

    return draw


def placed(part: Pictogram, origin: complex, unit: complex, ink: str = "") -> Pictogram:
    """Returns a pictogram moved, scaled and turned, in another colour if one is given."""
    return lambda pen: part(replace(pen.at(origin, unit), ink=ink or pen.ink))


def mirrored(part: Pictogram) -> Pictogram:
    """Returns a pictogram with left and right swapped."""
    return lambda pen: part(replace(pen, right=-pen.right))


def text(words: str, width: float, height: float) -> Pictogram:
    """Returns bold text centred on the origin and stretched to a width and a height."""

    def draw(pen: Pen) -> None:
        font, weight = ImageFont.load_default(size=160), 5
        left, top, right, bottom = map(round, font.getbbox(words, stroke_width=weight))
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).text((-left, -top), words, 255, font, stroke_width=weight)
        size = round(width * abs(pen.right)), round(height * abs(pen.down))
        corner = round(pen.origin.real - size[0] / 2), round(pen.origin.imag - size[1] / 2)
        pen.draw.bitmap(corner, mask.crop(mask.getbbox()).resize(size), fill=pen.ink)

    return draw


def arrow(width: float, path: str) -> Pictogram:
    """Returns an arrow which curves along a path "x,y x,y ..."; its head reaches beyond."""
    points = [complex(*map(float, point.split(","))) for point in path.split()]
    for _ in range(3):  # Chaikin's algorithm: cutting the corners thrice leaves a smooth curve.
        cuts = [a + (b - a) * share for a, b in pairwise(points) for share in (0.25, 0.75)]
        points = [points[0], *cuts, points[-1]]
    end, ahead = points[-1], width * (points[-1] - points[-2]) / abs(points[-1] - points[-2])

    def draw(pen: Pen) -> None:
        pen.line(points, [width] * len(points))
        pen.area([end + 1.7 * ahead, end + 1.15j * ahead, end - 1.15j * ahead])

    return draw


def beside_car(vehicle: Pictogram, ink: str) -> Pictogram:
    """Returns a vehicle of a colour which overtakes a car."""
    return sketch(placed(vehicle, -0.53, 0.48, ink=ink), placed(car, 0.53, 0.48))


in_grey = partial(placed, origin=0, unit=1, ink=GREY)
striped = sketch(*(f"-1.28,{y},.075 1.28,{y},.075" for y in (-0.4, -0.2, 0, 0.2, 0.4)))
stripes = placed(striped, 0, cmath.rect(1, -math.pi / 4))

nothing = sketch()
bar = sketch("-.72,-.18 .72,-.18 .72,.18 -.72,.18")
exclamation = sketch("0,-.8,.42 0,.3,.22 / 0,.78,.42")
crossing = sketch("-.8,.2,.2 .8,.2,.2 / -.22,1 -.22,-.3 -.46,-.3 0,-1.05 .46,-.3 .22,-.3 .22,1")
bumps = sketch("-.53,.45,.86 / .53,.45,.86 / -1.25,.9 -1.25,.5 1.25,.5 1.25,.9")
narrowing = sketch("-.4,-.7,.22 -.4,.9,.22 / .12,-.7,.22 .12,-.2,.22 .5,.2,.22 .5,.9,.22")
lights = sketch(
    "-.25,-.7,.3 .25,-.7,.3 .25,.8,.3 -.25,.8,.3 -.25,-.7,.3 / -.3,-.7 .3,-.7 .3,.8 -.3,.8",
    f"{RED} 0,-.51,.52 / {YELLOW} 0,.05,.52 / {GREEN} 0,.61,.52",
)
car = sketch(
    "-1,.6 -1,.05 -.85,-.12 -.6,-.8 .6,-.8 .85,-.12 1,.05 1,.6 / -.7,.75,.42 / .7,.75,.42",
    "white -.6,-.12 -.42,-.6 .42,-.6 .6,-.12 / white -.72,.2,.2 / white .72,.2,.2",
)
truck = sketch(
    "-.95,.6 -.95,-1.3 .95,-1.3 .95,.6 / -.65,.75,.44 / .65,.75,.44",
    "white -.95,.12 -.95,0 .95,0 .95,.12 / white -.7,.35,.2 / white .7,.35,.2",
)
truck_from_side = sketch(
    "-.35,.3 -.35,-.6 1,-.6 1,.3 / -1,.4 -1,-.05 -.85,-.4 -.42,-.4 -.42,.3 1,.3 1,.4",
    "-.68,.42,.36 / .35,.42,.36 / .76,.42,.36 / white -.88,-.02 -.76,-.28 -.56,-.28 -.56,-.02",
)
skidding_car = sketch(
    placed(car, -0.25j, 0.58),
    "-.3,.36,.14 -.18,.48,.14 -.22,.6,.14 -.38,.7,.14 -.42,.82,.14 -.3,.97,.14",
    ".36,.36,.14 .48,.48,.14 .44,.6,.14 .28,.7,.14 .24,.82,.14 .36,.97,.14",
)
bicycle = sketch(
    "-.68,.35,1 / .68,.35,1 / white -.68,.35,.76 / white .68,.35,.76",
    "-.68,.35,.1 -.42,-.45,.1 -.62,-.52,.1 / .02,.35,.1 .36,-.45,.1 / .18,-.48,.12 .54,-.48,.12",
    "-.46,-.25,.1 .3,-.25,.1 .68,.35,.1 .02,.35,.1 -.46,-.25,.1",
)
arm = sketch("0,0,.13 0,1,.13 / -.27,.82,.11 0,.6,.11 .27,.82,.11")
snowflake = sketch(*(placed(arm, 0, unit) for unit in polygon(6, 0.95, 0)))
pedestrian = sketch(
    "-.05,-.85,.36 / 0,-.5,.36 .03,.05,.36 / -.02,.1,.28 -.25,.5,.22 -.3,1,.17",
    ".06,.1,.28 .22,.5,.22 .48,1,.17 / -.05,-.5,.2 -.5,.02,.13 / .08,-.5,.2 .36,.03,.13",
)
children = sketch(
    "-.42,-.72,.32 / -.38,-.38,.32 -.3,.05,.32 / -.32,.1,.24 -.62,.35,.2 -.6,.78,.15",
    "-.25,.1,.24 -.05,.5,.2 .2,.75,.15 / -.42,-.42,.17 -.68,-.15,.14 -.9,-.25,.12",
    "-.32,-.42,.17 .02,-.15,.13 .3,-.05,.12 .6,.02,.12 / .62,-.25,.28 / .64,.05,.26 .68,.35,.26",
    ".65,.4,.2 .42,.6,.16 .44,.92,.13 / .72,.4,.2 .86,.68,.16 1.08,.88,.13 / .7,.02,.13 1,.2,.1",
)
worker = sketch(
    "-.08,-.72,.36 / -.22,-.38,.38 -.4,.1,.38 / -.42,.15,.28 -.2,.5,.22 -.3,1,.17 -.2,1,.15",
    "-.45,.15,.28 -.62,.55,.22 -.95,1,.17 -.85,1,.15 / -.18,-.4,.18 .12,-.05,.15 .3,.25,.14",
    "-.3,-.3,.18 -.15,.05,.15 .08,.05,.13 / -.25,-.15,.08 .7,.8,.08",
    ".3,1.05 .55,.72 .8,.55 1.02,.72 1.3,1.05",
)
deer = sketch(
    "-.95,-.42,.12 -.72,-.52,.26 / -.68,-.5,.22 -.42,-.1,.34 -.1,.0,.44 .35,.12,.38 .55,.2,.42",
    "-.4,0,.22 -.8,.15,.15 -.98,.4,.1 -.82,.52,.09 / -.35,.05,.22 -.62,.35,.15 -.66,.65,.1",
    ".58,.25,.32 .62,.55,.18 .95,.72,.12 1.2,.98,.1 / .52,.25,.32 .42,.55,.18 .85,1,.1",
    ".65,.08,.18 .82,0,.1 / -.68,-.6,.08 -.52,-.85,.08 -.62,-1.05,.06 / -.52,-.85,.07 -.36,-1,.06",
    "-.62,-.58,.12 -.48,-.62,.06 / -.6,-.72,.07 -.38,-.78,.06 / -.72,-.6,.08 -.78,-.95,.06",
)
curve = arrow(0.34, "-.35,.95 -.35,.2 .12,-.2 .2,-.35")
double_curve = arrow(0.3, "-.2,.95 -.2,.5 .35,.3 .35,0 -.1,-.25 -.1,-.5")
turn = arrow(0.36, "-.45,.8 -.45,-.3 .3,-.3")
ahead = arrow(0.36, "0,.85 0,-.35")
ahead_or_right = sketch(arrow(0.3, "-.3,.8 -.3,-.45"), arrow(0.3, "-.3,.8 -.3,.1 .4,.1"))
keep_right = arrow(0.36, "-.55,-.55 .3,.3")
round_third = arrow(0.27, ".65,-.09 .65,-.35 .52,-.53 .3,-.58")
roundabout = sketch(*(placed(round_third, 0, unit) for unit in polygon(3, 1, 30)))

SIGNS: dict[int, tuple[Outline, Pictogram]] = {
    0: (red_ring, text("20", 1.8, 1.4)),
    1: (red_ring, text("30", 1.8, 1.4)),
    2: (red_ring, text("50", 1.8, 1.4)),
    3: (red_ring, text("60", 1.8, 1.4)),
    4: (red_ring, text("70", 1.8, 1.4)),
    5: (red_ring, text("80", 1.8, 1.4)),
    6: (white_disc, sketch(in_grey(text("80", 1.8, 1.4)), stripes)),
    7: (red_ring, text("100", 2.1, 1.25)),
    8: (red_ring, text("120", 2.1, 1.25)),
    9: (red_ring, beside_car(car, RED)),
    10: (red_ring, beside_car(truck, RED)),
    11: (triangle, crossing),
    12: (diamond, nothing),
    13: (inverted_triangle, nothing),
    14: (octagon, text("STOP", 1.6, 0.66)),
    15: (red_ring, nothing),
    16: (red_ring, truck_from_side),
    17: (red_disc, bar),
    18: (triangle, exclamation),
    19: (triangle, mirrored(curve)),
    20: (triangle, curve),
    21: (triangle, mirrored(double_curve)),
    22: (triangle, bumps),
    23: (triangle, skidding_car),
    24: (triangle, narrowing),
    25: (triangle, worker),
    26: (triangle, lights),
    27: (triangle, pedestrian),
    28: (triangle, placed(children, 0.05 + 0.12j, 0.9)),
    29: (triangle, bicycle),
    30: (triangle, snowflake),
    31: (triangle, placed(deer, 0.1 + 0.08j, 0.9)),
    32: (white_disc, stripes),
    33: (blue_disc, turn),
    34: (blue_disc, mirrored(turn)),
    35: (blue_disc, ahead),
    36: (blue_disc, ahead_or_right),
    37: (blue_disc, mirrored(ahead_or_right)),
    38: (blue_disc, keep_right),
    39: (blue_disc, mirrored(keep_right)),
    40: (blue_disc, roundabout),
    41: (white_disc, sketch(in_grey(beside_car(car, GREY)), stripes)),
    42: (white_disc, sketch(in_grey(beside_car(truck, GREY)), stripes)),
}


def draw_sign(class_id: int, size_px: int = 256) -> Image.Image:
    """Draws the clean frontal picture of a sign.

    Args:
        class_id: The GTSRB class, 0 to 42.
        size_px: Width and height of the picture, in pixels.

    Returns:
        An RGBA picture of size_px by size_px pixels, transparent outside the sign's outline.

    Raises:
        ValueError: The class is outside 0..42.
    """
    if class_id not in SIGNS:
        raise ValueError(f"GTSRB has classes 0 to {len(SIGNS) - 1}, not {class_id}")
    outline, pictogram = SIGNS[class_id]
    side = size_px * SUPERSAMPLING
    canvas = Image.new("RGBA", (side, side))
    pictogram(outline(Pen(ImageDraw.Draw(canvas), side / 2 * (1 + 1j), side / 2, side / 2 * 1j)))
    return canvas.reduce(SUPERSAMPLING)
