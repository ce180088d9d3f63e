"""The report: well-formed, self-contained, and showing the numbers it was given."""

import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.report import HeadResult, Provenance, render
from pipeline.scores import Score, score

DASH = "\u2013"
VOID = {"meta", "input", "br", "img", "hr", "link"}
NAMES = ["Stop", "Yield", "No entry", "Keep right"]
FAMILIES = {"Unique": [2, 0, 1], "Mandatory": [3]}
PROVENANCE = Provenance(facts=[("Device", "abacus <1>")], notice="")
HISTORY = [
    {"epoch": e, "loss": 1 / e, "val_loss": 1 / e, "accuracy": 1 - 0.5 / e, "val_accuracy": 0.9}
    for e in (1, 2, 3)
]


def from_confusion(confusion: list[list[int]]) -> Score:
    counts = np.array(confusion)
    true, predicted = np.nonzero(counts)
    times = counts[true, predicted]
    return score(np.repeat(true, times), np.repeat(predicted, times), len(counts))


# Yield -> No entry has the most images; No entry -> Stop the largest share.
KNOWN = from_confusion([[95, 3, 0, 2], [0, 188, 12, 0], [9, 0, 11, 0], [4, 0, 0, 46]])


def head(name: str = "softmax", test: Score = KNOWN, **changes: object) -> HeadResult:
    result = HeadResult(
        name=name,
        kind="softmax",
        features="fc7",
        scaling="standardised",
        settings={"learning_rate": 0.0005, "hidden": None},
        chosen="epoch 2",
        seconds=75.2,
        validation=test,
        test=test,
        history=HISTORY,
    )
    return replace(result, **changes)  # type: ignore[arg-type]


class Page(HTMLParser):
    """Checks the nesting while reading; keeps attributes and the text of each element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data.replace("\u202f", " ")))

    def values(self, key: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == key]

    @property
    def text(self) -> str:
        return " ".join(data for tag, data in self.texts if tag != "style")


def random_heads(n_heads: int, n_classes: int, rows: int) -> list[HeadResult]:
    """Heads at chance level, whose confusion matrices are as full as they get."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, rows)
    return [
        head(f"head {k}", score(labels, rng.integers(0, n_classes, rows), n_classes))
        for k in range(n_heads)
    ]


@pytest.mark.parametrize(("n_heads", "n_classes"), [(1, 2), (3, 4), (12, 10), (2, 100)])
def test_page_is_well_formed(n_heads: int, n_classes: int) -> None:
    names = [f"class {c}" for c in range(n_classes)]
    page = Page(render(random_heads(n_heads, n_classes, 300), names, {"f": [1]}, PROVENANCE))
    assert page.tags.count("h1") == 1
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {value for key in ("for", "aria-labelledby") for value in page.values(key)} <= set(ids)
    assert {value.removeprefix("#") for value in page.values("href")} <= set(ids)
    assert page.tags.count("fieldset") == 1
    assert page.values("type") == ["radio"] * n_heads
    assert all(value in ("row", "col") for value in page.values("scope"))
    assert page.tags.count("th") == len(page.values("scope"))
    assert not re.search(r"\bnan\b|\binf\b", page.text)


def test_nothing_is_fetched() -> None:
    html = render([head()], NAMES, FAMILIES, PROVENANCE)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.values("src") == []
    assert all(value.startswith("#") for value in page.values("href"))
    assert "url(" not in html
    assert "@import" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert any("default-src 'none'" in value for value in page.values("content"))


def test_text_from_outside_stays_text() -> None:
    attack = "<script>alert(1)</script>"
    quote = '"><img src=x onerror=alert(1)>'
    html = render(
        [
            head(
                attack,
                chosen=quote,
                kind=quote,
                features=quote,
                scaling=quote,
                settings={attack: quote},
            ),
            head(quote),
        ],
        [attack, quote, *NAMES[2:]],
        {attack: [0], quote: [1]},
        Provenance([(attack, quote)], attack),
    )
    page = Page(html)
    assert "<script" not in html
    assert "<img" not in html
    assert escape(attack) in html
    assert not any(key.startswith("on") for _, key, _ in page.attributes)
    assert attack in page.text
    assert quote in page.text


