"""Rows that come late or are broken, runs in any portions, clocks that jump, lost databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import arrivals
from tests.faults.harness import Line, counted
from tests.faults.kills import SCORING, Undisturbed, undisturbed
from tests.faults.worlds import World, without_the_future
from tests.small_bank import copies


@pytest.mark.parametrize(
    "fault",
    [
        arrivals.commit_order_hole,
        arrivals.beyond_the_look_back,
        arrivals.source_restored,
        arrivals.poison,
        arrivals.source_changes,
    ],
)
def test_rows_of_any_kind_and_any_order_are_accounted_for(
    short: World, fault: Callable[[World, int], Line]
) -> None:
    line = fault(short, counted(3))

    assert line.as_expected, line


@pytest.mark.parametrize(
    ("fault", "times"), [(arrivals.in_portions, 4), (arrivals.results_restored, 3)]
)
def test_the_tables_are_those_of_an_undisturbed_run(
    short: World,
    expected: Undisturbed,
    fault: Callable[[World, Undisturbed, int], Line],
    times: int,
) -> None:
    line = fault(short, expected, counted(times))

    assert line.as_expected, line


def test_jumps_of_the_clock_make_no_difference(short: World) -> None:
    with copies(short.url) as url:
        world = without_the_future(short.copy(url))
        line = arrivals.clock_jumps(world, undisturbed(world, SCORING), counted(3))

    assert line.as_expected, line
