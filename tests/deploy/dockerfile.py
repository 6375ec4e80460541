"""Does what a Dockerfile says, step by step, in clean roots: a stand-in for an engine where there is none.

It knows the instructions and forms that the project's Dockerfile uses, and refuses every other: no step is
passed over in silence.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser

from tests.deploy.clean_root import Layer

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Image:
    """A stage: its files and its configuration."""

    layer: Layer
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _DEFAULT_PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    ports: list[str] = field(default_factory=list)


class Builder:
    """Builds the last stage of a Dockerfile; `base` stands for the one image that its FROM lines name."""

    def __init__(self, dockerfile: Path, context: Path, base: Layer, directory: Path) -> None:
        self._instructions = DockerfileParser(fileobj=io.BytesIO(dockerfile.read_bytes())).structure
        self._context = context
        self._base = base
        self._directory = directory
        self._globals: dict[str, str] = {}
        self._stages: dict[str, Image] = {}
        self._image: Image | None = None

    def build(self) -> Image:
        """Run every instruction. Raises `ValueError` for one that is not known."""
        for instruction in self._instructions:
            name, value = instruction["instruction"], instruction["value"]
            if name == "COMMENT":
                continue
            handler = getattr(self, f"_do_{name.lower()}", None)
            if handler is None:
                raise ValueError(f"{name} is not known here")
            handler(value)
        return self._current

    @property
    def _current(self) -> Image:
        assert self._image is not None, "FROM comes first"
        return self._image

    def _words(self, value: str) -> list[str]:
        known = self._globals if self._image is None else self._image.arguments | self._image.environment
        return [_expanded(word, known) for word in shlex.split(value)]

    def _do_arg(self, value: str) -> None:
        name, _, default = value.partition("=")
        (self._globals if self._image is None else self._image.arguments)[name] = default

    def _do_from(self, value: str) -> None:
        image, *alias = value.split()
        if _expanded(image, self._globals) != self._globals["BASE"]:
            raise ValueError(f"FROM {image}: there is one base image only")
        name = alias[1] if alias else str(len(self._stages))
        self._image = self._stages[name] = Image(Layer.on(self._base, self._directory / name))

    def _do_run(self, value: str) -> None:
        image = self._current
        script = f"cd {shlex.quote(image.workdir)} && {{ {value}\n}}"
        image.layer.run(["/bin/sh", "-c", script], image.arguments | image.environment)

    def _do_workdir(self, value: str) -> None:
        self._current.workdir = value
        self._current.layer.run(["/bin/mkdir", "-p", value])

    def _do_copy(self, value: str) -> None:
        *sources, target = self._words(value)
        origin: Path | Layer = self._context
        if sources[0].startswith("--from="):
            origin = self._stages[sources.pop(0).removeprefix("--from=")].layer
        elif sources[0].startswith("--"):
            raise ValueError(f"COPY {sources[0]} is not known here")
        for source in sources:
            path = origin.path(source) if isinstance(origin, Layer) else origin / source
            _copy(path, self._current.layer.upper / target.lstrip("/"), into=target.endswith("/"))

    def _do_env(self, value: str) -> None:
        self._current.environment |= _pairs(self._words(value))

    def _do_label(self, value: str) -> None:
        self._current.labels |= _pairs(self._words(value))

    def _do_user(self, value: str) -> None:
        self._current.user = value

    def _do_expose(self, value: str) -> None:
        self._current.ports += value.split()

    def _do_stopsignal(self, value: str) -> None:
        self._current.stop_signal = value

    def _do_healthcheck(self, value: str) -> None:
        # Only the form without a shell.
        self._current.health_check = json.loads(value[value.index("CMD ") + 4 :])

    def _do_entrypoint(self, value: str) -> None:
        self._current.entrypoint = json.loads(value)

    def _do_cmd(self, value: str) -> None:
        self._current.command = json.loads(value)


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def _expanded(word: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], word)


def _copy(source: Path, target: Path, *, into: bool) -> None:
    # As COPY does: the contents of a directory, or a file (into a directory if the target ends in a slash).
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=ignore)
        return
    destination = target / source.name if into else target
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
