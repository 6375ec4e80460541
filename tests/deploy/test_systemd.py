"""The unit under a real systemd: installed, reloaded, upgraded, put back and removed, by the manual's words.

systemd is process 1 of a clean Debian, so the sandbox that the unit asks for is the kernel's, not a claim.
What is typed is what docs/operations.md says; `pytest -m deploy -s tests/deploy/test_systemd.py` shows it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio import to_thread

from priorityd.core import __version__
from priorityd.daemon.sandbox.keys import Keys
from tests.deploy.clean_root import Layer, Running, running
from tests.support.daemon_process import eventually, free_port
from tests.support.stack import NO_TIMER, Stack

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs" / "operations.md"
UNIT = ROOT / "deploy" / "systemd" / "priorityd.service"
MOST_EXPOSURE = 1.5
# What a system writes about itself while it runs, whatever is installed.
_SYSTEMS_OWN = ("/var/log/", "/var/lib/systemd/", "/var/cache/", "/root/.cache", "/var/tmp/")

_BOOTED = ("running", "degraded")

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def debian_with_systemd(debian: Path, new_directory: Callable[[str], Path]) -> Layer:
    """A server as one gets it: Debian with systemd and Python."""
    layer = Layer.on(debian, new_directory("systemd") / "layer")
    packages = "systemd-sysv dbus python3-venv ca-certificates"
    script = f"apt-get update -qq && apt-get install --yes -qq --no-install-recommends {packages}"
    layer.run(["/bin/sh", "-c", script], {"DEBIAN_FRONTEND": "noninteractive"})
    return layer


@pytest.fixture(scope="module")
def releases(new_directory: Callable[[str], Path]) -> dict[str, Path]:
    """This version and one that differs by its number, each as an operator has it: a wheel and deploy/."""
    directory = new_directory("releases")
    made = {}
    for name in ("this", "next"):
        source = directory / "source" / name
        for part in ("priorityd", "man", "pyproject.toml", "README.md", "LICENSE"):
            origin = ROOT / part
            (shutil.copytree if origin.is_dir() else shutil.copy)(origin, _parent(source) / part)
        if name == "next":
            version = source / "priorityd" / "core" / "__init__.py"
            version.write_text(
                re.sub(r'__version__ = "(.*)"', r'__version__ = "\1.post1"', version.read_text())
            )
        made[name] = directory / name
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(made[name]), str(source)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        shutil.copytree(ROOT / "deploy", made[name] / "deploy")
    return made


def _parent(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def typed(step: str) -> str:
    """The commands of a step of the manual: the block after its mark."""
    found = re.search(rf"<!-- {step} -->\n+```sh\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert found, f"the manual has no step {step!r}"
    return found[1]


@dataclass
class Machine:
    """A booted Debian, and an operator's shell on it."""

    init: Running
    environment: dict[str, str]

    async def types(self, script: str, directory: str = "/root") -> str:
        """Type these lines in a shell that stops at the first that fails; returns what they print."""
        command = ["/bin/sh", "-euxc", f"cd {directory}\n{script}"]
        # In a thread: the sandbox that the daemon talks to is served from this test's event loop.
        done = await to_thread.run_sync(self.init.execute, command, self.environment)
        print(f"\n# {directory}\n{done.stderr}{done.stdout}", flush=True)
        assert done.returncode == 0, self.journal()
        return done.stdout

    def writes(self, file: str, text: str) -> None:
        """Make a file that only root can read."""
        done = self.init.execute(["/usr/bin/install", "-m", "600", "/dev/stdin", file], text=text)
        assert done.returncode == 0, done.stderr

    def journal(self) -> str:
        """What the unit has said."""
        return self.init.execute(["journalctl", "--no-pager", "-u", "priorityd", "-o", "cat"]).stdout

    def property(self, name: str) -> str:
        """One property of the unit, as `systemctl show` gives it."""
        return self.init.execute(["systemctl", "show", "priorityd", "--value", "-p", name]).stdout.strip()

    def is_live(self) -> bool:
        return self.property("StatusText").startswith("ready; ")

    def is_in_state(self, state: str) -> bool:
        return self.property("ActiveState") == state

    def has_logged(self, event: str, **fields: object) -> bool:
        events = [json.loads(line) for line in self.journal().splitlines() if line.startswith("{")]
        return any(line["event"] == event and fields.items() <= line.items() for line in events)

    def runs_version(self) -> str:
        """What the daemon that was started last said of itself."""
        events = [json.loads(line) for line in self.journal().splitlines() if line.startswith("{")]
        return str([event["version"] for event in events if event["event"] == "started"][-1])

    def files(self) -> set[str]:
        """Every file of the machine's disk with its kind, mode and (directories aside) size."""
        listing = ["find", "/", "-xdev", "-type", "d", "-printf", "%p %M\\n", "-o", "-printf", "%p %M %s\\n"]
        lines = self.init.execute(listing).stdout.splitlines()
        return {line for line in lines if not line.startswith(_SYSTEMS_OWN)}


