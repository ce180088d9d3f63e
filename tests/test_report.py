"""The report: well-formed, self-contained, and showing the numbers it was given."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from comparisons import (
    PROVENANCE,
    comparison,
    from_confusion,
    head_result,
    jpeg,
    one_hot,
    random_comparison,
)

from pipeline.charts import categories, compared, fitting, linear, sweep_charts
from pipeline.comparison import Pair
from pipeline.formats import duration, number, p_value, plain, points, throughput, time_spent
from pipeline.report import PICTURES_A_PAGE, WORST_LISTED, WORST_OF_EACH, render
from pipeline.results import HeadResult, Leak, Mistake, Provenance, Trial, by_layers
from pipeline.scores import Score, Share, score
from pipeline.table import comparison_text
from pipeline.words import OWN, SIGNS, Words

DASH = "\u2013"
NBSP = "\u00a0"
VOID = {"meta", "input", "br", "img", "hr", "link"}
NAMES = ["Stop", "Yield", "No entry", "Keep right"]
FAMILIES = {"Unique": [2, 0, 1], "Mandatory": [3]}
# Yield -> No entry has the most images; No entry -> Stop the largest share.
KNOWN = from_confusion([[95, 3, 0, 2], [0, 188, 12, 0], [9, 0, 11, 0], [4, 0, 0, 46]])
BETTER = from_confusion([[99, 1, 0, 0], [0, 199, 1, 0], [0, 0, 20, 0], [0, 0, 0, 50]])
PERFECT = from_confusion([[100, 0, 0, 0], [0, 200, 0, 0], [0, 0, 20, 0], [0, 0, 0, 50]])
ATTACK = "</script><script>alert(1)</script>"
QUOTE = "\"'><img src=x onerror=alert(1)>\u2028"


def head(name: str = "softmax", test: Score = KNOWN, **changes: Any) -> HeadResult:
    return replace(head_result(name, test, test), **changes)


def report(*heads: HeadResult, **changes: Any) -> str:
    return render(comparison(list(heads), NAMES, **{"families": FAMILIES} | changes))


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
            self.texts.append((self.open[-1], data.replace("\u202f", " ").replace(NBSP, " ")))

    def values(self, key: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == key]

    @property
    def text(self) -> str:
        shown = (data for tag, data in self.texts if tag not in ("style", "script"))
        return " ".join(" ".join(shown).split())

    @property
    def scripts(self) -> list[str]:
        return [data for tag, data in self.texts if tag == "script"]


def data_of(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def section(html: str, name: str) -> str:
    return html.split(f'<section id="{name}"')[1].split("</section>")[0]


def random_heads(n_heads: int, n_classes: int, rows: int) -> list[HeadResult]:
    """Heads at chance level, whose confusion matrices are as full as they get."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, rows)
    guesses = [rng.integers(0, n_classes, rows) for _ in range(n_heads)]
    return [
        head(f"head {k}", score(labels, one_hot(labels, guess, n_classes)))
        for k, guess in enumerate(guesses)
    ]


def check_page(page: Page, n_heads: int) -> None:
    assert page.tags.count("h1") == 1
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    named = {value for key in ("for", "aria-labelledby") for value in page.values(key)}
    assert named <= set(ids)
    anchors = {value for value in page.values("href") if value != "data:,"}
    assert {value.removeprefix("#") for value in anchors} <= set(ids)
    assert page.values("type").count("radio") == n_heads
    assert all(value in ("row", "col") for value in page.values("scope"))
    assert page.tags.count("th") == len(page.values("scope"))
    labelled = sum(tag == "svg" and key == "aria-label" for tag, key, _ in page.attributes)
    assert labelled == page.tags.count("svg")
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", page.text)


@pytest.mark.parametrize(("n_heads", "n_classes"), [(1, 2), (3, 4), (12, 10), (2, 100)])
def test_page_is_well_formed(n_heads: int, n_classes: int) -> None:
    names = [f"class {c}" for c in range(n_classes)]
    heads = random_heads(n_heads, n_classes, 300)
    page = Page(render(comparison(heads, names, families={"f": [1]})))
    check_page(page, n_heads)


