"""Headless Chromium, and what a page in it shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 360, "height": 740}


@contextmanager
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, path: Path, size: dict[str, int] = WIDE, scheme: str = "light", *, touch: bool = False
) -> Iterator[Page]:
    """The page, which must not complain of anything, nor ask for anything."""
    context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=touch, offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else complaints.append(r.url))
    page.goto(path.as_uri())
    page.wait_for_function("document.getElementById('reader-count').textContent !== ''")
    yield page
    assert not complaints
    context.close()


def traces(page: Page, name: str) -> list[dict[str, Any]]:
    """What a plot draws, and that it is drawn."""
    assert page.locator(f"#plot-{name} .main-svg").first.bounding_box()["width"] > 200
    return page.evaluate(
        "(id) => document.getElementById(id).data.map((t) => ({name: t.name, x: [...t.x], y: t.y && [...t.y], base: t.base}))",
        f"plot-{name}",
    )


def text(page: Page, selector: str) -> str:
    return page.locator(selector).first.inner_text()
