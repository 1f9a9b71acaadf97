"""Rows that come late or are broken, runs in any portions, clocks that jump, lost databases."""

from __future__ import annotations

from tests.faults import arrivals
from tests.faults.harness import counted
from tests.faults.kills import SCORING, Undisturbed, undisturbed
from tests.faults.worlds import World, without_the_future
from tests.small_bank import copies


def test_rows_that_are_committed_out_of_order_are_scored(short: World) -> None:
    line = arrivals.commit_order_hole(short, counted(3))

    assert line.as_expected, line


def test_rows_beyond_the_look_back_are_counted_shown_and_left_to_a_backfill(short: World) -> None:
    line = arrivals.beyond_the_look_back(short, counted(3))

    assert line.as_expected, line


def test_portions_and_orders_make_no_difference(short: World, expected: Undisturbed) -> None:
    line = arrivals.in_portions(short, expected, counted(4))

    assert line.as_expected, line


def test_jumps_of_the_clock_make_no_difference(short: World) -> None:
    with copies(short.url) as url:
        world = without_the_future(short.copy(url))
        line = arrivals.clock_jumps(world, undisturbed(world, SCORING), counted(3))

    assert line.as_expected, line


def test_a_run_heals_results_that_were_restored(short: World, expected: Undisturbed) -> None:
    line = arrivals.results_restored(short, expected, counted(3))

    assert line.as_expected, line


def test_verify_names_the_orphans_of_a_restored_source(short: World) -> None:
    line = arrivals.source_restored(short, counted(3))

    assert line.as_expected, line


def test_poison_rows_are_quarantined_and_the_others_scored(short: World) -> None:
    line = arrivals.poison(short, counted(3))

    assert line.as_expected, line


def test_rows_that_change_during_a_run_are_scored_once_or_named(short: World) -> None:
    line = arrivals.source_changes(short, counted(3))

    assert line.as_expected, line