@pytest.mark.parametrize("n_heads", [1, 2, 3, 9])
def test_page_with_everything_is_well_formed(n_heads: int) -> None:
    page = Page(render(random_comparison(n_heads, 400)))
    check_page(page, n_heads)
    for name in ("leak", "growth", "groups", "sweeps", "curves", "mistakes"):
        assert name in page.values("id")
    assert ("layers" in page.values("id")) == (n_heads > 1)


def test_page_with_nothing_but_scores_is_well_formed() -> None:
    bare = head(history=[], sweep=[], families={}, sizes={}, settings={})
    page = Page(report(bare, provenance=Provenance([], "", 0.95, {})))
    check_page(page, 1)
    assert not {"leak", "growth", "groups", "differences"} & set(page.values("id"))
    for text in ("No mistake to show.", "Nothing was searched.", "No curve was recorded"):
        assert text in page.text


def test_nothing_is_fetched() -> None:
    html = render(random_comparison(2, 300))
    page = Page(html)
    assert not {"iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert all(value.startswith("data:image/jpeg;base64,") for value in page.values("src"))
    assert all(value.startswith(("#", "data:,")) for value in page.values("href"))
    for call in ("url(", "@import", "http://", "https://", "fetch(", "import(", "innerHTML"):
        assert call not in html


def test_policy_admits_the_one_script_and_no_request() -> None:
    html = render(random_comparison(2, 300))
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policy = next(value for value in Page(html).values("content") if "default-src" in value)
    assert policy.split("; ")[:4] == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        f"script-src 'sha256-{digest}'",
    ]
    assert Page(html).tags.count("script") == 2


def test_text_from_outside_stays_text() -> None:
    leak = Leak(*[Share(9, 10, 0.9, 0.8, 0.95)] * 3)
    hostile: dict[str, Any] = {
        "kind": QUOTE,
        "features": [QUOTE, ATTACK],
        "settings": {ATTACK: QUOTE},
        "sweep": [
            Trial({ATTACK: QUOTE}, 0.5, math.inf, chosen=False),
            Trial({ATTACK: 1}, 0.6, 1.0, chosen=True),
        ],
        "families": {ATTACK: leak.test},
        "sizes": {QUOTE: leak.test},
        "leak": leak,
        "curve": {100: leak.test},
    }
    html = report(
        head(ATTACK, **hostile),
        head(QUOTE),
        class_names=[ATTACK, QUOTE, *NAMES[2:]],
        families={ATTACK: [0], QUOTE: [1]},
        pairs=[Pair(ATTACK, QUOTE, 3, 2, 0.5, 0.5, False, 0.01, -0.02, 0.03)],
        mistakes=[Mistake(ATTACK, QUOTE, 0, 1, 0.9), Mistake(QUOTE, ATTACK, 1, 0, 0.8)],
        pictures={QUOTE: jpeg((1, 2, 3)), ATTACK: jpeg((3, 2, 1))},
        omitted={ATTACK: 3},
        provenance=Provenance([(ATTACK, QUOTE)], ATTACK, 0.95, {"device": ATTACK}),
    )
    page = Page(html)
    assert page.tags.count("script") == 2
    assert "<img src=x" not in html
    assert escape(ATTACK) in html
    assert not any(key.startswith("on") for _, key, _ in page.attributes)
    assert ATTACK in page.text
    assert QUOTE.strip() in page.text
    assert "\u2028" not in page.scripts[0]
    assert not set("<>&") & set(page.scripts[0])
    data = data_of(html)
    assert data["heads"] == [ATTACK, QUOTE]
    assert data["names"][:2] == [ATTACK, QUOTE]
    assert {image for image, _ in data["images"]} == {ATTACK, QUOTE}


def test_numbers_of_every_head_are_shown() -> None:
    heads = [head("softmax"), head("mlp", BETTER, seconds=7384.0, temperature=0.77)]
    page = Page(report(*heads))
    for result in heads:
        test = result.test
        for part in (test.accuracy, test.macro_recall, test.accuracy_high, test.top5, test.ece):
            assert f"{100 * part:.2f} %" in page.text
        assert f"{100 * test.accuracy_low:.2f}{DASH}" in page.text
        assert ("td", f"{test.nll:.3f}") in page.texts
        for recall in test.recall:
            assert recall is not None
            assert ("td", f"{100 * recall:.1f} %") in page.texts
    for text in ("340 of 370", "368 of 370", "1 min 15 s", "2 h 03 min", "fc6 + fc7"):
        assert text in page.text
    for text in ("learning_rate", "0.0005", "abacus <1>", f"pp. 1453{DASH}1460", "1.31", "0.77"):
        assert text in page.text
    assert "Test images are not independent; which show the same sign is not published" in page.text


