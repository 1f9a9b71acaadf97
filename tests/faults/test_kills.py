"""Killed at any instant, restarted any number of times: the same tables as if nothing was."""

from __future__ import annotations

from tests.faults.harness import counted
from tests.faults.kills import FITS, SCORING, SEGMENTS, Undisturbed, sweep, terminated, undisturbed
from tests.faults.worlds import World


def test_killed_scorings_leave_what_an_undisturbed_one_leaves(world: World) -> None:
    line = sweep(
        "kill -9 in scoring", world, SCORING, undisturbed(world, SCORING), counted(252),
        reach=0.12, seconds=1.5,
    )  # fmt: skip

    assert line.as_expected, line


def test_killed_scorings_of_customers_leave_what_undisturbed_ones_leave(world: World) -> None:
    line = sweep("kill -9 in segments", world, SEGMENTS, undisturbed(world, SEGMENTS), counted(102))

    assert line.as_expected, line


def test_a_killed_fit_leaves_no_half_model_and_the_champion_as_it_was(world: World) -> None:
    line = sweep(
        "kill -9 in fits", world, FITS, undisturbed(world, FITS), counted(102), seconds=2.0
    )

    assert line.as_expected, line


def test_runs_that_are_told_to_stop_end_politely_and_lose_nothing(
    short: World, expected: Undisturbed
) -> None:
    line = terminated(short, expected, counted(30))

    assert line.as_expected, line
