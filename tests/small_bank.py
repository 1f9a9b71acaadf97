"""A small bank with planted frauds in either database, and what its analysts' commands do to it."""

from __future__ import annotations

import json
import secrets
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from fraudwatch import detector
from fraudwatch.jobs import JOBS
from segmenter import agreement, model, publishing
from shared import config, migrating, runs
from shared.jobs import Outcome, Request
from shared.source import Source
from tests.builders import COLUMNS, MAPPED, NOW, add_rows, ask, make_table, run_sql
from tests.conftest import execute

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, FITTED_DAYS = 60, 45  # 15 days arrive after the fit
FITTED = START + timedelta(days=FITTED_DAYS)
END = START + timedelta(days=DAYS)
SCOPE = FITTED - timedelta(days=7)
TYPES = COLUMNS | {
    "tx_id": "BIGINT PRIMARY KEY",
    "fraud": "SMALLINT",
    "kind": "TEXT",
    # Not mapped unless a test says so.
    "known_at": "TIMESTAMP",
    "device": "TEXT",
    "rule_score": "INTEGER",
}
MORE = {"entities": ["device"], "baseline_score": "rule_score"}  # to be mapped as well
KNOWN_AFTER = timedelta(days=2)  # a planted fraud, by its label
SETTINGS = {
    "training_days": 90,
    "calibration_days": 14,
    "reviews_per_day": 2,
    "label_delay_days": 0,
}
STEPS = (60, 60)  # of training: enough to tell 900.00 from 30.00
RESULTS = (
    "settings", "model_versions", "pipeline_runs", "run_batches", "segments", "segment_profiles",
    "customer_segments", "customer_features", "transaction_scores", "fraud_alerts",
    "fraud_alert_reasons", "fraud_verdicts", "quarantined_rows", "source_days", "closed_days",
    "drift_metrics",
)  # fmt: skip