def test_own_data_are_not_called_signs() -> None:
    heads = random_comparison(4, 300)
    provenance = replace(heads.provenance, words=OWN)
    names = [f"kind {c}" for c in range(len(heads.class_names))]
    bare = [replace(head, families={}) for head in heads.heads]
    own = replace(heads, heads=bare, provenance=provenance, class_names=names, families={})
    html = render(own)
    text = Page(html).text + comparison_text(own.heads, own.pairs, provenance)
    assert not re.findall(r"(?i)\bsigns?\b|tracks?\b|frames?\b|\bofficial\b|famil|stallkamp", text)
    assert "One row per true class, one column per predicted class. Shades" in text
    assert "held-out images would have promised" in text
    assert '"one":"class"' in html


def test_validation_and_test_are_not_mixed_up() -> None:
    validation = from_confusion([[10, 0, 0, 0], [0, 9, 1, 0], [0, 0, 10, 0], [0, 0, 0, 10]])
    board = section(report(head(validation=validation)), "leaderboard")
    titles, _, rows = board.partition("<tbody>")
    assert rows.index("340 of 370") < rows.index("39 of 40")
    assert titles.index("Test accuracy</th>") < titles.index("Validation accuracy</th>")


def test_leaderboard_is_sorted_and_colours_stay() -> None:
    html = report(head("second"), head("first", PERFECT))
    board = section(html, "leaderboard")
    rows = re.findall(
        r'<span class="rank">(\d)</span><i class="swatch (\w+)"[^>]*></i>(\w+)', board
    )
    assert rows == [("1", "h1", "first"), ("2", "h0", "second")]
    assert "It confuses not one test image." in html


def test_heads_that_are_equally_good_share_a_rank() -> None:
    html = report(head("a", KNOWN), head("b", KNOWN), head("c", PERFECT))
    assert re.findall(r'<span class="rank">(\d)', html) == ["1", "2", "2"]
    assert "the most of" not in section(report(head("a"), head("b")), "short")


def test_the_head_best_on_validation_is_marked() -> None:
    html = report(head("test", PERFECT, validation=KNOWN), head("val", KNOWN, validation=PERFECT))
    board = section(html, "leaderboard")
    assert re.findall(r'</i>(\w+) <span class="badge">', board) == ["val"]
    assert "On validation <b>val</b> is best" in section(html, "short")
    # Of two as good as each other, predict takes the first in params.yaml.
    html = report(head("first", KNOWN, validation=KNOWN), head("second", PERFECT, validation=KNOWN))
    assert re.findall(r'</i>(\w+) <span class="badge">', html) == ["first"]


def test_seeds_are_summed_up_only_where_there_are_several() -> None:
    one = Page(report(head()))
    assert (
        "±" not in section(report(head()), "leaderboard").split("<tbody>")[1].split("</table>")[0]
    )
    assert "seeds:" not in one.text
    three = Page(report(head(seeds=[0.90, 0.92, 0.94])))
    assert "3 seeds: 92.00 ± 2.00 %" in three.text


def test_differences_in_plain_words() -> None:
    pairs = [
        Pair("ridge", "softmax", 131, 60, 3.2e-7, 9.6e-7, True, 0.012, 0.003, 0.021),
        Pair("ridge", "mlp", 50, 48, 0.92, 0.92, False, 0.001, -0.01, 0.012),
        Pair("mlp", "softmax", 7, 7, 1.0, 1.0, False, 0.0, -0.01, 0.01),
    ]
    html = report(head("softmax"), head("ridge", PERFECT), head("mlp", BETTER), pairs=pairs)
    text = Page(html).text
    assert (
        "ridge beats softmax on 131 images, loses on 60; p = 3.2 × 10⁻⁷, after Holm "
        "p = 9.6 × 10⁻⁷. significant On validation +1.20 percentage points, interval +0.30 to "
        "+2.10." in text
    )
    assert "p = 0.920. could be chance On validation +0.10" in text
    assert "mlp and softmax are each right alone on 7 images" in text
    assert "interval −1.00 to +1.20: over signs, the order is not settled." in text
    assert (
        "Its lead over 1 of the other 2 heads is significant; over mlp it could be chance" in text
    )
    cells = re.findall(r'<td class="(significant|chance) [^>]*>([^<]*)</td>', html)
    assert cells == [("chance", "+2 ?"), ("significant", "+71"), ("chance", "+0 ?")]


