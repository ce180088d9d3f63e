"""The report in a real browser: what a person does with it, on a desk and on a phone."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from comparisons import comparison, from_confusion, head_result, jpeg, random_comparison
from playwright.sync_api import Browser, Page, expect, sync_playwright

from pipeline.report import PICTURES_A_PAGE, render
from pipeline.results import Comparison, Mistake

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the PATH")
COMPARED = random_comparison(8, 1500, listed=120)
ATTACK = "</script><script>document.title = 'owned'</script><img src=x onerror=alert(1)>\"'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(COMPARED, tmp_path_factory.mktemp("report"))


def write(compared: Comparison, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(render(compared), encoding="utf-8")
    return path


class Watched:
    """Opens pages, and holds all they say or ask for against silence."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.said: list[str] = []
        self.pages: list[Page] = []

    def open(self, path: Path, width: int = 1280, scheme: str = "light", **options: bool) -> Page:
        page = self.browser.new_page(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
            java_script_enabled=options.get("scripts", True),
        )
        page.on("console", lambda message: self.said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.said.append(request.url))
        page.goto(path.as_uri())
        self.pages.append(page)
        return page

    def close(self) -> None:
        for page in self.pages:
            page.close()
        others = [said for said in self.said if not re.match("file://|data:", said)]
        assert others == []
        assert len([said for said in self.said if said.startswith("file:")]) == len(self.pages)


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    watched = Watched(browser)
    yield watched
    watched.close()


def shown(page: Page) -> list[tuple[str, str]]:
    """True and predicted sign of the first mistake on every card of the gallery."""
    return page.eval_on_selector_all(
        "#gallery > li",
        """cards => cards.map(card => [card.querySelector('b'), card.querySelector('ul span')]
             .map(element => element.textContent))""",
    )


def listed(head: str) -> list[Mistake]:
    return [mistake for mistake in COMPARED.mistakes if mistake.head == head]


def best() -> str:
    return max(COMPARED.heads, key=lambda head: head.validation.accuracy).name


def test_first_page_is_the_same_with_and_without_script(file: Path, watched: Watched) -> None:
    scripted, plain = watched.open(file), watched.open(file, scripts=False)
    first = shown(scripted)
    assert len(first) == PICTURES_A_PAGE
    assert [tuple(card) for card in first] == [tuple(card) for card in shown(plain)]
    sources = "images => images.map(image => [image.src, image.alt])"
    pictures = [page.eval_on_selector_all("#gallery img", sources) for page in (scripted, plain)]
    assert pictures[0] == pictures[1]
    expect(plain.locator("#by-head")).to_be_hidden()
    expect(plain.get_by_text("need JavaScript")).to_be_visible()
    expect(scripted.get_by_text("need JavaScript")).to_be_hidden()
    whole = "i => i.complete && i.naturalWidth > 0"
    assert scripted.eval_on_selector_all("#gallery img", f"images => images.every({whole})")
    count = f"{PICTURES_A_PAGE} of {len(listed(best()))} shown, those of {best()}"
    expect(scripted.locator("#count")).to_contain_text(count)
    expect(plain.locator("#count")).to_contain_text(count)


def test_filters_and_show_more(file: Path, watched: Watched) -> None:
    page = watched.open(file)
    mine = listed("mlp")
    page.get_by_label("Head", exact=True).select_option(label="mlp")
    expect(page.locator("#count")).to_contain_text(f"24 of {len(mine)} shown, those of mlp")
    page.get_by_role("button", name="Show more").click()
    assert len(shown(page)) == min(2 * PICTURES_A_PAGE, len(mine))
    label = mine[0].label
    page.get_by_label("True sign").select_option(str(label))
    of_sign = [mistake for mistake in mine if mistake.label == label]
    assert len(shown(page)) == len(of_sign)
    assert {sign for sign, _ in shown(page)} == {COMPARED.class_names[label]}
    predicted = of_sign[0].predicted
    page.get_by_label("Taken for").select_option(str(predicted))
    left = [mistake for mistake in of_sign if mistake.predicted == predicted]
    assert [tuple(card) for card in shown(page)] == [
        (COMPARED.class_names[label], COMPARED.class_names[predicted])
    ] * len(left)
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#count")).to_contain_text(f"of {len(COMPARED.mistakes):,} shown, on")
    expect(page.locator("#by-head")).to_be_focused()


