"""Databases that end sessions, die, deadlock, are locked, are full, or cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy.engine import make_url

from tests.conftest import execute
from tests.faults import harness, outages
from tests.faults.harness import counted
from tests.faults.kills import SCORING, Undisturbed, undisturbed
from tests.faults.servers import Server, own_server
from tests.faults.worlds import World, prepared, world_of
from tests.small_bank import fitted_bank


@dataclass(frozen=True)
class There:
    """A server that may be killed, over TCP, a world on it, and what a scoring leaves."""

    server: Server
    world: World
    expected: Undisturbed


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with own_server() as server:
        execute(server.url, "CREATE DATABASE world TEMPLATE template0")
        url = make_url(server.url).set(database="world").render_as_string(hide_password=False)
        harness.done(lambda: fitted_bank(url) and prepared(url))
        world = world_of(url, 2)
        yield There(server, world, undisturbed(world, SCORING))


@pytest.fixture
def on_sqlite(short: World) -> World:
    if short.dialect != "sqlite":
        pytest.skip("SQLite alone")
    return short


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (outages.sessions_ended, 10),
        (outages.deadlocked, 3),
        (outages.unserialisable, 3),
        (outages.locked, 3),
        (outages.connections_cut, 6),
        (outages.answers_lost, 10),
    ],
)
def test_a_run_on_postgresql_survives(there: There, fault: outages.Outage, times: int) -> None:
    line = fault(there.world, there.expected, counted(times))

    assert line.as_expected, line


def test_a_killed_server_loses_nothing(there: There) -> None:
    line = outages.server_killed(there.server, there.world, there.expected, counted(6))

    assert line.as_expected, line


def test_tables_of_postgresql_that_cannot_grow_lose_nothing(there: There) -> None:
    line = outages.server_disk_full(there.server, there.world, there.expected, counted(10))

    assert line.as_expected, line


@pytest.mark.parametrize(("fault", "times"), [(outages.locked, 3), (outages.disk_full, 10)])
def test_a_run_on_sqlite_survives(
    on_sqlite: World, expected: Undisturbed, fault: outages.Outage, times: int
) -> None:
    line = fault(on_sqlite, expected, counted(times))

    assert line.as_expected, line
