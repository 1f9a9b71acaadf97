"""`demo`: a whole small world with planted segments and planted fraud, from init to the reports.

It types the same commands that a user would, each in a process of its own, and then compares what
was found with what was planted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from shared import synthetic
from shared.database import engine, parse_url, transaction
from shared.errors import ConfigurationError, PeerwatchError

SCORED_DAYS = 35  # five weeks after the training window, beside its own last seven days
QUERIES = {
    "The queue of the newest day: who is to be looked at first, and why": """
        SELECT q.rank, a.customer_id, a.amount, a.currency, a.summary
        FROM alert_queue q JOIN fraud_alerts a ON a.case_id = q.case_id AND a.day = q.day
        WHERE q.day = (SELECT max(day) FROM alert_queue)
        ORDER BY q.rank, a.priority DESC LIMIT 5""",
    "The segments and what their customers spent in the last four weeks": """
        SELECT s.segment_name, count(DISTINCT t.client_id) AS customers, count(*) AS payments,
               round(avg(t.amount), 2) AS mean_amount
        FROM current_customer_segments s JOIN transactions t ON t.client_id = s.customer_id
        WHERE s.state = 'assigned' AND t.booked_at >= '2025-06-03'
          AND typeof(t.amount) IN ('integer', 'real')
        GROUP BY s.segment_name ORDER BY customers DESC""",
    "Every row accounted for": """
        SELECT sum(source_rows) AS source_rows, sum(before_scope) AS before_scope,
               sum(scored) AS scored, sum(quarantined) AS quarantined, sum(pending) AS pending
        FROM coverage""",
}


def run(directory: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Makes the world in `directory`, works on it, and tells what was found of what was planted."""
    world = synthetic.world(seed)
    path = written(world, directory)
    split = synthetic.START + pd.Timedelta(days=_days(world) - SCORED_DAYS)
    for command in (
        ["init", "--url", f"sqlite:///{path.name}"],
        ["segmenter", "fit"],
        ["segmenter", "score"],
        ["fraudwatch", "fit", "--until", f"{split:%Y-%m-%d}"],
        ["fraudwatch", "score"],
        ["segmenter", "report"],
        ["fraudwatch", "report"],
        ["verify"],
    ):
        say(f"$ peerwatch {' '.join(command)}")
        say(_typed(directory, command))
    return _shown(directory, path, _found(path, world))


def _days(world: synthetic.World) -> int:
    last = pd.to_datetime(world.transactions.booked_at, errors="coerce").max()
    return int((last - synthetic.START).days) + 1


def written(world: synthetic.World, directory: Path) -> Path:
    """The source tables as an SQLite file, and the truth beside it, where no mapping finds it."""
    path = directory / "bank.db"
    if path.exists() or (directory / "peerwatch.toml").exists():
        raise ConfigurationError(
            f"{directory} holds a demo already. Name another folder, or remove it: "
            "peerwatch demo DIR"
        )
    directory.mkdir(parents=True, exist_ok=True)
    made = engine(parse_url(f"sqlite:///{path}"))
    with transaction(made) as connection:
        for name, frame in (("customers", world.customers), ("transactions", world.transactions)):
            columns = ", ".join(f"{c} {kind}" for c, kind in synthetic.SQL_TYPES[name].items())
            connection.execute(sa.text(f"CREATE TABLE {name} ({columns})"))
            frame.to_sql(name, connection, if_exists="append", index=False)
        connection.execute(sa.text("CREATE INDEX by_time ON transactions (booked_at)"))
    world.truth_frauds.to_csv(directory / "planted_frauds.csv", index=False)
    world.truth_segments.to_csv(directory / "planted_segments.csv", index=False)
    return path


def _typed(directory: Path, arguments: list[str]) -> str:
    """The command in a process of its own, in the folder; its output."""
    code = "import sys; from shared.cli import main; sys.exit(main())"
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", code, *arguments],
        cwd=directory,
        env={**os.environ, "PEERWATCH_CONFIG": "peerwatch.toml"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PeerwatchError(f"peerwatch {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def _found(path: Path, world: synthetic.World) -> dict[str, Any]:
    """What was found of what was planted."""
    with transaction(engine(parse_url(f"sqlite:///{path}"), read_only=True)) as connection:

        def frame(text: str) -> pd.DataFrame:
            return pd.read_sql(sa.text(text), connection)

        scores = frame("SELECT transaction_id, anomaly_score FROM current_transaction_scores")
        reasons = frame(
            "SELECT a.transaction_id, r.rank, r.feature FROM fraud_alert_reasons r "
            "JOIN fraud_alerts a ON a.alert_id = r.alert_id"
        )
        alerts = frame("SELECT alert_id, transaction_id FROM fraud_alerts")
        labels = frame("SELECT customer_id, state, segment_id FROM current_customer_segments")
        tables = {title: frame(text) for title, text in QUERIES.items()}
    segments = labels[labels.state == "assigned"].merge(
        world.truth_segments, left_on="customer_id", right_on="client_id"
    )
    return {
        "found_in_top_1_percent": synthetic.planted_found(scores, world.truth_frauds),
        "alerts": len(alerts),
        "alerts_without_reason": len(set(alerts.transaction_id) - set(reasons.transaction_id)),
        "true_alerts_with_planted_reason": synthetic.planted_explained(reasons, world.truth_frauds),
        "segments": int(segments.segment_id.nunique()),
        "segments_planted": int(world.truth_segments.segment.nunique()),
        "adjusted_rand_index": float(
            synthetic.adjusted_rand_index(segments.segment.tolist(), segments.segment_id.tolist())
        ),
        "customers_assigned": len(segments) / len(world.truth_segments),
        "queries": tables,
    }


def _shown(directory: Path, path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The closing text and its data."""
    shares = found["found_in_top_1_percent"]
    kinds = "\n".join(f"  {kind:<26}{share:.0%}" for kind, share in shares.items())
    tables = found.pop("queries")
    answers = "\n\n".join(
        f"{title}\n  {' '.join(QUERIES[title].split())}\n{answer.to_string(index=False)}"
        for title, answer in tables.items()
    )
    own = Path(sys.executable).parent / "peerwatch"
    command = "peerwatch" if shutil.which("peerwatch") or not own.is_file() else str(own)
    text = (
        f"Planted fraud among the top 1 % of the scores:\n{kinds}\n"
        "  (a compromised counterparty cannot be seen without labels)\n"
        f"Alerts: {found['alerts']}, {found['alerts_without_reason']} without a reason; a planted "
        f"feature is among the first three reasons of "
        f"{found['true_alerts_with_planted_reason']:.0%} of the true ones.\n"
        f"Segments: {found['segments']} found, {found['segments_planted']} planted; adjusted Rand "
        f"index {found['adjusted_rand_index']:.2f}, {found['customers_assigned']:.0%} of the "
        "customers assigned.\n\n"
        f"{answers}\n\n"
        f"Open   {directory / 'segmenter_report.html'}\n"
        f"       {directory / 'fraudwatch_report.html'}\n"
        f"Query  {path} (any SQLite client)\n"
        f"Go on  cd {directory}; there {command} finds this world"
    )
    answered = {title: table.to_dict("records") for title, table in tables.items()}
    return {"text": text, "data": {**found, "queries": answered}}