@cache
def transactions() -> tuple[Mapping[str, Any], ...]:
    """About 3,000 payments of 60 customers over 60 days; one in a hundred is planted: a large
    amount, at night, at a shop the customer never used, and marked as fraud."""
    generator = np.random.default_rng(7)
    rows = []
    for day in range(DAYS):
        for _ in range(generator.poisson(50)):
            customer = int(generator.integers(1, 61))
            planted = day >= 20 and generator.random() < 0.012
            hour = 3 if planted else int(np.clip(generator.normal(14, 3), 7, 22))
            at = START + timedelta(
                days=day, hours=hour, seconds=int(generator.integers(3600)), microseconds=day
            )
            usual = 20 + customer % 5 * 15
            amount = usual * np.exp(0.3 * generator.normal()) * (25 if planted else 1)
            shop = 500 + int(generator.integers(50)) if planted else customer % 12
            refund = not planted and generator.random() < 0.02
            rows.append(
                {
                    "tx_id": 1000 + len(rows),
                    "ts": _text(at),
                    # some have no customer, and some not even a counterparty
                    "cust": None if len(rows) % 97 == 0 else customer,
                    "merchant_id": None if len(rows) % 194 == 0 else shop,
                    "amt": round(float(-amount if refund else amount), 2),
                    "cur": "EUR",
                    "channel": "web" if planted or generator.random() < 0.2 else "chip",
                    "km": None if generator.random() < 0.1 else float(generator.gamma(2, 3)),
                    "fraud": int(planted),
                    "kind": "planted" if planted else None,
                    "known_at": _text(at + KNOWN_AFTER) if planted else None,
                    # Planted frauds share three devices, and the rule looks at the amount alone.
                    "device": f"x{len(rows) % 3}" if planted else f"d{customer}",
                    "rule_score": min(99, int(amount // 10)),
                }
            )
    return tuple(rows)


@cache
def troubled() -> tuple[Mapping[str, Any], ...]:
    """The same payments where customers are compromised for four days now and then.

    Half of their payments are then frauds, as are a few of all others. All are made from one place
    far away, a third of them of ten times the amount; the density does not notice the others.
    """
    generator = np.random.default_rng(11)
    begun = np.flatnonzero(generator.random(DAYS * 61) < 0.04)
    compromised = {(at % 61, at // 61 + step) for at in begun.tolist() for step in range(4)}
    rows: list[Mapping[str, Any]] = []
    for row in transactions():
        at = moment_of(row)
        share = 0.5 if (row["cust"], (at - START).days) in compromised else 0.02
        fraud = generator.random() < share
        large = 10 if fraud and row["tx_id"] % 3 == 0 else 1
        told = {"fraud": 0, "kind": None, "known_at": None, "device": f"d{row['cust']}"}
        if fraud:
            told = {
                "fraud": 1,
                "kind": "large" if large > 1 else "quiet",
                "known_at": _text(at + KNOWN_AFTER),
                "device": "x" if row["tx_id"] % 5 == 0 else told["device"],
                "km": 9.9,
            }
        amount = 30 if row["fraud"] else row["amt"]  # what was planted is none of this world
        rows.append({**row, **told, "amt": round(abs(amount) * large, 2)})
    return tuple(rows)


def _text(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(sep=" ")


def moment_of(row: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(row["ts"])).replace(tzinfo=UTC)


@dataclass
class Bank:
    """A database with `card_tx`, its configuration, and our tables beside it."""

    url: str
    results_url: str | None = None
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))
    mapped: dict[str, Any] = field(
        default_factory=lambda: {k: _plain(v) for k, v in MAPPED.items()}
    )
    source: dict[str, Any] = field(default_factory=dict)
    path: Path = Path("peerwatch.toml")

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The configuration by section."""
        mapped = {key: value for key, value in self.mapped.items() if value is not None}
        found = {
            "source": {"url": self.url, **self.source},
            "source.transactions": mapped,
            "fraudwatch": self.settings,
        }
        return found | ({"results": {"url": self.results_url}} if self.results_url else {})

    @property
    def toml(self) -> str:
        return "\n".join(
            f"[{name}]\n" + "\n".join(f"{key} = {_toml(value)}" for key, value in keys.items())
            for name, keys in self.sections.items()
        )

    @property
    def config(self) -> config.Configuration:
        return config.parse(tomllib.loads(self.toml), self.path, {})

    def write_config(self, path: Path) -> None:
        """The configuration as a file, for processes of their own."""
        path.write_text(self.toml, encoding="utf-8")
        self.path = path

    @property
    def owner_url(self) -> str:
        """Of the database with our tables."""
        return self.results_url or self.url

    def make_results(self) -> Bank:
        with Source(self.config.source) as source:
            results = runs.results_of(self.config, source.kinds)
        with results.transaction() as connection:
            migrating.upgrade(connection, results.target)
        return self

    def do(self, job: str, now: datetime = NOW, **request: Any) -> Outcome:
        with runs.opened(self.config, job, now) as run:
            return runs.execute(run, JOBS[job], Request(**request), "manual")

    def score(self, **request: Any) -> Outcome:
        return self.do("fraudwatch.score", **request)

    def ask(self, statement: str) -> list[tuple]:
        """The answer of our tables; `#` stands before their names."""
        schema = "" if self.owner_url.startswith("sqlite") else "peerwatch."
        return ask(self.owner_url, statement.replace("#", schema))

    def say(self, *statements: str) -> None:
        """Statements of the owner of our tables; `#` stands before their names."""
        schema = "" if self.owner_url.startswith("sqlite") else "peerwatch."
        run_sql(self.owner_url, *(statement.replace("#", schema) for statement in statements))

    def columns(self, table: str) -> list[str]:
        """Names of a table's columns."""
        engine = sa.create_engine(self.owner_url, poolclass=sa.NullPool)
        schema = None if self.owner_url.startswith("sqlite") else "peerwatch"
        return [column["name"] for column in sa.inspect(engine).get_columns(table, schema)]

    def count(self, table: str, where: str = "1 = 1") -> int:
        return int(self.ask(f"SELECT count(*) FROM #{table} WHERE {where}")[0][0])

    def add(self, rows: Any) -> None:
        add_rows(self.url, "card_tx", list(TYPES), rows)

    def dump(self) -> dict[str, list[tuple]]:
        """Everything in our tables."""
        return {name: sorted(self.ask(f"SELECT * FROM #{name}"), key=repr) for name in RESULTS}

    def published(self) -> dict[Any, tuple[float, ...]]:
        """transaction -> (log likelihood, anomaly score, p-value) as published."""
        rows = self.ask(
            "SELECT transaction_id, log_likelihood, anomaly_score, p_value "
            "FROM #current_transaction_scores"
        )
        assert len({row[0] for row in rows}) == len(rows), "each transaction once"
        return {row[0]: tuple(row[1:]) for row in rows}

    def alerts(self) -> list[tuple]:
        """Keys, cases and texts of the alerts, with their reasons in order."""
        return self.ask(
            "SELECT a.transaction_id, a.alert_id, a.case_id, a.summary, r.rank, r.feature, "
            "r.value, r.expected, r.text FROM #fraud_alerts a "
            "JOIN #fraud_alert_reasons r ON r.alert_id = a.alert_id "
            "ORDER BY a.transaction_id, r.rank"
        )

    def queue(self) -> list[tuple]:
        return self.ask("SELECT day, rank, case_id FROM #alert_queue ORDER BY day, rank")

    def unbalanced(self) -> list[tuple]:
        """Days whose rows are not accounted for."""
        return [
            row
            for row in self.ask(
                "SELECT day, source_rows, before_scope, scored, quarantined, pending, "
                "gone_from_source FROM #coverage"
            )
            if row[1] != sum(row[2:6]) - row[6]
        ]

    def covered(self, column: str) -> int:
        return int(self.ask(f"SELECT COALESCE(sum({column}), 0) FROM #coverage")[0][0])


def _toml(value: Any) -> str:
    return str(value) if isinstance(value, date) else json.dumps(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def a_bank_of(url: str, rows: Any, types: Mapping[str, str] | None = None, **more: Any) -> Bank:
    """A bank with these rows and empty result tables."""
    make_table(url, "card_tx", TYPES | (types or {}), rows)
    return Bank(url, **more).make_results()


@contextmanager
def few_steps() -> Iterator[None]:
    """Training that is short: what is tested here is not how well the net learns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "STEPS", STEPS)
        yield


@contextmanager
def few_fits() -> Iterator[None]:
    """Fits of segments that are short: which family is best, and how far halves of the customers
    agree, is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "FAMILIES", ("VVI",))
        for module in (agreement, publishing):
            patch.setattr(module, "SPLITS", 1)
        yield


LABELS = {"label": "fraud", "label_time": "known_at"}
RIPE = timedelta(days=3)  # after which a payment without a report is genuine


def taught(url: str) -> Bank:
    """A bank that tells its labels and devices."""
    bank = Bank(url)
    bank.mapped |= {**LABELS, "entities": ["device"]}
    bank.settings["label_delay_days"] = RIPE.days
    return bank


def taught_bank(url: str) -> Bank:
    """A bank whose labels taught the evidence and a ranker, its champion; nothing is scored."""
    make_table(url, "card_tx", TYPES, troubled())
    bank = taught(url).make_results()
    with few_steps():
        bank.do("fraudwatch.fit", until=FITTED)
    return bank


def fitted_bank(url: str) -> Bank:
    """A bank whose first 45 days are there and fitted; nothing is scored."""
    bank = a_bank_of(url, [row for row in transactions() if moment_of(row) < FITTED])
    with few_steps():
        bank.do("fraudwatch.fit", until=FITTED)
    bank.add([row for row in transactions() if moment_of(row) >= FITTED])
    return bank


@contextmanager
def copies(template: str) -> Iterator[str]:
    """The URL of a copy of a database, gone afterwards."""
    url = make_url(template)
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        copy = path.with_name(f"{secrets.token_hex(6)}.db")
        shutil.copy(path, copy)
        yield f"sqlite:///{copy}"
        copy.unlink()
        return
    name = f"peerwatch_copy_{secrets.token_hex(6)}"
    server = url.set(database="postgres").render_as_string(False)
    execute(server, f"CREATE DATABASE {name} TEMPLATE {url.database}")
    try:
        yield url.set(database=name).render_as_string(False)
    finally:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")
