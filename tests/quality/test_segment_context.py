"""What the customer's segment does for the density as its context, beside the density without it.

The segments are those recorded before: fitted at the start of the training window and assigned
again each month. Figures are of the transactions after the window, which neither model has seen.

Run: python -m pytest tests/quality/test_segment_context.py -s
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fraudwatch import evaluation
from shared import demo, synthetic
from tests.quality import commands

SEEDS = range(3)
SEEN: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Protocol:
    """The training window, the end of what is scored, and the moments of the assignments.

    history_days: days of the source before the window. Segments look no further back, so that no
    customer leaves them because the history has grown longer.
    """

    history_days: int
    since: str
    until: str
    end: str
    assigned: Sequence[str]

    @classmethod
    def of_demo(cls, world: synthetic.World) -> Protocol:
        """A month that forms the segments, training up to the demo's own split, five weeks."""
        last = pd.to_datetime(world.transactions.booked_at, errors="coerce").max().normalize()
        until = last - pd.Timedelta(days=demo.SCORED_DAYS - 1)
        since = synthetic.START + pd.Timedelta(days=30)
        moments = (since, until, last + pd.Timedelta(days=1), since + pd.Timedelta(days=30))
        first, split, end, second = (f"{moment:%Y-%m-%d}" for moment in moments)
        return cls(30, first, split, end, (first, second))


HANDBOOK = Protocol(61, "2018-06-01", "2018-08-01", "2018-08-15", ("2018-06-01", "2018-07-01"))
ANZ = Protocol(14, "2018-08-15", "2018-10-01", "2018-11-01", ("2018-08-15", "2018-09-01"))


@pytest.fixture(scope="module", autouse=True)
def printed() -> Iterator[None]:
    """The table of what both models have shown, at the end."""
    yield
    print(commands.markdown(SEEN, "The segment as context of the density"))


def both(folder: Path, protocol: Protocol) -> Iterator[tuple[str, pd.DataFrame]]:
    """The scores after the window, without and with the segment, each by its setting."""
    commands.peerwatch(folder, "init", "--url", "sqlite:///bank.db")
    config = folder / "peerwatch.toml"
    proposed = commands.without_labels(config.read_text(encoding="utf-8"))
    lookback = f"lookback_days = {protocol.history_days}"
    proposed = commands.with_setting(proposed, "segmenter", lookback)
    config.write_text(proposed, encoding="utf-8")
    _segments(folder, protocol)
    for value in ("false", "true"):
        line = f"segment_context = {value}"
        config.write_text(commands.with_setting(proposed, "fraudwatch", line), encoding="utf-8")
        fit = ("fraudwatch", "fit", "--from", protocol.since, "--until", protocol.until)
        fitted = commands.peerwatch(folder, *fit).data
        assert "segment" not in fitted["left_out"], fitted["left_out"]
        yield value, _scored(folder, fitted["model_version_id"], protocol)


def _segments(folder: Path, protocol: Protocol) -> None:
    """Segments of the training window's start, and their assignment from then on."""
    commands.peerwatch(folder, "segmenter", "fit", "--until", protocol.since)
    for moment in (*protocol.assigned, protocol.until):
        commands.peerwatch(folder, "segmenter", "score", "--as-of", moment)


def _scored(folder: Path, model: str, protocol: Protocol) -> pd.DataFrame:
    """The model's scores of everything after the window, beside what is published."""
    span = ("--from", protocol.until, "--to", protocol.end)
    commands.peerwatch(folder, "backfill", "fraudwatch", *span, "--model", model)
    query = (
        "SELECT transaction_id, anomaly_score, log_likelihood FROM transaction_scores "
        f"WHERE model_version_id = '{model}'"
    )
    return commands.select(folder / "bank.db", query)


def seen(data: str, value: str, scores: pd.DataFrame, figures: dict[str, float]) -> None:
    """One line of the table."""
    likelihood = float(scores.log_likelihood.mean())
    line = {"data": data, "segment_context": value, "mean log_likelihood": likelihood}
    SEEN.append({**line, "visible": None, "AP": None, **figures})


@pytest.mark.parametrize("seed", SEEDS)
def test_the_demo_with_and_without(seed: int, tmp_path: Path) -> None:
    world = synthetic.world(seed)
    demo.written(world, tmp_path)
    for value, scores in both(tmp_path, Protocol.of_demo(world)):
        shares = synthetic.planted_found(scores, world.truth_frauds)
        seen(f"demo {seed}", value, scores, {"visible": shares["visible"]})


def test_the_handbook_with_and_without(bank: Callable[[str], Path]) -> None:
    folder = bank("handbook")
    query = "SELECT TRANSACTION_ID AS transaction_id, TX_FRAUD AS fraud FROM transactions"
    truth = commands.select(folder / "bank.db", query)
    for value, scores in both(folder, HANDBOOK):
        judged = scores.merge(truth, on="transaction_id")
        found = evaluation.average_precision(judged.fraud, judged.anomaly_score)
        seen("handbook", value, scores, {"AP": found})


def test_anz_with_and_without(bank: Callable[[str], Path]) -> None:
    for value, scores in both(bank("anz"), ANZ):
        seen("ANZ", value, scores, {})
