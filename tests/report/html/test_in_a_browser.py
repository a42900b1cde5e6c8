"""The page in a real Chromium without a network: no error, no request, filters by keyboard, phone and dark mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from localmel.report.comparison import ComparisonReport


@pytest.fixture(scope="session")
def file(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "comparison.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """`opened(width=375, dark=True)` -> the page, opened from the disk with the network off.

    Afterwards: the console was silent and nothing was asked for."""
    said: list[str] = []
    contexts: list[Any] = []

    def open_page(*, width: int = 1280, dark: bool = False, script: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            offline=True,
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: said.append(request.url) if request.url[:5] not in ("file:", "data:") else None
        )
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def visible(page: Any) -> int:
    return int(page.locator("article.case:visible").count())


def test_it_opens_and_runs_no_script_of_a_caption(opened: Callable[..., Any], report: ComparisonReport) -> None:
    page = opened()
    assert page.title().startswith("Comparison of 2 systems")
    assert page.evaluate("window.owned") is None
    assert page.evaluate("[...document.images].every((one) => one.loading === 'lazy')")
    assert "<script>window.owned = 1</script>" in str(page.locator("article.case").first.text_content())
    assert page.locator("#count").inner_text() == f"20 of {len(report.examples)} shown"


def test_an_injected_script_is_refused_by_the_page_itself(browser: Any, file: Path, tmp_path: Path) -> None:
    """Were the template ever to forget escaping: the policy stops what gets through."""
    broken = tmp_path / "broken.html"
    text = file.read_text(encoding="utf-8")
    broken.write_text(text.replace("<h1>", "<script>window.owned = 1</script><img src=x onerror='owned = 1'><h1>"))
    context = browser.new_context(offline=True)
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(broken.as_uri())
    assert page.evaluate("window.owned") is None
    assert any("Content Security Policy" in line for line in refused)
    context.close()


def test_filters_leave_what_fits(opened: Callable[..., Any], report: ComparisonReport) -> None:
    page = opened()
    first, second = report.systems
    for right, wrong, pattern in ((first, second, (True, False)), (second, first, (False, True))):
        page.select_option("[name=right]", label=right.replace("\x00", ""))
        page.select_option("[name=wrong]", str(list(report.systems).index(wrong)))
        expected = sum(one.pattern == pattern for one in report.examples)
        assert expected > 0
        assert page.locator("#count").inner_text() == f"{min(expected, 20)} of {expected} shown"
        assert visible(page) == min(expected, 20)
    page.click("text=Show all")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('20 of')")
    page.select_option("[name=dataset]", "one <b>")
    expected = sum(one.dataset == "one <b>" for one in report.examples)
    assert page.locator("#count").inner_text().endswith(f"of {expected} shown")
    page.select_option("[name=slice]", label="type: <i>human</i>")
    inside = [
        one
        for one in report.examples
        if one.dataset == "one <b>" and report.mentions[one.dataset, one.mention_id].slices
    ]
    assert page.locator("#count").inner_text().endswith(f"of {len(inside)} shown")
    page.fill("[name=words]", "no such words")
    assert page.locator("#count").inner_text() == "no mention fits"
    assert visible(page) == 0


def test_words_are_looked_for_in_any_case(opened: Callable[..., Any], report: ComparisonReport) -> None:
    page = opened()
    wanted = report.mentions[report.examples[0].dataset, report.examples[0].mention_id].surface
    page.fill("[name=words]", f" {wanted.upper()} ")
    found = page.locator("article.case:visible").all_text_contents()
    assert found
    assert all(wanted in text for text in found)


def test_the_keyboard_reaches_everything(opened: Callable[..., Any]) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.name || document.activeElement.tagName"))
    assert {"dataset", "right", "wrong", "slice", "words", "BUTTON", "SUMMARY", "A", "DIV"} <= reached
    page.focus("[name=right]")
    page.keyboard.press("ArrowDown")
    assert page.eval_on_selector("[name=right]", "one => one.value") == "0"
    page.focus("article.case:visible summary")
    page.keyboard.press("Enter")
    assert page.locator("article.case:visible details[open]").count() == 1


def test_more_are_shown_and_the_first_new_one_has_the_focus(
    opened: Callable[..., Any], report: ComparisonReport
) -> None:
    page = opened()
    assert len(report.examples) > 20
    page.focus("#more")
    page.keyboard.press("Enter")
    assert visible(page) == min(40, len(report.examples))
    assert page.evaluate("document.activeElement === document.querySelectorAll('article.case')[20]")


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_is_wider_than_the_screen(opened: Callable[..., Any], width: int) -> None:
    page = opened(width=width)
    for details in page.locator("details").all()[:8]:
        details.evaluate("one => { one.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.locator(".narrow svg:visible").count(), page.locator(".wide svg:visible").count()
    assert (shown[0] > 0, shown[1] > 0) == ((True, False) if width < 700 else (False, True))
    least = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map((one) => one.getBoundingClientRect().height)"
        ".filter((height) => height))"
    )
    assert least >= 9, f"a text of a figure is {least} pixels high"


LUMINANCE = """(element) => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const light = (colour) => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((one) => {
      const part = one / 255; return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const style = getComputedStyle(element);
  const front = light(element.closest('svg') ? style.fill : style.color);
  let behind = element; let colour = 'rgba(0, 0, 0, 0)';
  while (behind && colour === 'rgba(0, 0, 0, 0)') { colour = getComputedStyle(behind).backgroundColor;
    behind = behind.parentElement; }
  const back = light(colour === 'rgba(0, 0, 0, 0)' ? 'white' : colour);
  return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05); }"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_by_day_and_by_night(opened: Callable[..., Any], dark: bool) -> None:
    """Contrast of 4.5 to 1, as WCAG 2 asks of text."""
    page = opened(dark=dark)
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark
    for selector in (
        "p.lead",
        ".words",
        ".interval",
        "td",
        "nav a",
        "summary",
        "mark",
        ".tag",
        ".id",
        ".wide svg text",
    ):
        contrast = page.locator(selector).first.evaluate(LUMINANCE)
        assert contrast >= 4.5, f"{selector}: {contrast:.2f}"


def test_without_scripts_every_mention_stands_there(opened: Callable[..., Any], report: ComparisonReport) -> None:
    page = opened(script=False)
    assert page.locator("article.case").count() == len(report.examples)
    assert page.locator("article.case[hidden]").count() == 0
    assert page.locator("#filters").is_hidden()


def test_a_screen_reader_finds_headings_regions_and_names(opened: Callable[..., Any]) -> None:
    page = opened()
    assert page.locator("h1").count() == 1
    assert page.locator("html[lang=en] main").count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5')].map((one) => Number(one.tagName[1]))")
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    unnamed = page.evaluate(
        "[...document.querySelectorAll('select, input, button, section, nav, [role=region], svg')].filter((one) =>"
        " !(one.labels && one.labels.length) && !one.ariaLabel && !one.getAttribute('aria-labelledby')"
        " && !one.textContent.trim()).length"
    )
    assert unnamed == 0
    assert page.locator("#count[aria-live=polite]").count() == 1
    assert page.locator("th:not([scope])").count() == 0
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map((one) => one.id)).size") == page.evaluate(
        "document.querySelectorAll('[id]').length"
    )
