"""The tests bite: what loses or doubles rows elsewhere is noticed by the very same tests."""

from __future__ import annotations

import pytest

from tests.faults import arrivals, controls
from tests.faults.harness import counted
from tests.faults.kills import Undisturbed, sweep
from tests.faults.worlds import World


@pytest.fixture
def on_sqlite(short: World) -> World:
    if short.dialect != "sqlite":
        pytest.skip("SQLite alone")
    return short


def test_a_writer_of_two_transactions_is_noticed(short: World, expected: Undisturbed) -> None:
    line = sweep(
        "kill -9 (control: two transactions)", short, (controls.two_transactions,), expected,
        40, reach=0.6, control=True,
    )  # fmt: skip

    assert line.as_expected, line


def test_a_plain_watermark_is_noticed(short: World) -> None:
    kept = arrivals.commit_order_hole(short, 1)
    lost = arrivals.commit_order_hole(short, 1, controls.plain_watermark, control=True)

    assert kept.as_expected, kept
    assert lost.as_expected, lost


def test_default_transactions_of_sqlite_are_noticed(on_sqlite: World) -> None:
    kept = controls.at_the_same_moment(on_sqlite, counted(3))
    lost = controls.at_the_same_moment(on_sqlite, counted(3), control=True)

    assert kept.as_expected, kept
    assert lost.as_expected, lost