def test_numbers_of_every_head_are_shown() -> None:
    better = from_confusion([[99, 1, 0, 0], [0, 199, 1, 0], [0, 0, 20, 0], [0, 0, 0, 50]])
    heads = [head("softmax"), head("mlp", better, seconds=7384.0, chosen="C = 10", history=[])]
    page = Page(render(heads, NAMES, FAMILIES, PROVENANCE))
    for result in heads:
        for share in (result.test.accuracy, result.test.macro_recall, result.test.accuracy_high):
            assert f"{100 * share:.2f} %" in page.text
        assert f"{100 * result.test.accuracy_low:.2f}{DASH}" in page.text
        for recall in result.test.recall:
            assert recall is not None
            assert ("td", f"{100 * recall:.1f} %") in page.texts
    for text in ("340 of 370", "368 of 370", "1 min 15 s", "2 h 03 min", "C = 10", "epoch 2"):
        assert text in page.text
    for text in ("learning_rate", "0.0005", "abacus <1>", f"pp. 1453{DASH}1460"):
        assert text in page.text


def test_validation_and_test_are_not_mixed_up() -> None:
    validation = from_confusion([[10, 0, 0, 0], [0, 9, 1, 0], [0, 0, 10, 0], [0, 0, 0, 10]])
    table = render([head(validation=validation)], NAMES, FAMILIES, PROVENANCE).partition("<tbody>")
    row = table[2].partition("</tbody>")[0]
    assert row.index("340 of 370") < row.index("39 of 40")
    assert "Test accuracy</th>" in table[0]
    assert table[0].index("Test accuracy</th>") < table[0].index("Validation accuracy</th>")


def test_leaderboard_is_sorted_and_colours_stay() -> None:
    better = from_confusion([[100, 0, 0, 0], [0, 200, 0, 0], [0, 0, 20, 0], [0, 0, 0, 50]])
    html = render([head("second"), head("first", better)], NAMES, FAMILIES, PROVENANCE)
    rows = re.findall(r'<th scope="row"><i class="swatch (\w+)"[^>]*></i>(\w+)', html)
    assert rows == [("h1", "first"), ("h0", "second")]
    assert "Not one test image confused." in html


def test_worst_confusion_comes_first() -> None:
    html = render([head()], NAMES, FAMILIES, PROVENANCE)
    listed = re.findall(r"<li><b>(\d+)</b><span>(.*?)</span><small>(.*?)</small>", html)
    assert listed == [
        ("12", "Yield → No entry", "6.0\u202f%"),
        ("9", "No entry → Stop", "45.0\u202f%"),
        ("4", "Keep right → Stop", "8.0\u202f%"),
        ("3", "Stop → Yield", "3.0\u202f%"),
        ("2", "Stop → Keep right", "2.0\u202f%"),
    ]


def test_at_most_ten_confusions_per_head() -> None:
    html = render(random_heads(2, 10, 500), [f"class {c}" for c in range(10)], {}, PROVENANCE)
    assert html.count("<li><b>") == 20


def test_matrix_follows_the_families() -> None:
    html = render([head()], NAMES, FAMILIES, PROVENANCE)
    rows = re.findall(r'<g transform="translate\(0 (\d)\)">(.*?)</g>', html)
    cells = {
        (int(y), int(x)): title.replace("\u202f", " ")
        for y, row in rows
        for x, title in re.findall(r'<rect x="(\d)".*?<title>(.*?)</title>', row)
    }
    # Drawn in the order No entry, Stop, Yield, Keep right.
    assert cells[0, 0] == "No entry → No entry: 11 of 20 (55.0 %)"
    assert cells[2, 0] == "Yield → No entry: 12 of 200 (6.0 %)"
    assert cells[3, 1] == "Keep right → Stop: 4 of 50 (8.0 %)"
    assert len(cells) == np.count_nonzero(KNOWN.confusion)
    assert html.count('class="hit"><title>') == 4