def test_worst_confusion_comes_first() -> None:
    html = report(head())
    rows = re.findall(
        r'<span class="sign">(.*?)</span> → <span class="sign">(.*?)</span></th>.*?'
        r'title="softmax: (\d+) of (\d+) \((.*?)\)"', section(html, "worst"), re.DOTALL,
    )  # fmt: skip
    assert rows == [
        ("Yield", "No entry", "12", "200", "6.0\u202f%"),
        ("No entry", "Stop", "9", "20", "45.0\u202f%"),
        ("Keep right", "Stop", "4", "50", "8.0\u202f%"),
        ("Stop", "Yield", "3", "100", "3.0\u202f%"),
        ("Stop", "Keep right", "2", "100", "2.0\u202f%"),
    ]
    assert "Its worst confusion: Yield taken for No entry , 12 of 200 images" in Page(html).text
    assert len(re.findall(r'class="count \w+ own"', html)) == 1


def test_confusions_listed_are_few_and_none_of_a_head_s_worst_is_missing() -> None:
    heads = random_heads(3, 10, 500)
    html = render(comparison(heads, [f"class {c}" for c in range(10)]))
    listed = section(html, "worst").count("<tr><th")
    assert WORST_LISTED <= listed - 1 <= WORST_LISTED + 3 * WORST_OF_EACH
    assert len(re.findall(r'class="count \w+ own"', section(html, "worst"))) == 3


def test_matrix_follows_the_families() -> None:
    html = report(head())
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
    assert data_of(html)["order"] == [2, 0, 1, 3]


def test_recall_starts_with_the_worst_class() -> None:
    table = section(report(head()), "recall")
    rows = re.findall(r'<span class="id">\d</span>(.*?)</th><td class="n">(\d+)</td>', table)
    assert rows == [("No entry", "20"), ("Keep right", "50"), ("Yield", "200"), ("Stop", "100")]
    assert re.findall(r'style="width:([\d.]+)%"', table) == ["55", "92", "94", "95"]


