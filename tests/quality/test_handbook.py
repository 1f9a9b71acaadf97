"""The handbook's 1,754,155 payments from init to the figures, labels unknown to what is fitted.

Run: python -m pytest tests/quality/test_handbook.py -s
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builders import run_sql
from tests.quality import commands
from tests.quality.commands import Done

ROWS, SCORED = 1_754_155, 134_055  # all payments, and those of 2018-08-01 to 14
MOST_MEMORY = 2.5 * 2**30
INDEX = "CREATE INDEX by_time ON transactions (TX_DATETIME)"  # without, `score` stops with it
LIKELIHOOD, AMOUNT = "peerwatch (log_likelihood)", "rule: amount"


@pytest.fixture(scope="module")
def folder(bank: Callable[[str], Path]) -> Path:
    return bank("handbook")


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    """Every command as a user types it; the labels come back for `evaluate` alone."""
    run: dict[str, Done] = {}
    run["init"] = commands.peerwatch(folder, "init", "--url", "sqlite:///bank.db")
    run_sql(f"sqlite:///{folder / 'bank.db'}", INDEX)
    proposed = (folder / "peerwatch.toml").read_text(encoding="utf-8")
    scoped = commands.with_setting(proposed, "fraudwatch", "score_from = 2018-08-01")
    (folder / "labelled.toml").write_text(scoped, encoding="utf-8")
    (folder / "peerwatch.toml").write_text(commands.without_labels(scoped), encoding="utf-8")
    fit = ("fraudwatch", "fit", "--from", "2018-06-01", "--until", "2018-08-01")
    run["fit"] = commands.peerwatch(folder, *fit)
    run["score"] = commands.peerwatch(folder, "fraudwatch", "score", "--until", "2018-08-15")
    run["report"] = commands.peerwatch(folder, "fraudwatch", "report")
    run["verify"] = commands.peerwatch(folder, "verify")
    evaluate = ("fraudwatch", "evaluate", "--label", "TX_FRAUD", "--config", "labelled.toml")
    run["evaluate"] = commands.peerwatch(folder, *evaluate)
    print(commands.costs(run))
    return run


@pytest.fixture(scope="module")
def figures(done: dict[str, Done]) -> dict[str, dict[str, Any]]:
    """The figures of each score by its name, printed as a table."""
    table = {row["score"]: row for row in done["evaluate"].data["scores"]}
    names = [name for name in next(iter(table.values())) if name != "score"]
    rows = [
        {"figure": name, **{score: row[name] for score, row in table.items()}} for name in names
    ]
    found = done["evaluate"].data
    title = f"{found['frauds']:,} frauds among {found['rows']:,} payments, 2018-08-01 to 14"
    print(commands.markdown(rows, title))
    return table


def test_init_proposes_the_mapping(folder: Path, done: dict[str, Done]) -> None:
    mapped = done["init"].data["mapping"]

    assert mapped["table"] == "transactions"
    keys = ("id", "time", "customer", "counterparty", "amount", "label", "label_kind")
    assert [mapped[key] for key in keys] == [
        "TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT",
        "TX_FRAUD", "TX_FRAUD_SCENARIO",
    ]  # fmt: skip


def test_nothing_that_is_fitted_knows_a_label(folder: Path, done: dict[str, Done]) -> None:
    fitted = tomllib.loads((folder / "peerwatch.toml").read_text(encoding="utf-8"))

    assert not [key for key in fitted["source"]["transactions"] if key.startswith("label")]
    card = commands.select(folder / "bank.db", "SELECT card FROM model_versions").card[0]
    assert "TX_FRAUD" not in card


def test_every_row_is_accounted_for(folder: Path, done: dict[str, Done]) -> None:
    sums = commands.books(folder / "bank.db")
    print(f"\n{sums.to_frame('rows').T.to_string(index=False)}")

    assert done["score"].data["scored"] == sums.scored == SCORED
    assert sums.source_rows == ROWS
    assert sums.before_scope + sums.scored + sums.quarantined + sums.pending == ROWS
    assert (sums.quarantined, sums.too_late, sums.gone) == (0, 0, 0)
    assert all(check["rows"] == 0 for check in done["verify"].data["checks"])


def test_scoring_again_finds_nothing_to_do(folder: Path, done: dict[str, Done]) -> None:
    again = commands.peerwatch(folder, "fraudwatch", "score", "--until", "2018-08-15")

    assert (again.data["scored"], again.data["alerts"]) == (0, 0)


def test_memory_stays_below_its_bound(done: dict[str, Done]) -> None:
    assert done["score"].peak_bytes < MOST_MEMORY
    assert done["fit"].peak_bytes < MOST_MEMORY


def test_every_alert_has_its_reasons(folder: Path, done: dict[str, Done]) -> None:
    alerts = commands.select(
        folder / "bank.db",
        "SELECT summary, (SELECT count(*) FROM fraud_alert_reasons r "
        "WHERE r.alert_id = a.alert_id) AS reasons FROM fraud_alerts a",
    )

    assert len(alerts) == done["score"].data["alerts"] > 0
    assert (alerts.reasons > 0).all()
    assert (alerts.summary.str.len() > 0).all()


def test_the_report_is_small(folder: Path, done: dict[str, Done]) -> None:
    assert (folder / "fraudwatch_report.html").stat().st_size < 2_000_000


def test_the_likelihood_beats_the_amount_on_scenario_3(figures: dict[str, dict[str, Any]]) -> None:
    assert figures[LIKELIHOOD]["AP kind 3"] > figures[AMOUNT]["AP kind 3"]


def test_the_figures_stand_beside_those_of_the_rules(figures: dict[str, dict[str, Any]]) -> None:
    wanted = {"AUC", "AP", "Card Precision@100", "value found@100"}
    wanted |= {f"{figure} kind {scenario}" for figure in ("AUC", "AP") for scenario in (1, 2, 3)}

    assert all(wanted <= set(row) for row in figures.values())
    assert {AMOUNT, "rule: amount over own mean"} < set(figures)
