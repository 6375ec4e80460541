"""The status page of a real daemon in a real browser: what it shows, what it costs a reader, how it looks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from priorityd.daemon.sandbox.worlds import PLAIN
from tests.support.application import Application
from tests.support.daemon_process import eventually
from tests.support.daemon_words import knows, page_of, says
from tests.support.database import Server
from tests.support.faults import Faults
from tests.support.repository import ROOT
from tests.support.servers import start_servers
from tests.support.situations import SITUATIONS, Make, NewStack, Situation, named
from tests.support.stack import Stack
from tests.support.troubles import poison

pytestmark = pytest.mark.browser

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
DESKTOP: dict[str, Any] = {"viewport": {"width": 1100, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 336, "height": 740}, "device_scale_factor": 2}
LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "light": ("light", DESKTOP),
    "dark": ("dark", DESKTOP),
    "phone": ("light", PHONE),
    "dark-phone": ("dark", PHONE),
}
AXE = "axe-core@4.14.1"
# What sticks out of the page, or of what is around it without being scrolled.
OVERFLOWS = """
() => [...document.querySelectorAll("main *")]
  .filter((each) => !each.closest(".hidden, svg, .changes thead"))
  .filter((each) => {
    const { left, right } = each.getBoundingClientRect();
    const cut = each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1;
    return right > innerWidth + 0.5 || left < -0.5 || cut;
  })
  .map((each) => each.outerHTML.slice(0, 100))
"""


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, which finds what keeps people with disabilities out."""
    directory = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    assert npm, "npm is needed to install axe-core"
    install = [npm, "install", "--no-audit", "--no-fund", "--silent", "--ignore-scripts", AXE]
    subprocess.run(install, cwd=directory, check=True, timeout=180)
    return (directory / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    # Only where it is used: the import is a twentieth of what collecting all tests takes.
    playwright = pytest.importorskip("playwright.async_api", reason="needs the package playwright")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


async def opened(browser: Any, url: str, **look: Any) -> tuple[Any, list[str]]:
    """The page, and what the browser complains about from now on."""
    page = await (await browser.new_context(**look)).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    await page.goto(url)
    return page, complaints


async def faults_of(page: Any, axe: str) -> list[str]:
    """What axe finds, and what sticks out."""
    # Evaluated by the debugger, which the page's Content-Security-Policy does not stop.
    await page.evaluate(f"window.axe || (() => {{ {axe} }})()")
    found = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    told = [
        f"{violation['id']}: {node['html']}: {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
    return told + [f"sticks out: {each}" for each in await page.evaluate(OVERFLOWS)]


@pytest.fixture
def new_stack(server: Server, templates: Callable[[str], str]) -> NewStack:
    @asynccontextmanager
    async def new() -> AsyncIterator[Stack]:
        context = server.database(templates(PLAIN))
        # In threads: others go on meanwhile, and the end of one waits for what this event loop has to do.
        database = await anyio.to_thread.run_sync(context.__enter__)
        try:
            async with start_servers(database.url, faults=Faults()) as sandbox:
                yield Stack(sandbox, database, Application(database.connect()))
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(context.__exit__, None, None, None)

    return new


@pytest.mark.timeout(600)
async def test_every_situation_has_its_picture_without_a_finding(
    new_stack: NewStack, browser: Any, axe: str
) -> None:
    """They happen side by side; pictures are taken of one after the other."""
    ARTIFACTS.mkdir(exist_ok=True)
    at_once, one_by_one = anyio.CapacityLimiter(5), anyio.Lock()
    faults: dict[str, list[str]] = {}

    async def look_at(name: str, make: Make) -> None:
        async with at_once, make(new_stack) as situation, one_by_one:
            faults[name] = await pictures(name, situation, browser, axe)

    first, *others = SITUATIONS.items()
    await look_at(*first)
    async with anyio.create_task_group() as tasks:
        for name, make in others:
            tasks.start_soon(look_at, name, make)
    assert faults == {name: [] for name in SITUATIONS}


async def pictures(name: str, situation: Situation, browser: Any, axe: str) -> list[str]:
    """Take them; returns all that is wrong with them."""
    wrong, pages = [], {}
    for size in (DESKTOP, PHONE):
        pages[size["viewport"]["width"]] = await opened(browser, situation.url, **size)
    if situation.then is not None:
        await situation.then()
        for page, complaints in pages.values():
            await page.locator("body.unknown").wait_for(timeout=20_000)
            complaints.clear()  # that nobody answers
    for look, (scheme, size) in LOOKS.items():
        page, complaints = pages[size["viewport"]["width"]]
        await page.emulate_media(color_scheme=scheme)
        wrong += [f"{look}: {fault}" for fault in await faults_of(page, axe)]
        if look != "dark-phone":
            await page.screenshot(path=ARTIFACTS / f"status-{name}-{look}.png", full_page=True)
        wrong += [] if situation.then is not None else complaints
    for page, _ in pages.values():
        await page.context.close()
    return wrong


async def test_the_page_shows_what_is_so(stack: Stack, browser: Any) -> None:
    app = stack.app
    async with stack.daemon() as daemon:
        first, second, third = named(app, "acme/web", "acme/api", "acme/docs")
        workspace, other = app.workspace(), app.workspace()
        for ids in ((workspace, first, second, third), (other, second)):
            app.add(*ids)
            await eventually(lambda: app.wrong_rows() == 0)
        app.remove(workspace, first)
        await eventually(lambda: app.wrong_rows() == 0)
        await says(daemon, "All 2 workspace repositories are high.")
        page, complaints = await opened(browser, page_of(daemon), **PHONE)
        assert await page.locator("h1").inner_text() == "✓\nAll 2 workspace repositories are high."
        assert await page.locator(".tiles dd").all_inner_texts() == ["2", "1", "5", "0"]
        rows = [re.sub(r"\s+", " ", row) for row in await page.locator(".changes tbody tr").all_inner_texts()]
        assert rows[0].startswith(f"acme/web {first} high → medium in no workspace workspace change"), rows
        assert rows[1].startswith(f"acme/api {second} high 1 → 2 workspaces workspace change"), rows
        assert complaints == []


async def test_the_page_follows_changes_without_being_loaded_again(stack: Stack, browser: Any) -> None:
    poison(stack, refused := stack.app.repository())
    async with stack.daemon() as daemon:
        workspace = stack.app.workspace()
        stack.app.add(workspace, refused)
        await knows(daemon, "not_high", "rows_refused")
        page, complaints = await opened(browser, page_of(daemon), **PHONE)
        await page.locator("#problem-rows_refused summary").press("Enter")
        scrolled = await page.evaluate("window.stillThere = true; scrollTo(0, 200); scrollY")
        repository = stack.app.repository()
        stack.app.add(workspace, repository)
        await page.get_by_text(str(repository)).first.wait_for(state="attached", timeout=20_000)
        assert await page.evaluate("window.stillThere")
        assert await page.evaluate("scrollY") == scrolled == 200
        assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"
        assert await page.get_by_text("Remove the cause in the database.").is_visible()
        assert complaints == []
        await daemon.stop()
        await page.locator("body.unknown").wait_for(timeout=20_000)
        gone = page.get_by_role("alert")
        assert re.match(r"The daemon has not answered since \d\d:\d\d:\d\d UTC\.", await gone.inner_text())
        assert await gone.is_visible()
        assert (await page.title()).startswith("? priorityd")