def test_class_without_images() -> None:
    test = from_confusion([[5, 1, 0, 0], [0, 6, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
    assert test.recall[2] is None
    html = report(head(test=test))
    assert ("td", DASH) in Page(html).texts
    rows = re.findall(r'<span class="id">\d</span>(.*?)</th>', section(html, "recall"))
    assert rows[-1] == "No entry"


def test_all_right_and_all_wrong() -> None:
    for result in (from_confusion([[5, 0], [0, 5]]), from_confusion([[0, 5], [5, 0]])):
        page = Page(render(comparison([head(test=result)], NAMES[:2], families={})))
        assert f"{100 * result.accuracy:.2f} %" in page.text


def test_groups_that_only_some_heads_have() -> None:
    share = Share(9, 10, 0.9, 0.8, 0.95)
    html = report(head("a", families={"x": share}), head("b", families={"y": share}, sizes={}))
    rows = re.findall(r"<tr><th scope=\"row\">(\w)</th>.*?</tr>", section(html, "groups"))
    assert rows == ["x", "y"]
    assert section(html, "groups").count(f'<td class="n">{DASH}</td>') == 3


def test_banner_only_with_a_notice_and_above_all_numbers() -> None:
    assert 'class="banner"' not in report(head())
    html = report(head(), provenance=replace(PROVENANCE, notice="Random & seeded weights."))
    assert ("p", "Random & seeded weights.") in Page(html).texts
    assert html.index('class="banner"') < html.index(f"{100 * KNOWN.accuracy:.2f}")


def test_gallery_starts_with_the_head_in_use_and_carries_each_picture_once() -> None:
    compared = random_comparison(4, 1200, listed=60)
    html = render(compared)
    used = max(compared.heads, key=lambda head: head.validation.accuracy)
    mine = sorted(
        (m for m in compared.mistakes if m.head == used.name), key=lambda m: -m.probability
    )
    first = re.findall(r'<img alt="([^"]+)"', section(html, "mistakes"))
    assert first == [mistake.image_id for mistake in mine[:PICTURES_A_PAGE]]
    page = Page(html)
    assert f"{len(first)} of {len(mine)} shown, those of {used.name}" in page.text
    assert f"{compared.omitted[used.name]:,} of {used.name}" in page.text
    data = data_of(html)
    assert len(data["mistakes"]) == len(compared.mistakes)
    carried = [picture for _, picture in data["images"] if picture]
    static = [value.partition(",")[2] for value in page.values("src")]
    assert len(carried) + len(static) == len(compared.pictures)
    wanted = sorted(base64.b64encode(picture).decode() for picture in compared.pictures.values())
    assert sorted(carried + static) == wanted
    h, image, label, predicted, probability = data["mistakes"][0]
    top = max(compared.mistakes, key=lambda m: m.probability)
    assert (data["heads"][h], data["images"][image][0], label, predicted) == (
        top.head,
        top.image_id,
        top.label,
        top.predicted,
    )
    assert probability == pytest.approx(top.probability, abs=1e-4)


def test_gallery_of_all_heads_where_the_one_in_use_makes_no_mistake() -> None:
    html = report(
        head("perfect", PERFECT),
        head("softmax"),
        mistakes=[Mistake("softmax", "a", 1, 2, 0.9)],
        pictures={"a": jpeg((1, 2, 3))},
    )
    assert "1 of 1 shown." in Page(html).text
    assert "by softmax" in section(html, "mistakes")


def lines(html: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.split())]
        for found in re.findall(r'<polyline points="(.*?)"', html)
    ]


def test_sweep_over_decades_is_logarithmic_and_rings_the_chosen() -> None:
    trials = [
        Trial({"C": c, "tol": 0.1}, accuracy, 1.0, chosen=c == 1.0)
        for c, accuracy in ((10.0, 0.7), (0.1, 0.6), (1.0, 0.8))
    ]
    sweeps = section(report(head(sweep=trials)), "sweeps")
    assert sweeps.count("<svg") == 1  # tol has one value only
    assert "C, logarithmic" in sweeps
    ((x0, y0), (x1, y1), (x2, y2)) = lines(sweeps)[0]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 < y2 < y0  # up is smaller in SVG
    assert f'<circle class="chosen" cx="{x1:g}" cy="{y1:g}"' in sweeps
    assert "All 3 trials" in sweeps


@pytest.mark.parametrize("seed", range(8))
def test_sweeps_of_any_size_stay_inside_their_axes(seed: int) -> None:
    for result in random_comparison(8, 200, seed=seed).heads:
        for chart in sweep_charts(result):
            left, right, top, bottom = chart.inner
            for point in chart.series[-1].points:
                assert left <= chart.px(chart.x.place(point.x)) <= right
                assert top <= chart.py(chart.y.place(point.y)) <= bottom
            places = [chart.px(place) for place, _ in chart.x.ticks]
            assert places == sorted(places)
            assert len(places) <= 12
            assert sum(point.chosen for point in chart.series[-1].points) == 1


def test_sweep_of_settings_that_not_all_trials_have() -> None:
    trials = [
        Trial({"layers": ["fc6", "fc7"], "drop": None}, 0.5, 1.0, chosen=True),
        Trial({"layers": ["fc7"]}, 0.4, 1.0, chosen=False),
        Trial({"layers": "fc7", "drop": 0.5}, 0.3, 1.0, chosen=False),
        Trial({"layers": "fc7", "drop": math.nan}, 0.2, 1.0, chosen=False),  # a table's gap
    ]
    charts = sweep_charts(head(sweep=trials))
    assert [[label for _, label in chart.x.ticks] for chart in charts] == [
        ["fc6, fc7", "fc7"],
        ["–", "0.5"],
    ]


@pytest.mark.parametrize("epochs", [1, 3, 200])
def test_learning_curves(epochs: int) -> None:
    history = [
        {"epoch": e, "loss": 1 / e, "accuracy": 0.99, "val_accuracy": 0.9 - 0.5 / e}
        for e in range(1, epochs + 1)
    ]
    curves = section(report(head(history=history)), "curves")
    assert curves.count("<svg") == 2
    assert [len(line) for line in lines(curves)] == ([] if epochs == 1 else [epochs] * 3)
    assert ("<circle" in curves) == (epochs < 200)


def test_learning_curve_without_some_values() -> None:
    history = [{"epoch": 1, "val_accuracy": 0.5, "loss": math.nan}, {"epoch": 2, "accuracy": 0.4}]
    curves = section(report(head(history=history), head("lda", history=[])), "curves")
    assert curves.count("<svg") == 1
    assert curves.count("<circle") == 2
    assert "Without epochs: lda." in curves


def test_leak_growth_and_intervals() -> None:
    frames, tracks, test = (Share(0, 100, v, v - 0.02, v + 0.01) for v in (0.97, 0.8, 0.81))
    leaky = head("a", leak=Leak(frames, tracks, test), curve={50: tracks, 1000: test})
    html = report(leaky, head("b"))
    assert "+16.00 points" in section(html, "leak")
    text = Page(html).text
    assert (
        "For a, held-out frames would have promised 97.00 %; held-out signs promise 80.00 %" in text
    )
    assert section(html, "leak").count('class="range"') == 3
    assert section(html, "growth").count('class="range"') == 2
    assert "training tracks, logarithmic" in html
    assert "</i>b</th>" not in section(html, "leak")


@pytest.mark.parametrize("words", [SIGNS, OWN])
def test_bars_are_called_what_they_are(words: Words) -> None:
    curve = {50: Share(9, 10, 0.9, 0.8, 0.95), 90: Share(9, 10, 0.9, 0.8, 0.95)}
    heads = [head("a", curve=curve), head("b", features=["conv5"])]
    html = report(*heads, provenance=replace(PROVENANCE, words=words))
    own = "by the bootstrap over groups; where every image is a group of its own, Wilson’s."
    layers, growth = Page(section(html, "layers")).text, Page(section(html, "growth")).text
    assert (own in layers) == (own in growth) == (words is OWN)
    assert ("Wilson’s, which takes images for independent and is too short." in layers) == (
        words is SIGNS
    )
    assert ("by the bootstrap over tracks." in growth) == (words is SIGNS)


def test_too_few_groups_for_an_interval_are_told_on_the_page_and_in_the_text() -> None:
    caution = "The test interval is over 2 groups: too few, it is too short to be believed."
    for said in (caution, ""):
        provenance = replace(PROVENANCE, words=OWN, caution=said)
        page = Page(section(report(head(), provenance=provenance), "leaderboard"))
        text = comparison_text([head()], [], provenance)
        assert ("believed" in page.text) == ("believed" in text) == bool(said)
        if said:
            assert caution in page.text
            assert text.splitlines()[2] == caution


def test_layers_are_compared_kind_by_kind_by_the_head_best_on_validation() -> None:
    def reads(name: str, kind: str, right: int, *layers: str) -> HeadResult:
        result = from_confusion([[right, 100 - right, 0, 0], [0, 100, 0, 0], [0] * 4, [0] * 4])
        return replace(head(name, result), kind=kind, features=list(layers))

    heads = [
        reads("a", "ridge", 90, "conv3"),
        reads("b", "ridge", 80, "conv2", "conv3"),
        reads("c", "ridge", 96, "conv3", "conv2"),
        reads("d", "mlp", 70, "conv3"),
    ]
    assert by_layers(heads) == {
        "ridge": {"conv3": heads[0], "conv2+conv3": heads[2]},
        "mlp": {"conv3": heads[3]},
    }
    assert by_layers([heads[0], heads[3]]) == {}
    shown = section(report(*heads), "layers")
    assert shown.count('class="range"') == 3
    assert [share in shown for share in ("95.00", "98.00", "85.00")] == [True] * 3
    assert "90.00" not in shown
    assert shown.index("conv3</th>") < shown.index("conv2+conv3</th>")
    assert 'id="layers"' not in report(heads[0], heads[3])


def test_axes() -> None:
    assert [label for _, label in linear("", [0.0, 10.0], 1).ticks] == ["0", "5", "10"]
    assert 0 <= linear("", [3.0, 3.0], 1).place(3.0) <= 1
    alone = fitting("C", [2.0])
    assert 0 < alone.place(2.0) < 1
    assert alone.title == "C"
    many = categories("", [f"name of a kind {k}" for k in range(40)])
    assert 1 <= len(many.ticks) < 40
    crowd = [
        (f"head {k}", "h0", {f"size {i}": Share(1, 2, 0.5, 0.1, 0.9) for i in range(4)})
        for k in range(12)
    ]
    chart = compared("", categories("", [f"size {i}" for i in range(4)]), "", crowd)
    at = [chart.px(chart.x.place(p.x)) + s.shift for s in chart.series for p in s.points]
    assert len(set(at)) == len(at)  # no interval hides another
    assert min(at) >= chart.inner[0]
    assert max(at) <= chart.inner[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0005, "0.0005"), (1e-5, "10⁻⁵"), (3e-05, "3 × 10⁻⁵"), (2e7, "2 × 10⁷"), (math.inf, "∞")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value).replace("\u202f", " ") == text


