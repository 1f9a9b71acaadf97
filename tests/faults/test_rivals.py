"""Many runners: one works, whoever was overtaken writes nothing, a killed helper costs a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.harness import Line, counted
from tests.faults.kills import Undisturbed
from tests.faults.rivals import five_at_once, paused_holders, workers_killed
from tests.faults.worlds import World


@pytest.mark.parametrize(
    ("fault", "times"), [(five_at_once, 5), (paused_holders, 5), (workers_killed, 4)]
)
def test_of_many_runners_one_works(
    short: World,
    expected: Undisturbed,
    fault: Callable[[World, Undisturbed, int], Line],
    times: int,
) -> None:
    line = fault(short, expected, counted(times))

    assert line.as_expected, line
