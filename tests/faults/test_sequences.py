"""Inserts, late rows, runs, kills, verdicts, promotions and backfills, in any order."""

from __future__ import annotations

import pytest

from tests.faults.harness import counted
from tests.faults.sequences import episodes
from tests.faults.worlds import World


@pytest.mark.parametrize(("dialect", "steps"), [("sqlite", 10_000), ("postgresql", 300)])
def test_any_order_of_steps_leaves_what_the_model_says(
    world: World, dialect: str, steps: int
) -> None:
    if world.dialect != dialect:
        pytest.skip(f"{dialect} alone")

    line = episodes(world.url, counted(steps))

    assert line.as_expected, line
