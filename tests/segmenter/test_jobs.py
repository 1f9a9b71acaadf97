"""The jobs from a database to the database, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from segmenter import fitting, population, refitting, store
from segmenter.jobs import JOBS
from shared import config, migrating, registry, runs, verifying
from shared.errors import ConfigurationError, DataQualityError
from shared.jobs import Outcome, Request
from shared.source import Source
from shared.synthetic import SQL_TYPES, START, adjusted_rand_index, world
from tests.builders import ask, make_table
from tests.conftest import new_database
from tests.small_bank import copies

DAYS = 60
END = START.to_pydatetime().replace(tzinfo=UTC) + timedelta(days=DAYS)
NOW = END + timedelta(days=1)
MIDDLE = END - timedelta(days=10)
NEVER_BOUGHT = 5_000_000  # in the customers' table alone
SMALL = world(0, customers=200, days=DAYS)

pytestmark = pytest.mark.usefixtures("few_fits")


FILE = """
[source]
url = "{url}"
[source.transactions]
table = "transactions"
id = "tx_id"
time = "booked_at"
customer = "client_id"
amount = "amount"
currency = "currency"
[segmenter]
refit_on_drift = {refit_on_drift}
"""


class Bank:
    """The small world in a database, with its configuration and result tables."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.schema = "" if url.startswith("sqlite") else "peerwatch."
        self.configure()

    def build(self) -> Bank:
        """Source tables and result tables."""
        types = {"tx_id": "BIGINT", "client_id": "BIGINT"}
        valid = SMALL.transactions[~SMALL.transactions.tx_id.isin(SMALL.truth_defects.tx_id)]
        nobody = valid.tail(3).assign(tx_id=[1, 2, 3], client_id=None)
        rows = pd.concat([valid, nobody]).astype(object)
        rows = rows.where(rows.notna(), None).to_dict("records")
        make_table(self.url, "transactions", SQL_TYPES["transactions"] | types, rows)
        clients = SMALL.customers.astype(object).to_dict("records")
        idle = clients[0] | {"client_id": NEVER_BOUGHT}
        make_table(self.url, "customers", SQL_TYPES["customers"], [*clients, idle])
        with Source(self.config.source) as source:
            results = runs.results_of(self.config, source.kinds)
        with results.transaction() as connection:
            migrating.upgrade(connection, results.target)
        return self

    def configure(self, transactions: dict | None = None, **segmenter: Any) -> None:
        mapped = {
            "table": "transactions", "id": "tx_id", "time": "booked_at", "customer": "client_id",
            "amount": "amount", "currency": "currency",
            "categories": ["channel"],
        }  # fmt: skip
        customers = {"table": "customers", "id": "client_id", "numbers": ["credit_limit"],
                     "categories": ["product"], "descriptors": ["age", "region"]}  # fmt: skip
        chosen = {k: v for k, v in (mapped | (transactions or {})).items() if v is not None}
        source: dict = {"url": self.url, "transactions": chosen}
        if "customer" in chosen:
            source["customers"] = customers
        document = {"source": source, "segmenter": segmenter}
        self.config = config.parse(document, Path("peerwatch.toml"), {})

    def file(self, refit_on_drift: str = "false") -> Path:
        """A short configuration as a file, for commands."""
        file = self.folder / "peerwatch.toml"
        file.write_text(FILE.format(url=self.url, refit_on_drift=refit_on_drift))
        return file

    def do(self, job: str, now: datetime = NOW, **request: Any) -> Outcome:
        with runs.opened(self.config, job, now) as run:
            return runs.execute(run, JOBS[job], Request(**request), "manual")

    def ask(self, statement: str) -> list[tuple]:
        """The answer of our tables; `#` stands before their names."""
        return ask(self.url, statement.replace("#", self.schema))

    def count(self, table: str) -> int:
        return int(self.ask(f"SELECT count(*) FROM #{table}")[0][0])

    def current(self) -> dict[int, tuple]:
        rows = self.ask("SELECT * FROM #current_customer_segments")
        return {row[0]: (row[1], row[2]) for row in rows}


@pytest.fixture
def bank(database: str, tmp_path: Path) -> Bank:
    return Bank(database, tmp_path).build()


