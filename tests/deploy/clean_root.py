"""Clean Debian roots, made with debootstrap and layered like a container's images.

Whatever runs in one has mount and process namespaces of its own and shares the network of this machine: it
reaches package mirrors as this machine does, and a server of the test by loopback. This needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SUITE = "trixie"
_IN_ROOT = Path(__file__).with_name("in_root.sh")
_AUTHORITIES = "/etc/authorities-of-this-machine.crt"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def demand_root_rights() -> None:
    """Skip the test, saying why, where roots can't be made."""
    if os.geteuid() != 0:
        pytest.skip("making a clean root needs root rights")
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed")


@contextmanager
def debian_root() -> Iterator[Path]:
    """A minimal Debian. `PRIORITYD_TEST_DEBIAN_ROOT` names one that is there already, to save the minute."""
    given = os.environ.get("PRIORITYD_TEST_DEBIAN_ROOT")
    if given:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="priorityd-root-") as directory:
        root = Path(directory) / "debian"
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", SUITE, root], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        yield root


@dataclass(frozen=True)
class Layer:
    """A root: `lowers` (topmost first) with what was written since in `upper`."""

    directory: Path
    lowers: tuple[Path, ...]

    @classmethod
    def on(cls, base: Path | Layer, directory: Path) -> Layer:
        """A new layer on a directory or another layer, which is not to be written to any more."""
        lowers = (base.upper, *base.lowers) if isinstance(base, Layer) else (base,)
        layer = cls(directory, lowers)
        for part in (layer.upper, layer.work, layer.mount_point):
            part.mkdir(parents=True)
        return layer

    @property
    def upper(self) -> Path:
        return self.directory / "upper"

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def mount_point(self) -> Path:
        return self.directory / "root"

    def path(self, inside: str) -> Path:
        """Where a file of the root is to be found from outside (for reading)."""
        relative = inside.lstrip("/")
        return next(top / relative for top in (self.upper, *self.lowers) if (top / relative).exists())

    def command(self, mode: str, arguments: Sequence[str]) -> list[str]:
        """The command line that runs `arguments` as process 1 in the root."""
        lowers = ":".join(map(str, self.lowers))
        parts = (lowers, self.upper, self.work, self.mount_point, mode)
        unshare = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child"]
        return [*unshare, str(_IN_ROOT), *map(str, parts), *arguments]

    def run(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
        """Run a command that may write; returns its output."""
        with self.authorities() as bundle:
            words = [f"{name}={value}" for name, value in (environment or {}).items()]
            command = ["/usr/bin/env", f"PATH={_PATH}", *bundle, *words, *arguments]
            done = subprocess.run(self.command("build", command), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    @contextmanager
    def authorities(self) -> Iterator[list[str]]:
        """For the length of the block, what `pip` in the root needs to trust what this machine trusts."""
        # A machine behind a proxy of its own has that proxy's certificate in its bundle. Copied and never
        # mounted: the package ca-certificates writes to the directory where the bundle usually is.
        source = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        if not source:
            yield []
            return
        copy = self.upper / _AUTHORITIES.lstrip("/")
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, copy)
        try:
            yield [f"PIP_CERT={_AUTHORITIES}"]
        finally:
            copy.unlink()


@dataclass(frozen=True)
class Running:
    """A process 1 in a root."""

    process: subprocess.Popen[bytes]
    pid: int
    log: Path

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def execute(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run one more command beside it, as `docker exec` would; `text` is what it reads."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        words = [f"{name}={value}" for name, value in ({"PATH": _PATH} | dict(environment or {})).items()]
        command = [*enter, "--root", "--wd", "--", "/usr/bin/env", "-i", *words, *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=300)

    def wait(self, seconds: float) -> int:
        """Its exit code."""
        return self.process.wait(seconds)


@contextmanager
def running(
    layer: Layer, mode: str, arguments: Sequence[str], log: Path, before: Sequence[str] = ()
) -> Iterator[Running]:
    """Run a process 1 for the length of the block; `before` is a command that runs the command after it."""
    with log.open("wb") as output:
        command = [*before, *layer.command(mode, arguments)]
        with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
            pid = _child_of(process)
            try:
                yield Running(process, pid, log)
            finally:
                if process.poll() is None:
                    os.kill(pid, signal.SIGKILL)


def _child_of(process: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        if pids := children.read_text().split():
            return int(pids[0])
        time.sleep(0.01)
    raise AssertionError("the root was not entered")
