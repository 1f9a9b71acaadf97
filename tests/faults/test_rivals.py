"""Many runners: one works, and whoever was overtaken writes nothing."""

from __future__ import annotations

from tests.faults.harness import counted
from tests.faults.kills import Undisturbed
from tests.faults.rivals import five_at_once, paused_holders, workers_killed
from tests.faults.worlds import World


def test_of_five_runners_of_a_slot_one_works(short: World, expected: Undisturbed) -> None:
    line = five_at_once(short, expected, counted(5))

    assert line.as_expected, line


def test_a_paused_holder_that_was_overtaken_writes_nothing(
    short: World, expected: Undisturbed
) -> None:
    line = paused_holders(short, expected, counted(5))

    assert line.as_expected, line


def test_a_killed_worker_costs_a_run_and_no_row(short: World, expected: Undisturbed) -> None:
    line = workers_killed(short, expected, counted(4))

    assert line.as_expected, line
