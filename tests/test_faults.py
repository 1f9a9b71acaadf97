"""Faults in their short form; `make faults` makes each of them often."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults import arrivals, controls, harness, kills, outages, rivals
from tests.faults.harness import Line
from tests.faults.kills import FITS, SCORING, SEGMENTS, Undisturbed, sweep, undisturbed
from tests.faults.worlds import World, prepared, world_of
from tests.small_bank import copies

Fault = Callable[[World, Undisturbed, int], Line]
EITHER: tuple[Fault, ...] = (rivals.five_at_once, rivals.paused_holders, outages.locked)
POSTGRESQL: tuple[Fault, ...] = (
    outages.sessions_ended,
    outages.deadlocked,
    outages.unserialisable,
    outages.connections_cut,
    outages.answers_lost,
)


def a_world(request: pytest.FixtureRequest, dialect: str) -> Iterator[World]:
    with copies(request.getfixturevalue(f"fitted_{dialect}")) as url:
        harness.done(lambda: prepared(url))
        yield world_of(url, 2)


@pytest.fixture(scope="module")
def on_sqlite(request: pytest.FixtureRequest) -> Iterator[World]:
    yield from a_world(request, "sqlite")


@pytest.fixture(scope="module")
def on_postgresql(request: pytest.FixtureRequest) -> Iterator[World]:
    yield from a_world(request, "postgresql")


@pytest.fixture(scope="module")
def left_on_sqlite(on_sqlite: World) -> Undisturbed:
    return undisturbed(on_sqlite, SCORING)


@pytest.fixture(scope="module")
def left_on_postgresql(on_postgresql: World) -> Undisturbed:
    return undisturbed(on_postgresql, SCORING)


@pytest.mark.parametrize("fault", [*EITHER, outages.disk_full, arrivals.in_portions,
                                   arrivals.results_restored])  # fmt: skip
def test_on_sqlite_nothing_is_lost_or_doubled(
    on_sqlite: World, left_on_sqlite: Undisturbed, fault: Fault
) -> None:
    line = fault(on_sqlite, left_on_sqlite, 1)

    assert line.as_expected, line


@pytest.mark.parametrize("fault", [*EITHER, *POSTGRESQL])
def test_on_postgresql_nothing_is_lost_or_doubled(
    on_postgresql: World, left_on_postgresql: Undisturbed, fault: Fault
) -> None:
    line = fault(on_postgresql, left_on_postgresql, 1)

    assert line.as_expected, line


def test_killed_scorings_leave_what_an_undisturbed_one_leaves(
    on_sqlite: World, left_on_sqlite: Undisturbed
) -> None:
    line = sweep("kill -9 in scoring", on_sqlite, SCORING, left_on_sqlite, 5)

    assert line.as_expected, line


def test_killed_scorings_on_postgresql_leave_what_an_undisturbed_one_leaves(
    on_postgresql: World, left_on_postgresql: Undisturbed
) -> None:
    line = sweep("kill -9 in scoring", on_postgresql, SCORING, left_on_postgresql, 3)

    assert line.as_expected, line


@pytest.mark.parametrize("steps", [SEGMENTS[:1], FITS[:1]], ids=["segments", "fit"])
def test_killed_jobs_leave_what_undisturbed_ones_leave(
    on_sqlite: World, steps: tuple[kills.Step, ...]
) -> None:
    line = sweep("kill -9", on_sqlite, steps, undisturbed(on_sqlite, steps), 3)

    assert line.as_expected, line


@pytest.mark.parametrize(
    "fault", [arrivals.commit_order_hole, arrivals.source_restored, arrivals.poison]
)
def test_rows_of_any_kind_and_any_order_are_accounted_for(
    on_sqlite: World, fault: Callable[[World, int], Line]
) -> None:
    line = fault(on_sqlite, 1)

    assert line.as_expected, line


def test_what_peerwatch_does_not_do_is_noticed(
    on_sqlite: World, left_on_sqlite: Undisturbed
) -> None:
    lines = [
        controls.killed_between(on_sqlite, left_on_sqlite),
        arrivals.commit_order_hole(on_sqlite, 1, controls.plain_watermark, control=True),
        controls.at_the_same_moment(on_sqlite, 1, control=True),
    ]

    assert [line for line in lines if not line.as_expected] == []
