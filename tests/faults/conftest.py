"""Worlds for the faults, and the table of what was done, printed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults import harness
from tests.faults.kills import SCORING, Undisturbed, undisturbed
from tests.faults.worlds import World, prepared, world_of
from tests.small_bank import copies


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if harness.TOLD:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(harness.table()))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def template(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a world that nothing has disturbed yet; tests work on copies of it."""
    fitted = request.getfixturevalue(f"fitted_{request.param}")
    with copies(fitted) as url:
        harness.done(lambda: prepared(url))
        yield url


@pytest.fixture(scope="session")
def world(template: str) -> World:
    """Eight days to be scored, in eight slices."""
    return world_of(template, 8)


@pytest.fixture(scope="session")
def short(template: str) -> World:
    """Two days to be scored."""
    return world_of(template, 2)


@pytest.fixture(scope="session")
def expected(short: World) -> Undisturbed:
    """What a scoring of the short world leaves where nothing disturbs it."""
    return undisturbed(short, SCORING)