@pytest.fixture
def local_bank(sqlite_url: str, tmp_path: Path) -> Bank:
    """For what is decided before any SQL that the databases differ in."""
    return Bank(sqlite_url, tmp_path).build()


@pytest.fixture(scope="module")
def early_template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bank with a champion of its first days; tests work on copies of it."""
    return _fitted(tmp_path_factory.mktemp("early"), until=MIDDLE)


@pytest.fixture
def early_bank(early_template: str, tmp_path: Path) -> Iterator[Bank]:
    with copies(early_template) as url:
        yield Bank(url, tmp_path)


@pytest.fixture(scope="module")
def fitted_template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bank with a champion of the whole window, and no segments yet."""
    return _fitted(tmp_path_factory.mktemp("fitted"))


@pytest.fixture
def fitted_bank(fitted_template: str, tmp_path: Path) -> Iterator[Bank]:
    with copies(fitted_template) as url:
        yield Bank(url, tmp_path)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def scored_template(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A bank with a champion of the whole window and its segments, on each of the two."""
    folder = tmp_path_factory.mktemp("scored")
    with ExitStack() as stack:
        url = ""
        if request.param == "postgresql":
            server = request.getfixturevalue("postgresql_server")
            url = stack.enter_context(new_database(server))
        bank = Bank(_fitted(folder, url), folder)
        bank.do("segmenter.score")
        yield bank.url


@pytest.fixture
def scored_bank(scored_template: str, tmp_path: Path) -> Iterator[Bank]:
    with copies(scored_template) as url:
        yield Bank(url, tmp_path)


def _fitted(folder: Path, url: str = "", **request: Any) -> str:
    """The URL of a fitted bank, in a file of the folder unless one is given."""
    path = folder / "bank.db"
    path.touch()
    bank = Bank(url or f"sqlite:///{path}", folder).build()
    bank.do("segmenter.fit", **request)
    return bank.url


def test_from_fit_to_report_the_planted_segments_are_found_and_keep_their_ids(bank: Bank) -> None:
    bank.configure({"categories": ["channel", "country", "category"]})
    fitted = bank.do("segmenter.fit", until=MIDDLE)
    first = bank.do("segmenter.score", until=MIDDLE)
    before = bank.current()
    again = bank.do("segmenter.fit")
    second = bank.do("segmenter.score")
    now = bank.current()

    assert fitted.data["status"] == "champion"
    ids = {int(key) for key in first.data["segments"]}
    assert ids == set(range(1, fitted.data["segments"] + 1))
    assert set(again.data["gate"]["kept"]) == ids, "a refit keeps the ids"
    truth = dict(SMALL.truth_segments.itertuples(index=False))
    assigned = {c: kind[1] for c, kind in now.items() if kind[0] == "assigned" and c in truth}
    assert len(assigned) >= 190
    ari = adjusted_rand_index([truth[c] for c in assigned], list(assigned.values()))
    assert ari >= 0.8
    stayed = [c for c in before if before[c] == now[c]]
    assert len(stayed) >= 0.9 * len(before)
    assert len(now) == second.data["customers"] == 201
    assert second.data["rows_without_customer"] == 3
    assert now[NEVER_BOUGHT] == ("too_new", None)

    out = bank.folder / "segments.html"
    bank.do("segmenter.report", options={"out": out})
    html = out.read_text()
    names = [name for (name,) in bank.ask("SELECT name FROM #segment_summary")]
    assert len(names) == len(ids)
    assert all(name in html for name in names)
    assert "<script" not in html


def test_features_are_one_row_per_customer_with_the_quintiles(scored_bank: Bank) -> None:
    (total,) = scored_bank.ask(
        "SELECT count(*), count(net_amount), min(rfm_monetary), max(rfm_monetary) "
        "FROM #customer_features"
    )
    assert total == (201, 200, 1, 5)
    idle = scored_bank.ask(
        "SELECT purchase_days, net_amount, rfm_recency, customer_region FROM #customer_features "
        f"WHERE customer_id = {NEVER_BOUGHT}"
    )
    assert idle[0][:3] == (0.0, None, None)
    assert idle[0][3] == SMALL.customers.region.iloc[0]


def test_descriptors_are_described_and_never_form_segments(fitted_bank: Bank) -> None:

    described = {
        name for (name,) in fitted_bank.ask("SELECT DISTINCT feature FROM #segment_profiles")
    }
    assert {"customer_age", "customer_region_north", "customer_product_basic"} <= described
    (text,) = fitted_bank.ask("SELECT card FROM #model_versions")[0]
    features = json.loads(text)["features"]
    assert features["customer_age"]["all"].startswith("descriptor")
    assert features["purchase_days"]["all"] == "used"


def test_the_same_fit_twice_is_one_model(fitted_bank: Bank) -> None:
    again = fitted_bank.do("segmenter.fit")

    assert again.data["status"] == "champion"
    assert again.rows_written == 0
    assert fitted_bank.ask("SELECT model_version_id FROM #model_versions") == [
        (again.model_version_id,)
    ]


def test_a_refit_begins_where_the_champion_ended_and_says_what_became_of_its_segments(
    early_bank: Bank,
) -> None:
    ((first,),) = early_bank.ask("SELECT model_version_id FROM #model_versions")
    second = early_bank.do("segmenter.fit")
    again = early_bank.do("segmenter.fit")

    assert second.data["status"] == "champion"
    compared = second.data["gate"]["compared"]
    assert compared["start"] == first
    assert not refitting.wins(compared)
    (ids,) = zip(
        *early_bank.ask("SELECT segment_id FROM #segments GROUP BY 1 ORDER BY 1"), strict=True
    )
    links = early_bank.ask("SELECT * FROM #segment_lineage ORDER BY from_segment_id")
    assert [link[:5] for link in links] == [
        (i, i, first, second.model_version_id, "kept") for i in ids
    ]
    assert all(link[5] > 0.7 for link in links)
    assert again.model_version_id == second.model_version_id, "the same fit twice is one model"
    assert again.rows_written == 0


def test_a_challenger_that_may_not_lead_is_stored_beside_the_candidate(early_bank: Bank) -> None:
    ((first,),) = early_bank.ask("SELECT model_version_id FROM #model_versions")
    with runs.opened(early_bank.config, "segmenter.fit", NOW) as run:
        window, champion = fitting.training_window(run, Request(until=END))
        people = population.read(run, window.read_from, window.until)
        fitted, previous = fitting.trained_on(run, people, window, champion)
        cold = fitted.task.fitted(None, {"start": None, "gain": 0.5})
        both = replace(fitted, challenger=cold)

        told = fitting.registered(run, people, window, champion, previous, both, Outcome(""))

    assert told.rows_written == 2
    assert "describes customers better, by 0.50 nats each" in told.message
    status = dict(early_bank.ask("SELECT model_version_id, status FROM #model_versions"))
    assert status[told.data["challenger"]] == "candidate"
    assert set(status) == {first, told.model_version_id, told.data["challenger"]}
    ((gate,),) = early_bank.ask(
        f"SELECT gate FROM #model_versions WHERE model_version_id = '{told.data['challenger']}'"
    )
    assert json.loads(gate)["compared"] == {"start": None, "gain": 0.5}
    linked = early_bank.ask("SELECT DISTINCT to_model_version_id FROM #segment_lineage")
    assert len(linked) == 2
    assert not [check for check in verifying.verify(early_bank.config, NOW) if check["rows"]]


def test_names_stay_with_their_segments(early_bank: Bank) -> None:
    ask = "SELECT segment_id, name, named_by FROM #segment_summary ORDER BY segment_id"
    (_, ours, _), *_ = early_bank.ask(ask)
    results = runs.open_results(early_bank.config)
    with results.transaction() as connection:
        assert store.rename_segment(connection, results.tables, 2, "Weekend families", "Ada") == 1
    early_bank.configure(names={"3": "Late starters"})

    early_bank.do("segmenter.fit")

    named = {row[0]: row[1:] for row in early_bank.ask(ask)}
    assert named[1] == (ours, "model")
    assert named[2] == ("Weekend families", "Ada")
    assert named[3] == ("Late starters", "configuration")


def test_the_promises_hold_through_refits_roll_backs_and_backfills(early_bank: Bank) -> None:
    early_bank.do("segmenter.score", until=MIDDLE)
    early_bank.do("segmenter.fit")
    early_bank.do("segmenter.score", until=MIDDLE)
    before = early_bank.current()
    counted = early_bank.do("segmenter.score", dry_run=True)
    scored = early_bank.do("segmenter.score")
    query = "SELECT * FROM #customer_segments ORDER BY customer_id, valid_from"
    once = early_bank.ask(query)
    early_bank.do("segmenter.score")
    assert early_bank.ask(query) == once, "the same moment again says the same"
    results = runs.open_results(early_bank.config)
    with results.transaction() as connection:
        earlier = registry.earlier_champion(connection, results.tables, "segmenter")
        registry.promote(connection, results.tables, earlier, by="Ada", now=NOW)
    early_bank.do("segmenter.score")
    since = START.to_pydatetime().replace(tzinfo=UTC)
    early_bank.do("backfill.segmenter", since=since, until=NOW)

    assert before.keys() == early_bank.current().keys()
    assert counted.data["segments"] == scored.data["segments"]
    checks = verifying.verify(early_bank.config, NOW)
    assert len(checks) > 20
    assert not [check for check in checks if check["rows"]]


def test_a_drift_is_written_told_and_may_start_a_fit(local_bank: Bank) -> None:
    early = END - timedelta(days=DAYS - 25)
    local_bank.do("segmenter.fit", until=early)
    calm = local_bank.do("segmenter.score", until=early)
    silent = local_bank.do("segmenter.score")
    local_bank.configure(refit_on_drift=True)

    counted = local_bank.do("segmenter.score", dry_run=True)
    loud = local_bank.do("segmenter.score")

    assert (calm.data["drifted"], calm.note) == ([], None)
    assert "log_likelihood" in silent.data["drifted"]
    assert silent.data["drifted"] == loud.data["drifted"]
    assert silent.message.endswith(str(silent.note))
    assert (silent.then, counted.then, loud.then) == ((), (), ("segmenter.fit",))
    rows = local_bank.ask("SELECT run_id, feature, drifted FROM #drift_metrics")
    assert len({run for run, _, _ in rows}) == 3
    columns = json.loads(local_bank.ask("SELECT card FROM #model_versions")[0][0])["features"]
    used = {name for name, told in columns.items() if told["all"] == "used"}
    assert {name for _, name, _ in rows} == used | {"log_likelihood"}


def test_the_same_moment_twice_changes_nothing(scored_bank: Bank) -> None:
    query = "SELECT * FROM #customer_segments ORDER BY customer_id, valid_from"
    before = scored_bank.ask(query)

    again = scored_bank.do("segmenter.score")

    assert again.data["periods_opened"] == 0
    assert scored_bank.ask(query) == before


def test_a_moment_before_the_newest_is_refused(scored_bank: Bank) -> None:
    with pytest.raises(ConfigurationError, match="peerwatch backfill segmenter"):
        scored_bank.do("segmenter.score", until=MIDDLE)


def test_backfill_rebuilds_the_months_before_and_touches_nothing_else(scored_bank: Bank) -> None:
    current = scored_bank.current()
    request = {"since": START.to_pydatetime().replace(tzinfo=UTC), "until": NOW}

    counted = scored_bank.do("backfill.segmenter", dry_run=True, **request)
    untouched = scored_bank.count("customer_segments")
    rebuilt = scored_bank.do("backfill.segmenter", **request)
    again = scored_bank.do("backfill.segmenter", **request)

    assert untouched == len(current)
    assert counted.data["rows"] == rebuilt.data["rows"] > 0
    assert again.data["rows"] == 0
    assert scored_bank.current() == current
    first = scored_bank.ask(
        "SELECT customer_id, min(valid_from) FROM #customer_segments GROUP BY 1"
    )
    assert len(first) == len(current)
    april = "2025-04-01"
    assert sum(str(moment).startswith(april) for _, moment in first) >= 190
    whole = "b.window_from = r.window_from AND b.window_to = r.window_to"
    books = scored_bank.ask(
        f"SELECT {whole} FROM #run_batches b JOIN #pipeline_runs r ON r.run_id = b.run_id "
        "WHERE r.job = 'backfill.segmenter'"
    )
    assert set(books) == {(True,)}, "the books tell of all months, as the run does"


def test_a_customer_without_a_purchase_in_the_window_is_inactive(local_bank: Bank) -> None:
    local_bank.configure(lookback_days=30)
    local_bank.do("segmenter.fit", until=MIDDLE)

    later = END + timedelta(days=40)
    outcome = local_bank.do("segmenter.score", now=later + timedelta(days=1), until=later)

    assert outcome.data["states"] == {"assigned": 0, "outlier": 0, "too_new": 1, "inactive": 200}


def test_names_of_the_configuration_win(fitted_bank: Bank) -> None:
    fitted_bank.configure(names={"2": "Weekend families"})
    fitted_bank.do("segmenter.score")

    named = fitted_bank.ask("SELECT name, named_by FROM #segments WHERE segment_id = 2")
    assert named == [("Weekend families", "configuration")]


def test_figures_and_samples_speak_of_the_published_segments(fitted_bank: Bank) -> None:
    found = fitted_bank.do("segmenter.evaluate").data
    out = fitted_bank.folder / "sample.csv"
    fitted_bank.do("segmenter.sample", options={"size": 50, "seed": 1, "out": out})

    drawn = pd.read_csv(out)
    ids = {row["segment_id"] for row in found["segments"]}
    assert found["assigned"] == sum(row["customers"] for row in found["segments"])
    assert 0 <= found["certain_share"] <= 1
    assert -1 <= found["split_half_ari"] <= 1
    assert len(drawn) == 50
    assert set(drawn.segment_id) <= ids
    assert (drawn.purchase_days > 0).all()


def test_a_dry_run_counts_and_writes_nothing(early_bank: Bank) -> None:
    before = [early_bank.count(name) for name in ("model_versions", "pipeline_runs")]

    early_bank.do("segmenter.fit", dry_run=True)
    counted = early_bank.do("segmenter.score", dry_run=True)
    out = early_bank.folder / "never.html"
    early_bank.do("segmenter.report", dry_run=True, options={"out": out})

    assert counted.data["customers"] == 201
    assert before == [early_bank.count(name) for name in ("model_versions", "pipeline_runs")]
    assert early_bank.count("customer_segments") == early_bank.count("customer_features") == 0
    assert not out.exists()


def test_too_few_customers_are_told_with_their_number(local_bank: Bank) -> None:
    early = START.to_pydatetime().replace(tzinfo=UTC) + timedelta(hours=7)

    with pytest.raises(DataQualityError, match=r"found \d+ customers .* expected at least 20"):
        local_bank.do("segmenter.fit", until=early)
    assert local_bank.count("model_versions") == 0


@pytest.mark.parametrize("job", ["segmenter.fit", "segmenter.score"])
def test_without_a_mapped_customer_there_is_one_clear_message(local_bank: Bank, job: str) -> None:
    local_bank.configure(transactions={"customer": None})

    with pytest.raises(ConfigurationError, match=r"no column of transactions is mapped as") as told:
        local_bank.do(job)
    assert len(told.value.faults) == 1


def test_without_a_champion_the_message_says_what_to_do(local_bank: Bank) -> None:
    with pytest.raises(ConfigurationError) as told:
        local_bank.do("segmenter.score", until=MIDDLE)

    assert str(told.value) == (
        f"segmenter score found no champion as of {MIDDLE:%Y-%m-%d}. "
        "Fit one first: peerwatch segmenter fit"
    )


def test_a_feature_that_is_no_longer_mapped_is_named(fitted_bank: Bank) -> None:
    fitted_bank.configure(transactions={"categories": ["country"]})

    with pytest.raises(ConfigurationError, match="channel_share_contactless"):
        fitted_bank.do("segmenter.score")
    refit = fitted_bank.do("segmenter.fit")
    assert refit.data["status"] == "candidate"
    assert any("no longer mapped" in reason for reason in refit.data["gate"]["reasons"])
