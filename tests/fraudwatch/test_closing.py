"""The close of a day: once, in order, whatever the batches; what is promised of it, and why not."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from fraudwatch import store
from fraudwatch.closing import Closed, close_days, drawn, late_q_values, promise_note
from fraudwatch.config import Settings
from fraudwatch.decisions import KNOWN_SHARE, Footing, natural_id
from fraudwatch.scope import KIND
from shared import config, registry, runs
from shared.frames import day_start, micros
from shared.source import Source
from tests.builders import a_bank, a_source, a_transaction, ask, make_results

FIRST = date(2026, 3, 1)
ROWS, ENTRY = 200, 0.05  # scored a day; the p-value from which an alert is raised
GOOD = Footing(0.9, 5, (0.1, 0.2, 0.3, 0.5), (0.02, 0.03, 0.03, 0.03), 28)
ALERT_COLUMNS = [
    "transaction_id",
    "customer_id",
    "counterparty_id",
    "occurred_at",
    "day",
    "p_value",
]


def at(days: float) -> datetime:
    return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=days)


class Office:
    """Result tables with scores of planted p-values, as a run of scoring leaves them."""

    def __init__(self, url: str, zone: str = "UTC") -> None:
        self.url, self.zone = url, zone
        self.results = make_results(url)
        self.settings = Settings(false_discovery_rate=0.2)
        self.models: dict[str, str] = {}

    def run(self, clock: datetime, source: Source) -> runs.Run:
        domains = {KIND: self.settings}
        made = config.Configuration(Path("x.toml"), source.settings, config.Results(), domains, {})
        return runs.Run(f"run {clock}", "fraudwatch.score", clock, made, self.results, source)

    def fit(self, name: str, footing: Footing | None = GOOD) -> str:
        """A stored model that says this of its calibration; returns its id."""
        header = {"name": name, "footing": None if footing is None else footing.to_json()}
        with self.results.transaction() as connection:
            model, _ = registry.store(
                connection, self.results.tables, KIND, header, {"one": np.ones(1)},
                now=at(0), window=(at(-30), at(0)), rows=1, metrics={}, card={},
            )  # fmt: skip
        self.models[name] = model
        return model

    def score(
        self, rows: pd.DataFrame, until: float, model: str = "good", in_sample: bool = False
    ) -> None:
        """Publishes the rows, raises those at the entry level, and says how far it is scored."""
        if model not in self.models:
            self.fit(model)
        with a_source(self.url, self.zone) as source, self.results.transaction() as connection:
            run = self.run(at(until), source)
            scored = rows.assign(
                log_likelihood=-1.0, surprise=1.0, anomaly_score=-np.log(rows.p_value),
                in_sample=in_sample, model_version_id=self.models[model],
            )  # fmt: skip
            store.write_scores(connection, run, scored, "published")
            alerts = rows.loc[rows.p_value <= ENTRY, ALERT_COLUMNS]
            ids = alerts.transaction_id
            raised = alerts.assign(
                alert_id=[natural_id("alert", key) for key in ids],
                case_id=[f"case {key}" for key in ids],
                q_value=late_q_values(connection, run, alerts),
                priority=1.0, origin="threshold", summary="large",
            )  # fmt: skip
            store.write_alerts(connection, run, raised, some_reasons(raised.alert_id.tolist()))
            reached = runs.read_settings(connection, run.tables, "scored_until").get("", "0")
            reached_now = max(int(reached), micros(at(until)))
            runs.write_settings(connection, run.tables, {"scored_until": str(reached_now)})

    def close(self, clock: float, explained: Any = None) -> Closed:
        with a_source(self.url, self.zone) as source:
            run = self.run(at(clock), source)
            scope = day_start(np.datetime64(FIRST), self.zone)
            return close_days(run, scope, explained or self.explained)

    def explained(
        self, _model: str, window: tuple[int, int], ids: Sequence[Any]
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Source rows with a summary, and one reason of each."""
        with a_source(self.url, self.zone) as source:
            rows = source.read(*window, micros(at(999))).rows
        keys = ["transaction_id", "customer_id", "counterparty_id", "occurred_at"]
        picked = rows.set_index("transaction_id").loc[list(ids)].reset_index()
        alerts = picked[[*keys, "amount"]].assign(summary="drawn")
        reasons = some_reasons(["" for _ in ids]).drop(columns="alert_id")
        return alerts, reasons.assign(row=np.arange(len(ids)))

    def ask(self, statement: str) -> list[tuple]:
        schema = "" if self.url.startswith("sqlite") else "peerwatch."
        return ask(self.url, statement.replace("#", schema))

    def closed(self) -> list[tuple]:
        """What stands of each closed day, apart from who closed it and when."""
        return self.ask(
            "SELECT day, scored, cut, false_discovery_rate, promised, reason, drift, drifted, "
            "model_version_id FROM #closed_days ORDER BY day"
        )

    def q_values(self) -> dict[int, float | None]:
        return dict(self.ask("SELECT transaction_id, q_value FROM #fraud_alerts"))

    def explored(self) -> list[tuple]:
        return self.ask(
            "SELECT transaction_id, day, alert_id, case_id, p_value, counterparty_id FROM "
            "#fraud_alerts WHERE origin = 'exploration' ORDER BY day, transaction_id"
        )


