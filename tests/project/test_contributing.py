"""CONTRIBUTING.md and the picture of the house that it points to."""

from __future__ import annotations

import re

from tests.benchmarks.__main__ import BENCHMARKS
from tests.project.picture import ROOT, climbs, order_of_rooms, way_of_a_change

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_no_room_knows_one_above_it() -> None:
    assert climbs() == []


def test_every_room_is_in_the_picture() -> None:
    for room in set(order_of_rooms()) - {"cli"}:
        assert re.search(rf"\b{room}  ", TEXT), room


def test_the_way_of_a_change_is_told_as_it_is() -> None:
    for path in way_of_a_change():
        assert (ROOT / path).is_file(), path
        assert f"`{path}`" in TEXT, path


def test_every_benchmark_is_named() -> None:
    for name in BENCHMARKS:
        assert f"`{name}`" in TEXT, name


def test_it_points_at_files_that_exist() -> None:
    for path in re.findall(r"`((?:core|daemon|migrations|deploy|tests)/[\w./*]*)`", TEXT):
        if "/X" not in path:
            assert list(ROOT.glob(path.rstrip("/"))), path
