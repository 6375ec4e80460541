"""The status page of a real daemon in a real browser: what it shows, what it costs a reader, how it looks."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import Daemon, eventually
from tests.support.stack import Stack

playwright = pytest.importorskip("playwright.async_api", reason="needs the package playwright")
pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "artifacts"
CHROMIUM = os.environ.get("PRIORITYD_TEST_CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1100, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1100, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 375, "height": 800}, "device_scale_factor": 2},
}
# The contrast of each text with what is behind it, by the formula of WCAG 2; below 4.5 it is hard to read.
CONTRASTS = """
() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = channels(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || ["SCRIPT", "STYLE", "NOSCRIPT", "TITLE", "title"].includes(element.tagName)) continue;
    const [a, b] = [light(channels(getComputedStyle(element).color)), light(ground(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 80)]);
  }
  return found.filter(([ratio]) => ratio < 4.5);
}
"""


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


async def opened(browser: Any, daemon: Daemon, **look: Any) -> tuple[Any, list[str]]:
    """The page, and what the browser complains about from now on."""
    page = await (await browser.new_context(**look)).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    await page.goto(f"http://127.0.0.1:{daemon.port}/")
    return page, complaints


async def fill(stack: Stack, daemon: Daemon) -> None:
    """Something of everything that the page shows."""
    workspace, repositories = stack.app.workspace(), stack.app.repositories(40)
    stack.app.add(workspace, *repositories[:25])
    await eventually(lambda: stack.app.wrong_rows() == 0)
    stack.app.remove(workspace, *repositories[20:25])
    await eventually(lambda: stack.app.wrong_rows() == 0)
    stack.app.connection.execute(
        """insert into background_jobs (status, payload, created_at)
           select 'queued', jsonb_build_object('priority', p), now() - interval '40 s'
           from unnest(array[100, 50, 50, 25]) p"""
    )
    await eventually(lambda: _counted(daemon))


async def _counted(daemon: Daemon) -> bool:
    status = await daemon.status()
    counts = {row["is_workspace_repo"]: row["count"] for row in status["snapshot"]["repositories"]}
    return counts == {True: 20, False: 20} and status["jobs"]["queued"]["medium"]["count"] == 2


async def test_the_page_shows_what_is_so_without_a_complaint_of_the_browser(
    stack: Stack, browser: Any
) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    async with stack.daemon() as daemon:
        await fill(stack, daemon)
        for name, look in LOOKS.items():
            page, complaints = await opened(browser, daemon, **look)
            assert await page.locator("h1").inner_text() == "✓\nAll 20 workspace repositories are high."
            assert await page.locator("[data-part=tiles] dd").all_inner_texts() == ["20", "20", "30", "0"]
            assert await page.locator("[data-part=recent] tr").count() == 12
            queued = await page.locator("[data-part=jobs] tbody tr td:nth-child(2)").all_inner_texts()
            assert queued == ["1", "2", "1"]
            assert await page.locator("[data-part=problems] li").count() == 0
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert await page.evaluate(CONTRASTS) == []
            await page.screenshot(path=ARTIFACTS / f"status-{name}.png", full_page=True)
            assert complaints == []


async def test_the_page_follows_changes_without_being_loaded_again(stack: Stack, browser: Any) -> None:
    async with stack.daemon() as daemon:
        page, complaints = await opened(browser, daemon, **LOOKS["phone"])
        await page.locator(".scroll").first.focus()
        scrolled = await page.evaluate("window.stillThere = true; scrollTo(0, 200); scrollY")
        repository = stack.app.repository()
        stack.app.add(stack.app.workspace(), repository)
        await page.get_by_text(str(repository)).wait_for(timeout=20_000)
        assert await page.evaluate("window.stillThere")
        assert await page.evaluate("scrollY") == scrolled == 200
        assert await page.evaluate("document.activeElement.className") == "scroll"
        assert complaints == []
        await daemon.stop()
        await page.locator("body.unknown").wait_for(timeout=20_000)
        gone = page.get_by_role("alert")
        assert re.match(r"The daemon has not answered since \d\d:\d\d:\d\d UTC\.", await gone.inner_text())
        assert await gone.is_visible()