@contextmanager
def cgroup() -> Iterator[Path]:
    """A control group for the machine; skips the test, saying why, where none can be made."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    group = roots[0] / f"priorityd-test-{os.getpid()}" if roots else None
    try:
        if group is None:
            raise OSError("no cgroup2 file system is mounted")  # noqa: TRY301 - one place says what is missing
        group.mkdir()
    except OSError as error:
        pytest.skip(f"a systemd can't be booted here: {error}")
    try:
        yield group
    finally:
        for child in sorted(group.rglob("*/"), reverse=True):
            if child.is_dir():
                child.rmdir()
        _remove_when_empty(group)


def _remove_when_empty(group: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            group.rmdir()
        except OSError:
            assert time.monotonic() < deadline, f"{group} is still in use"
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="module")
def with_releases(
    debian_with_systemd: Layer, releases: dict[str, Path], new_directory: Callable[[str], Path]
) -> Layer:
    """The same with the releases in /root."""
    layer = Layer.on(debian_with_systemd, new_directory("server") / "layer")
    for name, release in releases.items():
        shutil.copytree(release, layer.upper / "root" / name)
    return layer


@pytest.fixture(scope="module")
def prepared(with_releases: Layer, new_directory: Callable[[str], Path]) -> Layer:
    """The same with the packages in place, so that typing the installation there is quick."""
    layer = Layer.on(with_releases, new_directory("prepared") / "layer")
    lines = [line for line in typed("install").splitlines() if "/opt/priorityd" in line]
    layer.run(["/bin/sh", "-ec", "\n".join(["cd /root/this", *lines])])
    return layer


@contextmanager
def booted(base: Layer, directory: Path) -> Iterator[Machine]:
    layer = Layer.on(base, directory / "machine")
    with cgroup() as group, layer.authorities() as variables:
        boot = ["/usr/bin/env", "container=priorityd-test", "/lib/systemd/systemd"]
        enter = ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group)]
        with running(layer, "boot", boot, directory / "console", before=enter) as init:
            environment = dict(variable.split("=", 1) for variable in variables)
            deadline = time.monotonic() + 60
            while init.execute(["systemctl", "is-system-running"]).stdout.strip() not in _BOOTED:
                assert time.monotonic() < deadline, (directory / "console").read_text()
                time.sleep(0.2)
            yield Machine(init, environment)


@pytest.fixture
def machine(with_releases: Layer, new_directory: Callable[[str], Path]) -> Iterator[Machine]:
    """A server of its own for one test, where nothing was installed."""
    with booted(with_releases, new_directory("machine")) as machine:
        yield machine


@pytest.fixture
async def installed(
    stack: Stack, prepared: Layer, new_directory: Callable[[str], Path]
) -> AsyncIterator[Machine]:
    """A server of its own for one test, where the daemon runs."""
    with booted(prepared, new_directory("machine")) as machine:
        configure(machine, stack, "/root/this")
        await machine.types(typed("install"), "/root/this")
        await eventually(machine.is_live)
        yield machine


def configure(machine: Machine, stack: Stack, directory: str, **settings: object) -> int:
    """Put the files that the manual speaks of where its commands expect them; returns the daemon's port."""
    port = free_port()
    lines = {"SUPABASE_URL": stack.server.url, "PRIORITYD_HTTP_PORT": port} | NO_TIMER | settings
    machine.writes(f"{directory}/environment", "".join(f"{name}={value}\n" for name, value in lines.items()))
    machine.writes(f"{directory}/key", stack.server.service_role_key)
    return port


