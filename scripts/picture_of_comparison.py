"""A picture of a comparison: comparison.html -> docs/images/comparison.png.

    python scripts/picture_of_comparison.py report/comparison.html docs/images/comparison.png

Opens the report in a headless Chromium without a network: its beginning and its disagreements on a desktop, and on a
phone at night, side by side.  Needs playwright, Pillow and a Chromium (`apt-get install chromium`)."""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

HEIGHT, GAP, BEHIND = 1240, 24, "#8a929b"
DESKTOP, PHONE = 1180, 390
COLOURS = 256
"Of the palette: enough for text and small pictures, and a third of the bytes."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    picture = picture_of(arguments.report)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE).save(arguments.picture, optimize=True)
    print(f"{arguments.picture}: {picture.width} x {picture.height}, {arguments.picture.stat().st_size:,} bytes")


def picture_of(report: Path) -> Image.Image:
    """Three views of the report in one picture."""
    with sync_playwright() as started:
        path = shutil.which("chromium") or shutil.which("google-chrome") or started.chromium.executable_path
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        views = [
            view(browser, report, width=DESKTOP),
            view(browser, report, width=DESKTOP, at="#disagreements", opened=True),
            view(browser, report, width=PHONE, dark=True),
        ]
        browser.close()
    width = sum(one.width for one in views) + GAP * (len(views) + 1)
    picture = Image.new("RGB", (width, HEIGHT + 2 * GAP), BEHIND)
    left = GAP
    for one in views:
        picture.paste(one, (left, GAP))
        left += one.width + GAP
    return picture.resize((picture.width * 2 // 3, picture.height * 2 // 3), Image.Resampling.LANCZOS)


def view(
    browser: Browser, report: Path, *, width: int, at: str = "", opened: bool = False, dark: bool = False
) -> Image.Image:
    """What a screen of this width shows, from the element `at` on."""
    context = browser.new_context(
        viewport={"width": width, "height": HEIGHT}, color_scheme="dark" if dark else "light", offline=True
    )
    page: Any = context.new_page()
    page.goto(report.resolve().as_uri())
    if opened:  # what the first system has right and the second wrong
        page.select_option("[name=right]", "0")
        page.select_option("[name=wrong]", "1")
        page.locator("article.case:visible summary").first.click()
    if at:
        page.locator(at).evaluate("element => element.scrollIntoView()")
    page.wait_for_timeout(300)  # pictures are decoded when they come into view
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    return image


if __name__ == "__main__":
    main()