def test_other_formats() -> None:
    assert [p_value(p).replace(NBSP, " ") for p in (1.0, 0.0123, 0.0, math.nan)] == [
        "= 1.000",
        "= 0.012",
        "< 10⁻³⁰⁰",
        f"= {DASH}",
    ]
    assert [duration(s) for s in (0.123, 5, 59.99, 7384)] == [
        "0.12 s",
        "5.0 s",
        "1 min 00 s",
        "2 h 03 min",
    ]
    assert plain([512, None, 1e-5]) == f"512, {DASH}, 10⁻⁵"
    assert points(-0.0123) == "−1.23"
    assert throughput({"seconds": 61.0, "device": None, "other": 1}) == [("Time", "1 min 01 s")]


def test_where_time_went_is_shown_as_far_as_it_is_known() -> None:
    parts = {"network": 57.0, "rest": 3.0, "readers_reading": 3.0, "of the future": 1.0}
    assert time_spent({"seconds": 60.0, "time": parts}) == [
        ("Network", "95.0\u202f%"),
        ("Planning, checking, publishing", "5.0\u202f%"),
        ("Reading, beside it", "3.0 s"),
    ]
    assert time_spent({"seconds": 60.0}) == time_spent({"time": {"network": 0.0}}) == []
    html = render(random_comparison(1, 50))
    assert "Where its time went" in html
    assert html.index("The base’s pass") < html.index("Where its time went")