def test_recall_starts_with_the_worst_class() -> None:
    html = render([head()], NAMES, FAMILIES, PROVENANCE)
    rows = re.findall(r'<span class="id">\d</span>(.*?)</th><td class="n">(\d+)</td>', html)
    assert rows == [("No entry", "20"), ("Keep right", "50"), ("Yield", "200"), ("Stop", "100")]
    assert re.findall(r'style="width:([\d.]+)%"', html) == ["55", "92", "94", "95"]


def test_class_without_images() -> None:
    test = from_confusion([[5, 1, 0, 0], [0, 6, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
    assert test.recall[2] is None
    page = Page(render([head(test=test)], NAMES, FAMILIES, PROVENANCE))
    assert ("td", DASH) in page.texts
    names = [text for tag, text in page.texts if tag == "th" and text in NAMES]
    assert names[-1] == "No entry"
    assert not re.search(r"\bnan\b", page.text)


def test_all_right_and_all_wrong() -> None:
    right = from_confusion([[5, 0], [0, 5]])
    wrong = from_confusion([[0, 5], [5, 0]])
    for result in (right, wrong):
        page = Page(render([head(test=result)], NAMES[:2], {}, PROVENANCE))
        assert f"{100 * result.accuracy:.2f} %" in page.text


def test_banner_only_with_a_notice() -> None:
    assert 'class="banner"' not in render([head()], NAMES, FAMILIES, PROVENANCE)
    page = Page(render([head()], NAMES, FAMILIES, Provenance([], "Random & seeded weights.")))
    assert ("p", "Random & seeded weights.") in page.texts


def points(html: str, line: str) -> list[tuple[float, float]]:
    found = re.search(rf'<polyline class="{line}" points="(.*?)"', html)
    assert found
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found[1].split())]


def test_curve_over_c_is_logarithmic() -> None:
    history = [
        {"C": 10.0, "accuracy": 1.0, "val_accuracy": 0.7},
        {"C": 0.1, "accuracy": 0.8, "val_accuracy": 0.6},
        {"C": 1.0, "accuracy": 0.9, "val_accuracy": 0.8},
    ]
    html = render([head(history=history, chosen="C = 1")], NAMES, FAMILIES, PROVENANCE)
    (x0, y0), (x1, y1), (x2, y2) = points(html, "validation")
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y1 < y2 < y0  # up is smaller in SVG
    assert points(html, "training")[0] == (x0, y1)
    assert f'<circle class="chosen" cx="{x1:g}" cy="{y1:g}"' in html


@pytest.mark.parametrize(
    "history",
    [
        [{"epoch": 1.0, "accuracy": 1.0, "val_accuracy": 1.0}],
        [{"C": 1.0, "accuracy": 0.5, "val_accuracy": 0.5}],
    ],
)
def test_curve_of_a_single_point(history: list[dict[str, float]]) -> None:
    html = render([head(history=history)], NAMES, FAMILIES, PROVENANCE)
    ((x, y),) = points(html, "validation")
    assert 50 <= x <= 372
    assert 14 <= y <= 196


@pytest.mark.parametrize(("rows", "named"), [(1400, True), (12_630, False)])
def test_three_heads_at_chance_level_stay_below_600_kb(rows: int, named: bool) -> None:
    names = [f"A traffic sign of class {c:02d}, by name" for c in range(43)]
    html = render(random_heads(3, 43, rows), names, {}, PROVENANCE)
    assert len(html.encode()) < 600_000
    assert (f"<title>{names[0]} → " in html) == named
    assert ("<title>0 → " in html) != named


def test_scores_that_do_not_fit_are_refused() -> None:
    other = from_confusion([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(ValueError, match="no heads"):
        render([], NAMES, FAMILIES, PROVENANCE)
    with pytest.raises(ValueError, match="expected 3 classes"):
        render([head()], NAMES[:3], FAMILIES, PROVENANCE)
    with pytest.raises(ValueError, match="different test images"):
        render([head(), head("mlp", other)], NAMES, FAMILIES, PROVENANCE)
