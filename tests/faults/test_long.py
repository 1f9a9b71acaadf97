"""A year of slots, and more rows than fit at once."""

from __future__ import annotations

import sys

import pytest

from tests.faults import long
from tests.faults.harness import counted
from tests.faults.worlds import World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.mark.parametrize(("dialect", "days"), [("sqlite", 365), ("postgresql", 30)])
def test_a_year_of_daily_slots_loses_none_and_stays_flat(
    world: World, dialect: str, days: int
) -> None:
    if world.dialect != dialect:
        pytest.skip(f"{dialect} alone")

    line = long.year(world, counted(days))

    assert line.as_expected, line


def test_memory_does_not_grow_with_the_rows(world: World) -> None:
    if world.dialect != "sqlite":
        pytest.skip("the rows are read in the same slices from either database")

    line = long.bounded(world)

    assert line.as_expected, line