def test_every_mistake_can_be_reached(file: Path, watched: Watched) -> None:
    page = watched.open(file)
    page.get_by_role("button", name="Show all").click()
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    total = f"{len(COMPARED.mistakes):,}"
    expect(page.locator("#count")).to_contain_text(f"{total} of {total} shown")
    images = {mistake.image_id for mistake in COMPARED.mistakes}
    alts = page.eval_on_selector_all("#gallery img", "images => images.map(i => i.alt)")
    assert sorted(alts) == sorted(images)
    assert page.locator("#gallery ul li").count() == len(COMPARED.mistakes)


def test_a_number_of_the_worst_confusions_leads_to_its_images(file: Path, watched: Watched) -> None:
    page = watched.open(file)
    link = page.locator(".worst a.count").first
    head, label, predicted = (link.get_attribute("data-cell") or "").split(",")
    link.click()
    for control, value in (("head", head), ("true", label), ("predicted", predicted)):
        expect(page.locator(f"#by-{control}")).to_have_value(value)
    names = COMPARED.class_names
    assert {tuple(c) for c in shown(page)} <= {(names[int(label)], names[int(predicted)])}
    expect(page.locator("#mistakes-title")).to_be_focused()
    expect(page.locator("#mistakes-title")).to_be_in_viewport()


def test_a_cell_of_the_matrix_leads_to_its_images(file: Path, watched: Watched) -> None:
    page = watched.open(file)
    page.locator(".tabs label", has_text="mlp").click()
    panel = page.locator(".panel:visible")
    cell = panel.locator(".cells rect:not(.hit)").first
    cell.hover()
    readout = panel.locator(".readout")
    expect(readout).to_contain_text(re.compile(r"^.+ → .+: \d+ of \d+"))
    true, predicted = re.split(" → |: ", readout.inner_text())[:2]
    cell.click()
    assert {tuple(card) for card in shown(page)} <= {(true, predicted)}
    expect(page.locator("#count")).to_contain_text(f"mlp, true sign {true}, taken for {predicted}")
    hit = panel.locator(".cells rect.hit").first
    hit.click()  # what was recognised has no images to show
    expect(page.locator("#count")).to_contain_text(f"taken for {predicted}")


def test_the_matrix_by_keyboard(file: Path, watched: Watched) -> None:
    page = watched.open(file)
    page.locator("input[name=head]").first.focus()
    page.keyboard.press("Tab")  # its box, which scrolls
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.evaluate("e => e.tagName") == "rect"
    expect(focused).to_have_attribute("role", "button")
    page.keyboard.press("Home")
    seen = [focused.get_attribute("aria-label")]
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp", "End"):
        page.keyboard.press(key)
        seen.append(focused.get_attribute("aria-label"))
        assert page.locator(".panel:visible [tabindex='0']").count() == 2
    assert all(now != before for before, now in pairwise(seen))
    expect(page.locator(".panel:visible .readout")).to_have_text(str(seen[-1]))
    page.keyboard.press("Enter")
    true, predicted = re.split(" → |: ", str(seen[-1]))[:2]
    expect(page.locator("#count")).to_contain_text(f"true sign {true}, taken for {predicted}")