async def test_install_run_reload_upgrade_put_back_and_remove(stack: Stack, machine: Machine) -> None:
    app = stack.app
    tracked, workspace = app.repositories(3), app.workspace()
    before = machine.files()
    configure(machine, stack, "/root/this")

    await machine.types(typed("install"), "/root/this")
    await eventually(machine.is_live)
    app.add(workspace, tracked[0])
    await eventually(lambda: app.wrong_rows() == 0)
    await machine.types("systemctl status priorityd --no-pager --lines=3")

    assert "FAILED" not in await machine.types(typed("command"))

    await machine.types(typed("reload"))
    await eventually(lambda: machine.has_logged("resync_done", trigger="signal"))
    assert machine.is_in_state("active")

    for added, directory, version in (
        (tracked[1], "/root/next", f"{__version__}.post1"),
        (tracked[2], "/root/this", __version__),
    ):
        await machine.types(typed("upgrade"), directory)
        await eventually(machine.is_live)
        assert (await machine.types("/opt/priorityd/bin/priorityd --version")).split()[-1] == version
        assert machine.runs_version() == version
        app.add(workspace, added)
        await eventually(lambda: app.wrong_rows() == 0)

    assert [app.row(each)[0] for each in tracked] == ["high"] * len(tracked)
    await machine.types("systemctl stop priorityd")
    await machine.types(typed("command").replace("priorityd check", "priorityd rollback --yes"))
    assert {app.row(each) for each in tracked} == {("medium", False, 0)}

    await machine.types(typed("remove"))
    await machine.types("rm -f /root/this/key /root/this/environment")
    assert machine.files() ^ before == set()
    for question in (
        "getent passwd priorityd",
        "systemctl cat priorityd",
        "ls /run/credentials/priorityd.service",
    ):
        assert machine.init.execute(["/bin/sh", "-c", question]).returncode != 0, question
    assert stack.server.service_role_key not in machine.init.execute(["journalctl", "--no-pager"]).stdout


async def test_the_daemon_has_no_rights_and_its_secret_is_nobody_elses(
    stack: Stack, installed: Machine
) -> None:
    pid = installed.property("MainPID")
    status = await installed.types(f"cat /proc/{pid}/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(facts["Uid"].split()[0]) >= 61184, "a dynamic user"
    assert {facts[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0000000000000000"}
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    within = ["nsenter", "--target", pid, "--mount"]
    for directory in ("/", "/etc", "/usr", "/opt/priorityd", "/var", "/run"):
        touch = installed.init.execute([*within, "touch", f"{directory}/file"])
        assert "Read-only file system" in touch.stderr, directory
    user = facts["Uid"].split()[0]
    as_daemon = [*within, "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    search = ["find", "/", "-path", "/proc", "-prune", "-o", "-type", "d", "-writable", "-print"]
    # Its own, each of them: PrivateTmp and PrivateIPC.
    writable = ["/dev/mqueue", "/dev/shm", "/tmp", "/var/tmp"]
    assert sorted(installed.init.execute([*as_daemon, *search]).stdout.split()) == writable
    for directory in writable[1:]:
        program = f"{directory}/program"
        installed.init.execute([*within, "cp", "/usr/bin/true", program])
        assert installed.init.execute([*within, program]).returncode == 126, f"{program} is not to be run"
    key = stack.server.service_role_key
    assert key not in await installed.types(
        f"tr '\\0' '\\n' </proc/{pid}/environ; tr '\\0' ' ' </proc/{pid}/cmdline"
    )
    assert key not in installed.journal()


async def test_a_refused_key_is_not_tried_again_and_a_killed_daemon_is(
    stack: Stack, installed: Machine
) -> None:
    first = installed.property("MainPID")
    await installed.types("systemctl kill --signal=KILL priorityd")
    await eventually(lambda: installed.property("MainPID") not in ("0", first))
    await eventually(installed.is_live)
    installed.writes("/etc/priorityd/SUPABASE_SERVICE_ROLE_KEY", Keys.create().service_role)
    await installed.types("systemctl restart priorityd")
    # It tries the key for a minute first.
    await eventually(lambda: installed.is_in_state("failed"), 180)
    assert installed.property("ExecMainStatus") == "77"
    assert installed.property("NRestarts") in ("0", "1"), "it was not started again after 77"


async def test_a_daemon_that_stands_still_is_started_anew(installed: Machine) -> None:
    await installed.types("mkdir -p /etc/systemd/system/priorityd.service.d")
    installed.writes("/etc/systemd/system/priorityd.service.d/sooner.conf", "[Service]\nWatchdogSec=5\n")
    await installed.types("systemctl daemon-reload && systemctl restart priorityd")
    await eventually(installed.is_live)
    standing = installed.property("MainPID")
    await installed.types("systemctl kill --signal=STOP priorityd")
    await eventually(lambda: installed.property("MainPID") not in ("0", standing))
    await eventually(installed.is_live)
    assert installed.property("NRestarts") == "1"
    assert "Watchdog timeout" in installed.journal()


async def test_systemd_finds_nothing_to_say_about_the_unit(installed: Machine) -> None:
    done = installed.init.execute(["systemd-analyze", "verify", "/etc/systemd/system/priorityd.service"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={int(MOST_EXPOSURE * 10)}"]
    done = installed.init.execute([*command, "/etc/systemd/system/priorityd.service"])
    print(done.stdout[-200:])
    assert done.returncode == 0, done.stdout