@pytest.mark.parametrize(("rows", "named"), [(1400, True), (12_630, False)])
def test_three_heads_at_chance_level_stay_below_700_kb(rows: int, named: bool) -> None:
    names = [f"A traffic sign of class {c:02d}, by name" for c in range(43)]
    html = render(comparison(random_heads(3, 43, rows), names, families={}))
    assert len(html.encode()) < 700_000
    assert (f"<title>{names[0]} → " in html) == named
    assert ("<title>0 → " in html) != named


def test_eight_heads_as_they_are_stay_below_a_megabyte() -> None:
    bare = replace(random_comparison(8, 12_630, listed=0), pictures={})
    assert len(render(bare).encode()) < 1_000_000


def test_results_that_do_not_fit_are_refused() -> None:
    other = from_confusion([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(ValueError, match="no heads"):
        report()
    with pytest.raises(ValueError, match="expected 3 classes"):
        report(head(), class_names=NAMES[:3])
    with pytest.raises(ValueError, match="different test images"):
        report(head(), head("mlp", other))
    with pytest.raises(ValueError, match="2 heads have 1 names"):
        report(head(), head())
    for mistake in (Mistake("mlp", "a", 0, 1, 0.9), Mistake("softmax", "a", 0, 4, 0.9)):
        with pytest.raises(ValueError, match="a head or a class that is not compared"):
            report(head(), mistakes=[mistake])
    with pytest.raises(ValueError, match="no picture of 'a'"):
        report(head(), mistakes=[Mistake("softmax", "a", 0, 1, 0.9)])