def test_everything_is_reached_by_tab_and_shows_it(file: Path, watched: Watched) -> None:
    page = watched.open(file)
    reached = []
    for _ in range(400):
        page.keyboard.press("Tab")
        state = page.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(
                 e.matches('.tabs input') ? e.nextElementSibling : e);
               return [e.tagName, e.id || e.getAttribute('href') || '',
                       s.outlineStyle !== 'none' || s.strokeWidth !== '1px']; }"""
        )
        if state[0] == "BODY":
            break
        reached.append(state)
    assert reached[-1][0] != "BODY"
    assert len(reached) < 400
    assert all(visible for _, _, visible in reached)
    names = {name for _, name, _ in reached}
    assert {"#main", "#leaderboard", "by-head", "by-true", "by-predicted", "clear", "more"} <= names


@pytest.mark.parametrize("n_heads", [1, 8])
def test_a_phone_scrolls_down_only(n_heads: int, tmp_path: Path, watched: Watched) -> None:
    compared = COMPARED if n_heads == 8 else random_comparison(1, 300)
    page = watched.open(write(compared, tmp_path), width=360)
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    small = page.eval_on_selector_all(
        "button, select", "all => all.filter(e => e.offsetHeight && e.offsetHeight < 32).length"
    )
    assert small == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_all_text(scheme: str, file: Path, watched: Watched) -> None:
    page = watched.open(file, scheme=scheme)
    dim, paper = page.evaluate(
        """() => {
          // Through a canvas, as color-mix() comes back in the notation of its colour space.
          const context = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
          const rgb = (...colours) => {
            context.clearRect(0, 0, 1, 1);
            for (const c of colours) { context.fillStyle = c; context.fillRect(0, 0, 1, 1); }
            return [...context.getImageData(0, 0, 1, 1).data];
          };
          const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
          const ground = e => {
            const layers = [];
            for (let p = e; p; p = p.parentElement)
              layers.unshift(getComputedStyle(p).backgroundColor);
            return rgb(...layers);
          };
          const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          const dim = new Set();
          while (walk.nextNode()) {
            const e = walk.currentNode.parentElement;
            if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.disabled) continue;
            if (e.closest('script, title, template, option')) continue;
            const style = getComputedStyle(e);
            const [a, b] = [rgb(e.closest('svg') ? style.fill : style.color), ground(e)].map(light);
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) dim.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)}`);
          }
          return [[...dim], light(rgb(getComputedStyle(document.body).backgroundColor))];
        }"""
    )
    assert dim == []
    assert paper < 0.05 if scheme == "dark" else paper > 0.9


def test_names_from_outside_are_never_run(tmp_path: Path, watched: Watched) -> None:
    test = from_confusion([[5, 2], [1, 6]])
    compared = comparison(
        [head_result(ATTACK, test, test), head_result("\u2028&amp;", test, test)],
        [ATTACK, "plain"],
        mistakes=[Mistake(ATTACK, ATTACK, 0, 1, 0.9), Mistake(ATTACK, "b", 1, 0, 0.8)],
        pictures={ATTACK: jpeg((9, 9, 9)), "b": jpeg((99, 9, 9))},
        omitted={ATTACK: 1},
    )
    page = watched.open(write(compared, tmp_path))
    page.locator(".worst a.count").first.click()
    page.locator("#clear").click()
    page.locator(".cells rect:not(.hit)").first.hover()
    assert ATTACK in page.locator("#gallery").inner_text()
    assert ATTACK in page.locator(".panel:visible .readout").inner_text()
    page.locator("#by-head").select_option("0")
    assert ATTACK in page.locator("#count").inner_text()
    assert page.title() == "Traffic-sign heads on a frozen AlexNet"
    assert page.locator("img[onerror], script:not([id]):not(:last-child)").count() == 0


def test_a_cell_whose_mistakes_are_left_out_says_so(tmp_path: Path, watched: Watched) -> None:
    test = from_confusion([[5, 0, 1], [9, 6, 0], [0, 0, 8]])
    compared = comparison(
        [head_result("mlp", test, test)],
        ["stop", "yield", "no entry"],
        mistakes=[Mistake("mlp", "a", 0, 2, 0.9)],
        pictures={"a": jpeg((9, 9, 9))},
        omitted={"mlp": 9},
    )
    page = watched.open(write(compared, tmp_path))
    page.locator(".worst a.count").first.click()
    expect(page.locator("#count")).to_have_text(
        "0 of 0 shown, those of mlp, true sign yield, taken for stop. Not on this page: 9 less "
        "confident mistakes of this head, of any sign."
    )
    assert shown(page) == []
    expect(page.locator("#more")).to_be_hidden()


def test_nothing_to_show_is_shown_without_error(tmp_path: Path, watched: Watched) -> None:
    right = from_confusion([[5, 0], [0, 6]])
    bare = replace(head_result("mlp", right, right), history=[], sweep=[], families={}, sizes={})
    page = watched.open(write(comparison([bare], ["stop", "yield"]), tmp_path))
    expect(page.locator("#mistakes")).to_contain_text("No mistake to show.")
    expect(page.locator("#worst")).to_contain_text("Not one test image confused.")
    page.locator(".cells rect").first.hover()
    expect(page.locator(".readout")).to_be_empty()
    assert not [said for said in watched.said if said.startswith(("error:", "console:"))]
