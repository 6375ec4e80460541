"""The image: its Dockerfile's own steps done in clean roots, and the result run as an engine would run it.

No engine is needed, so none is tested: what `docker build` and `docker run` add to these steps (layers,
networks, the registry) is not looked at here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.clean_root import Layer, Running, running
from tests.deploy.dockerfile import Builder, Image
from tests.support.daemon_process import eventually, free_port
from tests.support.stack import NO_TIMER, Stack

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "deploy" / "container"
MANUAL = ROOT / "docs" / "operations.md"

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def image(debian: Path, new_directory: Callable[[str], Path]) -> Image:
    """What the Dockerfile makes."""
    directory = new_directory("image")
    base = Layer.on(debian, directory / "base")
    return Builder(CONTAINER / "Dockerfile", ROOT, base, directory).build()


@contextmanager
def container(image: Image, log: Path, *arguments: str, **settings: object) -> Iterator[Running]:
    """Run the image's entry point as process 1: its user, no capability, and a read-only root."""
    user, group = image.user.split(":")
    drop = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    as_user = ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={group}", *drop]
    environment = image.environment | {name: str(value) for name, value in settings.items()}
    variables = [f"{name}={value}" for name, value in environment.items()]
    command = [*as_user, "/usr/bin/env", "-i", *variables, *image.entrypoint, *(arguments or image.command)]
    layer = Layer.on(image.layer, log.parent / f"{log.name}-layer")
    with running(layer, "run", command, log) as process:
        yield process


def logged(process: Running, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, process.log.read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


async def test_runs_as_process_1_without_rights_and_heeds_its_signals(
    image: Image, stack: Stack, tmp_path: Path
) -> None:
    port = free_port()
    settings = stack.settings | NO_TIMER | {"PRIORITYD_HTTP_PORT": port}
    workspace, repository = stack.app.workspace(), stack.app.repository()
    with container(image, tmp_path / "log", **settings) as process:
        probe = [*image.health_check, "--ready"]
        variables = image.environment | {name: str(value) for name, value in settings.items()}
        await eventually(lambda: answers(port, "/readyz"))
        assert process.execute(image.health_check, variables).returncode == 0
        assert process.execute(probe, variables).returncode == 0
        stack.app.add(workspace, repository)
        await eventually(lambda: stack.app.row(repository)[0] == "high")
        process.signal(signal.SIGHUP)
        await eventually(
            lambda: [line for line in logged(process, "resync_done") if line["trigger"] == "signal"]
        )
        process.signal(signal.Signals[image.stop_signal])
        assert process.wait(30) == 0
    assert logged(process, "stopped")
    assert stack.server.service_role_key not in process.log.read_text()


async def test_the_health_check_fails_when_nobody_answers(image: Image, stack: Stack, tmp_path: Path) -> None:
    arguments = image.health_check[len(image.entrypoint) :]
    settings = stack.settings | {"PRIORITYD_HTTP_PORT": free_port()}
    with container(image, tmp_path / "log", *arguments, **settings) as process:
        assert process.wait(30) == 1
    assert "no answer" in process.log.read_text()


def test_the_image_is_as_small_in_rights_as_can_be(image: Image) -> None:
    assert image.user == "65532:65532"
    assert image.health_check[: len(image.entrypoint)] == image.entrypoint
    assert all(word.startswith("/") for word in (image.entrypoint[0], image.health_check[0]))
    writable = [
        path
        for path in image.layer.path("/opt/priorityd").rglob("*")
        if not path.is_symlink()
        and (path.stat().st_uid != 0 or path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    ]
    assert writable == [], "the daemon's user could change its own program"
    packages = {path.name for path in image.layer.path("/opt/priorityd").glob("lib/*/site-packages/*")}
    assert "priorityd" in packages
    assert not packages & {"pip", "setuptools", "hatchling"}, "what is run has no installer in it"


def test_the_image_says_what_it_is(image: Image) -> None:
    titles = {label.removeprefix("org.opencontainers.image.") for label in image.labels}
    assert titles == {"title", "description", "licenses", "version", "revision"}


def test_everything_that_is_installed_is_pinned_with_hashes() -> None:
    dockerfile = (CONTAINER / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:--python \S+ )?install (.*?)(?:&&|\n)", dockerfile)
    assert len(installs) == 3
    for arguments in installs:
        assert "--require-hashes" in arguments or "--no-index --no-deps" in arguments, arguments


def pins(file: Path) -> set[str]:
    return set(re.findall(r"^[\w.-]+==\S+", file.read_text(), re.MULTILINE))


def test_the_pins_are_those_that_the_manuals_command_keeps(tmp_path: Path) -> None:
    command = re.search(r"<!-- pin -->\n```sh\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert command
    pinned = tmp_path / "deploy" / "container" / "requirements.txt"
    pinned.parent.mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(CONTAINER / "requirements.txt", pinned)
    # Without --upgrade it changes only what no longer fits.
    script = command[1].replace("--upgrade ", "")
    binaries = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-ec", script], cwd=tmp_path, env={**os.environ, "PATH": binaries}, check=True)
    assert pins(pinned) == pins(CONTAINER / "requirements.txt")
