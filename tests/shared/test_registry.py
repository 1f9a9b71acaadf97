"""Models in the database: one champion, the way back, and nothing read that was changed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from shared import registry
from shared.cli import cli
from shared.database import lock
from shared.errors import ConfigurationError, PeerwatchError
from shared.runs import Results
from tests.builders import make_results, toml

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
WINDOW = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture
def results(database) -> Results:
    return make_results(database)


def a_model(
    connection, results: Results, seed: int = 0, kind: str = "fraudwatch", minutes: int = 0
):
    return registry.store(
        connection,
        results.tables,
        kind,
        {"kind": kind, "seed": seed},
        {"weights": np.arange(3.0) + seed},
        now=NOW + timedelta(minutes=minutes),
        window=WINDOW,
        rows=100,
        metrics={"auc": 0.9},
        card={"purpose": "größe"},
    )


def statuses(connection, results: Results) -> dict[str, str]:
    table = results.tables.model_versions
    rows = connection.execute(sa.select(table.c.model_version_id, table.c.status))
    return dict(tuple(row) for row in rows)


def later(minutes: int) -> datetime:
    return NOW + timedelta(minutes=minutes)


def test_a_stored_model_comes_back_whole(results):
    with results.transaction() as connection:
        name, new = a_model(connection, results)
        found = registry.load(connection, results.tables, name)

    assert new
    assert name.startswith("fraudwatch-20260301-")
    assert (found.kind, found.status) == ("fraudwatch", "candidate")
    assert (found.trained_from, found.trained_to) == WINDOW
    assert found.metrics == {"auc": 0.9}
    assert found.header == {"kind": "fraudwatch", "seed": 0}
    np.testing.assert_array_equal(found.arrays["weights"], [0.0, 1.0, 2.0])


def test_the_same_fit_twice_is_one_model(results):
    with results.transaction() as connection:
        first, _ = a_model(connection, results)
        registry.promote(connection, results.tables, first, by="gate", now=NOW)
        again, new = a_model(connection, results, minutes=5)
        other, _ = a_model(connection, results, seed=1)

        assert (again, new) == (first, False)
        assert other != first
        assert statuses(connection, results) == {first: "champion", other: "candidate"}


def test_a_candidate_is_no_champion(results):
    with results.transaction() as connection:
        a_model(connection, results)

        assert registry.champion(connection, results.tables, "fraudwatch") is None


def test_a_kind_has_one_champion(results):
    with results.transaction() as connection:
        names = [a_model(connection, results, seed)[0] for seed in range(3)]
        segments, _ = a_model(connection, results, kind="segmenter")
        registry.promote(connection, results.tables, segments, by="gate", now=NOW)
        for minutes, name in enumerate(names):
            kind = registry.promote(connection, results.tables, name, by="Ada", now=later(minutes))
            assert kind == "fraudwatch"

        champion = registry.champion(connection, results.tables, "fraudwatch")
        found = statuses(connection, results)

    assert champion.model_version_id == names[2]
    assert [found[name] for name in names] == ["retired", "retired", "champion"]
    assert found[segments] == "champion"


def test_the_way_back_leads_to_the_champion_before(results):
    with results.transaction() as connection:
        first, second, never = (a_model(connection, results, seed)[0] for seed in range(3))
        registry.promote(connection, results.tables, first, by="gate", now=later(1))
        registry.promote(connection, results.tables, second, by="gate", now=later(2))

        back = registry.earlier_champion(connection, results.tables, "fraudwatch")
        registry.promote(connection, results.tables, back, by="Ada", now=later(3))

        assert back == first
        assert statuses(connection, results) == {
            first: "champion", second: "retired", never: "candidate",
        }  # fmt: skip
        card = registry.card(connection, results.tables, first)
        assert (card["promoted_by"], card["promoted_at"]) == ("Ada", later(3))


def test_there_is_no_way_back_from_the_first_champion(results):
    with results.transaction() as connection:
        name, _ = a_model(connection, results)
        a_model(connection, results, seed=1)
        registry.promote(connection, results.tables, name, by="gate", now=NOW)

        with pytest.raises(PeerwatchError, match="no earlier champion of fraudwatch"):
            registry.earlier_champion(connection, results.tables, "fraudwatch")


@pytest.mark.parametrize("what", ["load", "promote", "card"])
def test_a_model_that_is_not_there_is_named(results, what):
    call = getattr(registry, what)
    more = {"by": "Ada", "now": NOW} if what == "promote" else {}

    with (
        pytest.raises(ConfigurationError, match=r"no model nothing.*peerwatch models list"),
        results.transaction() as connection,
    ):
        call(connection, results.tables, "nothing", **more)


def test_changed_bytes_are_never_read(results):
    table = results.tables.model_versions
    with results.transaction() as connection:
        name, _ = a_model(connection, results)
        registry.promote(connection, results.tables, name, by="gate", now=NOW)
        data = connection.execute(sa.select(table.c.artifact)).scalar_one()
        flipped = bytes(data[:-1]) + bytes([data[-1] ^ 1])
        connection.execute(sa.update(table).values(artifact=flipped))

        for read in (
            lambda: registry.champion(connection, results.tables, "fraudwatch"),
            lambda: registry.load(connection, results.tables, name),
        ):
            with pytest.raises(PeerwatchError, match="SHA-256"):
                read()


def test_the_gate_is_kept(results):
    with results.transaction() as connection:
        name, _ = a_model(connection, results)
        gate = {"passed": False, "reason": "held-out likelihood is worse"}

        registry.record_gate(connection, results.tables, name, gate)

        assert registry.card(connection, results.tables, name)["gate"] == gate


def test_models_are_listed_newest_first_without_their_arrays(results):
    with results.transaction() as connection:
        names = [a_model(connection, results, seed, minutes=seed)[0] for seed in range(3)]

        found = registry.listed(connection, results.tables)

    assert [item["model_version_id"] for item in found] == names[::-1]
    assert all("artifact" not in item for item in found)
    assert found[0]["rows"] == 100


def champions(results: Results) -> list[str]:
    with results.transaction() as connection:
        return sorted(n for n, s in statuses(connection, results).items() if s == "champion")


@pytest.mark.parametrize("first", [True, False], ids=["first champions", "later ones"])
def test_of_two_that_promote_at_once_the_second_waits_and_leads_alone(results, first):
    if not first:
        with results.transaction() as connection:
            before, _ = a_model(connection, results, 2)
            registry.promote(connection, results.tables, before, by="gate", now=NOW)

    def fit(seed: int) -> str:
        with results.transaction() as connection:
            name, _ = a_model(connection, results, seed)
            registry.promote(connection, results.tables, name, by="gate", now=later(seed))
        return name

    with ThreadPoolExecutor(1) as beside:
        with results.transaction() as connection:
            one, _ = a_model(connection, results)
            registry.promote(connection, results.tables, one, by="gate", now=later(0))
            waiting = beside.submit(fit, 1)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
        other = waiting.result(10)

    assert champions(results) == [other]


def test_a_ranker_waits_for_the_writers_of_its_domain(results):
    with results.transaction() as connection:
        name, _ = a_model(connection, results, kind="ranker")

    def promote() -> None:
        with results.transaction() as connection:
            registry.promote(connection, results.tables, name, by="Ada", now=NOW)

    with ThreadPoolExecutor(1) as beside:
        with results.transaction() as connection:
            lock(connection, results.tables.lock("fraudwatch"))
            waiting = beside.submit(promote)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
        waiting.result(10)

    assert champions(results) == [name]


def test_the_database_itself_refuses_a_second_champion(results):
    table = results.tables.model_versions
    with results.transaction() as connection:
        first, _ = a_model(connection, results)
        a_model(connection, results, seed=1)
        registry.promote(connection, results.tables, first, by="gate", now=NOW)

    with (
        pytest.raises(PeerwatchError, match=r"(?i)unique.*(one_champion|model_versions\.kind)"),
        results.transaction() as connection,
    ):
        connection.execute(sa.update(table).values(status="champion"))

    assert champions(results) == [first]


@pytest.mark.parametrize("words", [("promote", "{0}"), ("rollback", "fraudwatch")], ids=" ".join)
def test_a_dry_run_says_who_would_be_champion(results, tmp_path, words):
    url = results.engine.url.render_as_string(hide_password=False)
    (tmp_path / "peerwatch.toml").write_text(toml(url))
    with results.transaction() as connection:
        before, now = (a_model(connection, results, seed)[0] for seed in range(2))
        registry.promote(connection, results.tables, before, by="gate", now=later(0))
        registry.promote(connection, results.tables, now, by="gate", now=later(1))
    typed = ["--config", str(tmp_path / "peerwatch.toml"), "models"]
    typed += [word.format(before) for word in words] + ["--by", "Ada"]

    said = [
        CliRunner().invoke(cli, [*typed, "--dry-run", *more]).output for more in ([], ["--json"])
    ]

    assert said[0].startswith(f"{before} would be champion")
    assert json.loads(said[1]) == {"would_be_champion": before}
    assert champions(results) == [now]
    assert CliRunner().invoke(cli, typed).output.startswith(f"{before} is champion")
    assert champions(results) == [before]


def test_a_promotion_of_the_champion_changes_nothing(results):
    with results.transaction() as connection:
        name, _ = a_model(connection, results, 0)
        registry.promote(connection, results.tables, name, by="gate", now=later(0))
        registry.promote(connection, results.tables, name, by="Ada", now=later(1))
        card = registry.card(connection, results.tables, name)

    assert (card["promoted_by"], card["promoted_at"]) == ("gate", later(0))
