"""`python -m tests.project.screenshot`: takes the README's picture of the status page, from the sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from playwright.async_api import FloatRect, async_playwright

from tests.support.repository import DOCS

PICTURE: Final = DOCS / "images" / "status.png"
_CHROMIUM: Final = os.environ.get("PRIORITYD_TEST_CHROMIUM", "/usr/bin/chromium")
_WIDTH: Final = 1000
_TRAFFIC_SECONDS: Final = 20 * 60  # so that the charts have something to show


async def take(url: str) -> None:
    """Write the picture of the page, down to the end of its charts."""
    await asyncio.sleep(_TRAFFIC_SECONDS)
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": _WIDTH, "height": 900}, color_scheme="light")
        await page.goto(url)
        box = await page.locator("section:has(> #hour-title)").bounding_box()
        assert box is not None
        height = box["y"] + box["height"] + 16
        clip: FloatRect = {"x": 0, "y": 0, "width": _WIDTH, "height": height}
        await page.screenshot(path=PICTURE, full_page=True, clip=clip)
        await browser.close()


def main() -> None:
    """Run the sandbox, and end it with the picture."""
    command = [str(Path(sys.executable).parent / "priorityd"), "sandbox", "--port", "0", "--http-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        facts = json.loads(sandbox.stdout.readline())
        with subprocess.Popen(["cat"], stdin=sandbox.stdout, stdout=subprocess.DEVNULL):
            try:
                asyncio.run(take(facts["metrics_url"].removesuffix("metrics")))
            finally:
                sandbox.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