def some_reasons(alert_ids: list[str]) -> pd.DataFrame:
    texts = {"feature": "amount", "value": "9", "expected": "1", "unit": "", "text": "9, not 1"}
    return pd.DataFrame({"alert_id": alert_ids, "rank": 1, "contribution": 1.0}).assign(**texts)


def a_day(day: int, planted: int = 6, rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """A day's rows with uniform p-values, and some planted ones that are small."""
    generator = np.random.default_rng([seed, day])
    moments = micros(at(day)) + np.sort(generator.integers(0, 86_400_000_000, rows))
    p_values = np.ceil(generator.random(rows) * 5000) / 5000  # with ties, as of a calibration
    p_values[:planted] = (1 + np.arange(planted)) / 5000
    return pd.DataFrame(
        {
            "transaction_id": 10_000 * (day + 1) + np.arange(rows),
            "customer_id": generator.integers(1, 50, rows),
            "counterparty_id": np.where(np.arange(rows) % 4, 1, generator.integers(2, 30, rows)),
            "occurred_at": moments,
            "day": FIRST + timedelta(days=day),
            "p_value": p_values,
        }
    )


def as_source(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in frame.itertuples():
        moment = datetime.fromtimestamp(row.occurred_at / 1e6, UTC).replace(tzinfo=None)
        yield a_transaction(
            row.transaction_id, moment.isoformat(sep=" "), cust=row.customer_id,
            merchant_id=row.counterparty_id,
        )  # fmt: skip


@pytest.fixture
def office(database: str) -> Office:
    """With the transactions of four days in the source, on each of the two databases."""
    a_bank(database, [row for day in range(4) for row in as_source(a_day(day))])
    return Office(database)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on SQLite, as a file to be copied."""
    path = tmp_path_factory.mktemp("offices") / "office.db"
    path.touch()
    a_bank(f"sqlite:///{path}", [row for day in range(4) for row in as_source(a_day(day))])
    make_results(f"sqlite:///{path}")
    return path


@pytest.fixture
def small_office(whole_file: Path, tmp_path: Path) -> Office:
    return Office(f"sqlite:///{shutil.copy(whole_file, tmp_path / 'small.db')}")


@pytest.fixture
def another_office(whole_file: Path, tmp_path: Path) -> Office:
    return Office(f"sqlite:///{shutil.copy(whole_file, tmp_path / 'another.db')}")


def plain(rows: list[tuple]) -> list[tuple]:
    """The rows as both databases would give them."""
    return [tuple(str(v) if isinstance(v, date) else v for v in row) for row in rows]


# --- when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scored", "clock", "days"),
    [
        (1.25, 1.25, 1),  # six hours after its end
        (1.25, 1.24, 0),
        (1.24, 9, 0),  # not scored so far
        (2.5, 1.3, 1),
        (2.5, 3, 2),
        (0.5, 0.6, 0),
    ],
)
def test_a_day_closes_so_long_after_its_end_by_what_is_scored_and_the_clock(
    small_office, scored, clock, days
):
    small_office.score(a_day(0), scored)

    assert small_office.close(clock).days == days
    assert len(small_office.closed()) == days


def test_nothing_closes_before_anything_is_scored(small_office):
    assert small_office.close(9) == Closed(0, 0, None)


def test_a_day_closes_once_and_what_is_written_stays(office):
    office.score(a_day(0), 1.25)
    office.close(2)
    before = office.ask("SELECT * FROM #closed_days"), office.q_values()

    again = office.close(3)

    assert again.days == 0
    assert (office.ask("SELECT * FROM #closed_days"), office.q_values()) == before


def test_days_without_a_transaction_close_too_so_that_what_comes_later_is_late(small_office):
    small_office.score(pd.concat([a_day(0), a_day(3)]), 4.25)

    small_office.close(5)

    assert [row[1] for row in small_office.closed()] == [ROWS, 0, 0, ROWS]
    assert small_office.closed()[1][5] == "no transaction was scored"


def test_days_before_the_first_scored_one_wait_until_they_have_a_row(small_office):
    small_office.score(a_day(2), 3.25)
    small_office.close(5)
    assert [str(row[0]) for row in small_office.closed()] == ["2026-03-03"]

    small_office.score(a_day(1), 3.25)
    small_office.close(5)

    assert [(str(row[0]), row[1]) for row in small_office.closed()] == [
        ("2026-03-02", ROWS), ("2026-03-03", ROWS),
    ]  # fmt: skip


def test_days_are_those_of_the_zone(sqlite_url):
    a_bank(sqlite_url)
    office = Office(sqlite_url, "Asia/Tokyo")
    rows = a_day(0)
    local = rows.occurred_at + 9 * 3600 * 10**6 >= micros(at(1))
    rows["day"] = np.where(local, FIRST + timedelta(days=1), FIRST)

    office.score(rows, 1)
    office.close(2)  # in Tokyo the second of March began at 15:00 of the first in UTC

    assert [row[1] for row in office.closed()] == [int((~local).sum())]
    assert {key for key, q in office.q_values().items() if q is None} == set(
        rows.transaction_id[local & (rows.p_value <= ENTRY)]
    )


# --- what is written ----------------------------------------------------------------------------


def test_q_values_are_those_of_scipy_over_all_published_scores_of_the_day(office):
    rows = a_day(0)
    office.score(rows, 1.25)
    assert set(office.q_values().values()) == {None}

    office.close(2)

    expected = dict(zip(rows.transaction_id, false_discovery_control(rows.p_value), strict=True))
    found = office.q_values()
    assert found.keys() == set(rows.transaction_id[rows.p_value <= ENTRY])
    assert found == pytest.approx({key: expected[key] for key in found})
    under = rows.p_value[false_discovery_control(rows.p_value) <= 0.2]
    assert len(under) >= 6
    assert plain(office.closed()) == [
        (str(FIRST), ROWS, under.max(), 0.2, True, None, pytest.approx(1, abs=2), False,
         office.models["good"]),
    ]  # fmt: skip


def test_scores_of_other_roles_have_no_part(small_office):
    small_office.score(a_day(0), 1.25)
    with a_source(small_office.url) as source, small_office.results.transaction() as connection:
        shadow = a_day(0).assign(
            p_value=1e-9, log_likelihood=0.0, surprise=9.0, anomaly_score=9.0, in_sample=False,
            model_version_id="other",
        )  # fmt: skip
        store.write_scores(connection, small_office.run(at(1), source), shadow, "backfill")

    small_office.close(2)

    assert small_office.closed()[0][1] == ROWS
    assert min(small_office.q_values().values()) > 1e-3


def test_batches_of_any_size_give_the_same_days_reviews_and_q_values(office, another_office):
    for one in (office, another_office):
        one.settings = replace(one.settings, exploration_per_day=4)
    for day in range(3):
        half = a_day(day).occurred_at < micros(at(day + 0.5))
        office.score(a_day(day)[half], day + 0.5)
        office.close(day + 0.5)
        office.score(a_day(day)[~half], day + 1)
        office.close(day + 1)
    office.score(a_day(3)[:50], 3.3)
    office.close(3.3)

    another_office.score(pd.concat([*(a_day(day) for day in range(3)), a_day(3)[:50]]), 3.3)
    another_office.close(9)

    assert len(office.closed()) == 3
    assert plain(office.closed()) == plain(another_office.closed())
    assert office.q_values() == another_office.q_values()
    assert plain(office.explored()) == plain(another_office.explored())
    assert len(office.explored()) == 12


def test_the_close_of_a_day_becomes_visible_whole_or_not_at_all(office, monkeypatch):
    office.settings = replace(office.settings, exploration_per_day=4)
    office.score(a_day(0), 1.25)
    before = office.q_values()

    def broken(*args: Any) -> None:
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(store, "write_closed_day", broken)
        office.close(2)

    assert office.closed() == [] == office.ask("SELECT * FROM #drift_metrics")
    assert office.q_values() == before
    office.close(3)
    assert len(office.q_values()) == len(before) + 4


def test_a_day_that_another_runner_has_closed_meanwhile_is_left_alone(small_office):
    small_office.score(a_day(0), 1.25)
    alone = replace(small_office.settings, exploration_per_day=4)
    small_office.settings = alone

    def overtaken(*asked: Any) -> Any:
        small_office.settings = replace(alone, exploration_per_day=0)
        assert small_office.close(2).days == 1
        return small_office.explained(*asked)

    assert small_office.close(2, overtaken) == Closed(0, 0, None)
    assert small_office.explored() == []


def test_a_review_is_explained_by_the_model_that_scored_its_row(small_office):
    rows = a_day(0)
    small_office.settings = replace(small_office.settings, exploration_per_day=40)
    small_office.score(rows[:100], 0.5, model="good")
    small_office.score(rows[100:], 1.25, model="other")
    by: dict[str, list[Any]] = {}

    def explained(model: str, window: tuple[int, int], ids: Sequence[Any]) -> Any:
        by[model] = list(ids)
        return small_office.explained(model, window, ids)

    small_office.close(2, explained)

    first = set(rows.transaction_id[:100])
    assert set(by) == {small_office.models["good"], small_office.models["other"]}
    assert set(by[small_office.models["good"]]) <= first
    assert not set(by[small_office.models["other"]]) & first
    assert len(small_office.explored()) == 40


def test_a_row_whose_reasons_no_longer_sum_to_its_score_is_not_reviewed(small_office):
    """An earlier row that came late changes what would be said of it today."""
    small_office.settings = replace(small_office.settings, exploration_per_day=6)
    small_office.score(a_day(0), 1.25)

    def explained(*asked: Any) -> Any:
        alerts, reasons = small_office.explained(*asked)
        beside = reasons.assign(feature="evidence.customer", contribution=9.0)
        changed = np.where(reasons.row % 2 == 0, 1.0, 1.1)
        return alerts, pd.concat([reasons.assign(contribution=changed), beside])

    small_office.close(2, explained)

    (odd,) = small_office.ask(
        "SELECT count(*) FROM #fraud_alert_reasons WHERE feature = 'amount' AND contribution > 1"
    )
    assert len(small_office.explored()) == 3
    assert odd == (0,)


# --- what comes late ----------------------------------------------------------------------------


def test_a_late_row_is_judged_by_the_stored_cut_and_changes_nothing(office):
    rows = a_day(0)
    office.score(rows, 1.25)
    office.close(2)
    before = office.closed(), office.q_values()
    cut = office.closed()[0][2]

    late = a_day(0, planted=0, rows=40, seed=1).assign(transaction_id=np.arange(40))
    late["p_value"] = np.linspace(cut / 3, ENTRY, 40)
    office.score(late, 3.25)
    office.close(4)

    assert plain(office.closed()[:1]) == plain(before[0])
    found = office.q_values()
    assert {key: found[key] for key in before[1]} == before[1]
    q_values = np.array([found[key] for key in late.transaction_id])
    assert ((q_values <= 0.2) == (late.p_value <= cut)).all()
    assert (np.diff(q_values) >= 0).all()
    steps = rows.assign(q=false_discovery_control(rows.p_value))
    for p_value, q_value in zip(late.p_value[late.p_value <= cut], q_values, strict=False):
        assert q_value == pytest.approx(steps.q[steps.p_value >= p_value].min())


def test_a_late_row_of_an_open_day_waits_for_its_close(small_office):
    small_office.score(a_day(0), 1.25)
    small_office.close(2)

    small_office.score(a_day(1), 1.9)

    waiting = {key for key, q_value in small_office.q_values().items() if q_value is None}
    assert waiting == set(a_day(1).transaction_id[a_day(1).p_value <= ENTRY])


# --- what is promised ---------------------------------------------------------------------------


def reasons(office: Office) -> list[str | None]:
    assert all(bool(row[4]) == (row[5] is None) for row in office.closed())
    return [row[5] for row in office.closed()]


def test_a_rate_is_promised_on_a_known_and_steady_calibration(small_office):
    small_office.score(a_day(0), 1.25)

    assert small_office.close(2) == Closed(1, 0, None)
    assert reasons(small_office) == [None]


@pytest.mark.parametrize(
    ("footing", "words"),
    [
        (None, "does not tell how well its calibration is known"),
        (
            replace(GOOD, known_share=0.3),
            f"only 30% has a verdict or label; {KNOWN_SHARE:.0%} are needed",
        ),
        (replace(GOOD, days=3), "the calibration window has 3 days; 7 are needed"),
    ],
)
def test_no_rate_is_promised_on_a_calibration_that_is_little_known(small_office, footing, words):
    small_office.fit("weak", footing)
    small_office.score(a_day(0), 1.25, "weak")

    note = small_office.close(2).note

    assert words in str(reasons(small_office)[0])
    assert note is not None and note.startswith(
        "No false-discovery rate is promised for 2026-03-01: "
    )
    assert words in note
    assert min(small_office.q_values().values()) < 0.2, "q-values are written all the same"


def test_no_rate_is_promised_for_a_day_of_the_training_window(small_office):
    small_office.score(a_day(0), 1.25, in_sample=True)

    assert "lie in the training window" in str(small_office.close(2).note)
    assert small_office.closed()[0][6] is None, "and no drift is told from it"


def test_where_no_rate_is_asked_none_is_promised_and_nothing_said_of_it(small_office):
    small_office.settings = replace(small_office.settings, false_discovery_rate=None)
    small_office.score(a_day(0), 1.25)

    assert small_office.close(2).note is None
    assert reasons(small_office) == ["no rate is asked"]
    assert small_office.closed()[0][2:4] == (None, None)
    assert None not in small_office.q_values().values()


def test_the_promise_stays_withdrawn_after_a_drift_until_another_model(office):
    drifted = a_day(1).assign(p_value=lambda rows: rows.p_value**2)
    office.score(pd.concat([a_day(0), drifted, a_day(2)]), 3.25)
    office.score(a_day(3), 4.25, "recalibrated")

    said = office.close(9)

    since = "the p-values have drifted from their calibration since 2026-03-02"
    found = reasons(office)
    assert [found[0], found[3]] == [None, None] and said.note is None
    assert all(str(reason).startswith(since) for reason in found[1:3])
    assert [bool(row[7]) for row in office.closed()] == [False, True, False, False]


def test_a_day_of_two_models_is_promised_only_on_both(small_office):
    small_office.fit("weak", replace(GOOD, known_share=0.1))
    rows = a_day(0)
    small_office.score(rows[:150], 0.9)
    small_office.score(rows[150:], 1.25, "weak")

    small_office.close(2)

    assert "only 10%" in str(reasons(small_office)[0])
    assert small_office.closed()[0][-1] == small_office.models["good"], "that scored the most"


def test_the_drift_of_the_newest_closed_day_stands_beside_its_threshold(office):
    office.score(pd.concat([a_day(0), a_day(1)]), 2.25)

    office.close(9)

    rows = office.ask("SELECT feature, statistic, value, threshold, drifted FROM #drift_metrics")
    shares = [np.mean(a_day(1).p_value <= level) for level in (0.1, 0.2, 0.3, 0.5)]
    binomial = [level * (1 - level) / ROWS for level in GOOD.shares]
    spread = [max(s**2, b) * (1 + 1 / 28) for s, b in zip(GOOD.spread, binomial, strict=True)]
    away = [abs(s - m) / v**0.5 for s, m, v in zip(shares, GOOD.shares, spread, strict=True)]
    assert [(row[0], bool(row[4])) for row in rows] == [("p_value", False)]
    assert rows[0][1].endswith(", 2026-03-02")
    assert rows[0][2:4] == pytest.approx((max(away), GOOD.drift_limit))


def test_the_note_is_that_of_the_newest_closed_day_also_where_none_closes(small_office):
    small_office.fit("weak", None)
    small_office.score(a_day(0), 1.25, "weak")
    first = small_office.close(2).note

    assert small_office.close(2).note == first is not None
    with a_source(small_office.url) as source, small_office.results.transaction() as connection:
        assert promise_note(connection, small_office.run(at(2), source)) == first


# --- exploration --------------------------------------------------------------------------------


def test_reviews_are_drawn_from_what_raised_no_alert_and_marked(office):
    office.settings = replace(office.settings, exploration_per_day=6)
    office.score(pd.concat([a_day(0), a_day(1)]), 2.25)

    assert office.close(9).explored == 12

    p_values = pd.concat([a_day(0), a_day(1)]).set_index("transaction_id").p_value
    found = office.explored()
    assert Counter(str(row[1]) for row in found) == {"2026-03-01": 6, "2026-03-02": 6}
    assert all(row[4] == p_values[row[0]] > ENTRY for row in found)
    assert all(row[2] == natural_id("alert", row[0]) for row in found)
    assert len({row[3] for row in found}) == 12, "each is a case of its own"
    texts = office.ask("SELECT DISTINCT a.summary, r.text FROM #fraud_alerts a JOIN "
                       "#fraud_alert_reasons r ON r.alert_id = a.alert_id "
                       "WHERE a.origin = 'exploration'")  # fmt: skip
    assert texts == [("drawn", "9, not 1")]
    assert None not in office.q_values().values(), "what was drawn has its q-value too"


def test_a_counterparty_with_a_recent_alert_is_not_drawn_as_one(small_office):
    small_office.settings = replace(small_office.settings, exploration_per_day=60)
    rows = a_day(0)
    small_office.score(rows, 1.25)
    alerted = set(rows.counterparty_id[rows.p_value <= ENTRY])

    small_office.close(2)

    drawn_from = Counter(row[5] for row in small_office.explored())
    fresh = set(rows.counterparty_id) - alerted
    assert 10 < len(fresh) < 30, "less than half of the reviews"
    assert fresh <= drawn_from.keys()
    assert sum(drawn_from.values()) == 60


def test_half_is_drawn_by_counterparty_and_half_by_row():
    rows = [(key, 0 if key < 900 else key) for key in range(1000)]  # one shop has nine in ten

    large = [
        sum(key < 900 for key in drawn(rows, set(), 20, np.random.default_rng(seed)))
        for seed in range(300)
    ]

    # of ten counterparties of 101 a tenth is the large one, of ten rows nine are
    assert np.mean(large) == pytest.approx(10 * 1 / 101 + 10 * 0.9, abs=0.25)


@pytest.mark.parametrize("size", [0, 1, 5, 7, 30])
def test_as_many_are_drawn_as_asked_or_as_there_are_each_once(size):
    rows = [(f"t{key}", None if key % 3 else key % 2) for key in range(7)]

    found = drawn(rows, {1}, size, np.random.default_rng(0))

    assert len(found) == len(set(found)) == min(size, 7)
    assert set(found) <= {key for key, _ in rows}


def test_what_is_drawn_depends_on_seed_and_day_alone(small_office, another_office):
    for one in (small_office, another_office):
        one.settings = replace(one.settings, exploration_per_day=5)
    small_office.score(a_day(0), 1.25)
    another_office.score(a_day(0).sample(frac=1, random_state=3), 1.25)
    small_office.close(2)
    another_office.close(3)
    assert small_office.explored() == another_office.explored()

    generators = [np.random.default_rng([seed, FIRST.toordinal()]) for seed in (0, 1)]
    rows = [(key, None) for key in range(1000)]
    assert drawn(rows, set(), 5, generators[0]) != drawn(rows, set(), 5, generators[1])
