"""Scores, evidence and the ranker between the database and the model: what they may depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fraudwatch.assessing import Assessor
from fraudwatch.scope import champion_of
from shared import frames, registry, runs
from tests.builders import NOW, a_transaction, make_table, run_sql
from tests.small_bank import (
    END,
    FITTED,
    KNOWN_AFTER,
    LABELS,
    RIPE,
    START,
    TYPES,
    Bank,
    a_bank_of,
    copies,
    few_steps,
    moment_of,
    taught,
    taught_bank,
    transactions,
    troubled,
)

SCOPE = END - timedelta(days=4)
IN_SCOPE = sorted((row for row in troubled() if moment_of(row) >= SCOPE), key=moment_of)
CALM = timedelta(microseconds=1)


def scoped(url: str, **settings: Any) -> Bank:
    """The taught bank with a scope of four days and two reviews a day that are drawn."""
    bank = taught(url)
    bank.settings |= {"score_from": SCOPE.date(), "exploration_per_day": 2, **settings}
    return bank


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a bank whose labels taught the evidence and a ranker; not scored."""
    path = tmp_path_factory.mktemp("taught") / "bank.db"
    path.touch()
    return taught_bank(f"sqlite:///{path}").url


@pytest.fixture(scope="module")
def scored_url(template: str) -> Iterator[str]:
    with copies(template) as url:
        scoped(url).score()
        yield url


@pytest.fixture
def bank(template: str) -> Iterator[Bank]:
    with copies(template) as url:
        yield scoped(url)


@pytest.fixture
def another_bank(template: str) -> Iterator[Bank]:
    with copies(template) as url:
        yield scoped(url)


@pytest.fixture
def scored(scored_url: str) -> Iterator[Bank]:
    with copies(scored_url) as url:
        yield scoped(url)


def moved(bank: Bank, url: str) -> Bank:
    """The same payments and the same champions in another, empty database."""
    make_table(url, "card_tx", TYPES, troubled())
    there = scoped(url).make_results()
    here, other = runs.open_results(bank.config), runs.open_results(there.config)
    for kind in ("fraudwatch", "ranker"):
        with here.transaction() as connection:
            model = registry.champion(connection, here.tables, kind)
        assert model is not None
        with other.transaction() as connection:
            name, _ = registry.store(
                connection, other.tables, kind, model.header, model.arrays, now=NOW,
                window=(model.trained_from, model.trained_to), rows=1, metrics={}, card={},
            )  # fmt: skip
            registry.promote(connection, other.tables, name, by="a person", now=NOW)
        assert name == model.model_version_id
    return there


def champion(bank: Bank, kind: str = "fraudwatch") -> str:
    return str(
        bank.ask(
            "SELECT model_version_id FROM #model_versions WHERE status = 'champion' "
            f"AND kind = '{kind}'"
        )[0][0]
    )


def numbers(bank: Bank) -> dict[Any, tuple]:
    """All that is said of each transaction in numbers, alert or not."""
    rows = bank.ask(
        "SELECT s.transaction_id, s.log_likelihood, s.surprise, s.anomaly_score, s.p_value, "
        "a.priority, a.expected_loss, a.q_value FROM #transaction_scores s LEFT JOIN "
        "#fraud_alerts a ON a.transaction_id = s.transaction_id WHERE s.role = 'published'"
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def words(bank: Bank) -> list[tuple]:
    """All that is said of alerts in keys and texts."""
    said = bank.ask(
        "SELECT transaction_id, origin, ranker_version_id, model_version_id FROM #fraud_alerts"
    )
    queue = [(str(day), *place) for day, *place in bank.queue()]
    return [*sorted(said), *bank.alerts(), *queue]


def assert_same(bank: Bank, other: Bank) -> None:
    found, expected = numbers(bank), numbers(other)
    assert found.keys() == expected.keys()
    both = [np.array([of[key] for key in expected], dtype=float) for of in (found, expected)]
    np.testing.assert_allclose(*both, rtol=0, atol=1e-6)
    assert words(bank) == words(other)


# --- what is learned ----------------------------------------------------------------------------


def test_labels_teach_the_evidence_and_a_ranker_that_orders_the_alerts(scored):
    ranker = champion(scored, "ranker")

    found = scored.ask(
        "SELECT ranker_version_id, priority - anomaly_score, expected_loss, amount, priority "
        "FROM #fraud_alerts"
    )

    assert len(found) > 10 and {row[0] for row in found} == {ranker}
    assert sum(abs(row[1]) > 0.1 for row in found) > 10, "the ranker's order is its own"
    for _, _, loss, amount, priority in found:
        assert loss == pytest.approx(abs(amount) / (1 + np.exp(-priority)))


def test_alerts_have_a_line_for_each_key_and_the_ranker_beside_the_sum(scored):
    rows = scored.ask(
        "SELECT a.alert_id, r.feature, r.contribution, a.log_likelihood, a.customer_id IS NULL, "
        "r.text FROM #fraud_alerts a JOIN #fraud_alert_reasons r ON r.alert_id = a.alert_id"
    )

    texts = {row[1]: row[5] for row in rows}
    for alert in {row[0] for row in rows}:
        own = [row for row in rows if row[0] == alert]
        names = {row[1] for row in own}
        kinds = {"device", "counterparty"} | (set() if own[0][4] else {"customer"})
        assert {f"evidence.{kind}" for kind in kinds} <= names
        assert any(name.startswith("ranker.") for name in names)
        inside = [row for row in own if not row[1].startswith(("evidence.", "ranker."))]
        assert sum(row[2] for row in inside) == pytest.approx(-own[0][3], abs=1e-5)
    assert "this device" in texts["evidence.device"]


def test_a_confirmed_fraud_raises_what_shares_a_key_with_it_and_nothing_else(
    bank, scored, tmp_path
):
    rows = [row for row in troubled() if moment_of(row) < SCOPE and not row["fraud"]]
    told = next(row for row in reversed(rows) if row["cust"] in {r["cust"] for r in IN_SCOPE})
    decide(bank, tmp_path / "v.csv", [(told["tx_id"], "confirmed_fraud", SCOPE)])

    bank.score()

    found, expected = numbers(bank), numbers(scored)
    keys = ("cust", "merchant_id", "device")
    for row in IN_SCOPE:
        key, shared = row["tx_id"], [row[name] == told[name] for name in keys]
        if row["cust"] == told["cust"]:
            assert found[key][2] > expected[key][2] + 0.1
        if not any(shared):
            assert found[key][:4] == expected[key][:4]


def test_a_row_that_comes_between_two_reads_of_the_source_says_nothing(scored):
    """It is not there for the features; the journal is read after them."""
    asked = next(row for row in reversed(IN_SCOPE) if row["cust"])
    at = frames.micros(moment_of(asked))
    late = {**asked, "tx_id": 1, "ts": f"{moment_of(asked) - CALM:%Y-%m-%d %H:%M:%S.%f}"}
    found = []
    with runs.opened(scored.config, "fraudwatch.explain", NOW) as run:
        model = champion_of(run)
        assert model is not None
        for new in ([], [{**late, "amt": 9999.0}]):
            assessor = Assessor(run, model)
            rows = assessor.read(at, at + 1)
            scored.add(new)
            place = np.flatnonzero(rows.transaction_id == asked["tx_id"])
            found.append(assessor.assess(rows, place).judged.anomaly_score[0])

    assert found[0] == found[1]


def test_calibration_rows_are_judged_like_any_others(bank):
    """Fitted and scored by different ways from the database, they have the same scores."""
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        model = registry.champion(connection, results.tables, "fraudwatch")
    assert model is not None
    since, until = (model.header["calibration"][name] for name in ("since", "until"))
    bank.settings["score_from"] = frames.moment(since).date()

    bank.score(until=FITTED)

    rows = [row for row in troubled() if since <= frames.micros(moment_of(row)) < until]
    found = numbers(bank)
    calibrated = [model.arrays[f"calibration.{kind}"] for kind in ("scores", "frauds")]
    assert [len(part) for part in calibrated] == [
        sum(not row["fraud"] or moment_of(row) + KNOWN_AFTER >= FITTED for row in rows),
        sum(bool(row["fraud"]) and moment_of(row) + KNOWN_AFTER < FITTED for row in rows),
    ]
    np.testing.assert_allclose(
        sorted(found[row["tx_id"]][2] for row in rows), np.sort(np.concatenate(calibrated)),
        rtol=0, atol=1e-6,
    )  # fmt: skip


# --- repeatable ---------------------------------------------------------------------------------


def hide(bank: Bank) -> None:
    """The source as it stood when the scope began: later reports are not there yet.

    A zero is no answer for longer than a report takes, so that nothing is known in between.
    """
    run_sql(bank.url, f"UPDATE card_tx SET fraud = 0 WHERE known_at >= '{SCOPE:%Y-%m-%d}'")


def reveal(bank: Bank, since: datetime, until: datetime) -> None:
    """What became known in [since, until) is told."""
    low, high = (f"{moment:%Y-%m-%d %H:%M:%S.%f}" for moment in (since, until))
    run_sql(
        bank.url,
        f"UPDATE card_tx SET fraud = 1 WHERE known_at >= '{low}' AND known_at < '{high}'",
    )


VERDICTS = [
    (row["tx_id"], "confirmed_fraud" if row["fraud"] else "false_positive",
     moment_of(row) + timedelta(hours=5))
    for row in IN_SCOPE if row["tx_id"] % 4 == 0
]  # fmt: skip


def decide(bank: Bank, path: Path, verdicts: Iterable[tuple[Any, str, datetime]]) -> None:
    """Records verdicts, each with the moment when it was decided."""
    lines = [f"{key},{verdict},{at.isoformat()}" for key, verdict, at in verdicts]
    if lines:
        path.write_text("\n".join(["transaction_id,verdict,decided_at", *lines]))
        bank.do("fraudwatch.verdict", options={"sheet": path, "by": "a person"})


def ends() -> list[datetime]:
    """Where the batches end: a day, quarters of an hour, single rows, and a day again."""
    moments = [moment_of(row) for row in IN_SCOPE]
    second, third = SCOPE + timedelta(days=1), SCOPE + timedelta(days=2)
    quarters = [second + timedelta(minutes=15 * at) for at in range(44, 54)]
    with_rows = [end for end in quarters if any(end - CALM * 9e8 <= at < end for at in moments)]
    lone = [at + CALM for at in moments if at >= third][:6]
    return [second, *with_rows, third, *lone, END - timedelta(days=1), END]


def test_batches_of_a_row_of_a_quarter_and_of_a_day_give_the_same_while_answers_come_in(
    bank, another_bank, tmp_path, postgresql_url
):
    """The small batches on PostgreSQL, all at once on SQLite."""
    bank = moved(bank, postgresql_url)
    decide(another_bank, tmp_path / "all.csv", VERDICTS)
    another_bank.score()

    hide(bank)
    before = SCOPE
    for at, end in enumerate(ends()):
        reveal(bank, before, end)
        new = [verdict for verdict in VERDICTS if before <= verdict[2] < end]
        decide(bank, tmp_path / f"{at}.csv", new)
        bank.score(until=end)
        before = end

    assert_same(bank, another_bank)
    days = [
        [(str(day), scored) for day, scored in one.ask("SELECT day, scored FROM #closed_days")]
        for one in (bank, another_bank)
    ]
    assert sorted(days[0]) == sorted(days[1]) and len(days[0]) == 3
    assert bank.count("fraud_alerts", "q_value IS NOT NULL") > 10
    assert bank.count("fraud_alerts", "origin = 'exploration'") == 6


MIDDLE = moment_of(IN_SCOPE[len(IN_SCOPE) // 2])  # the moment of a row


def what_comes_later(bank: Bank, how: str) -> None:
    """Changes what becomes known at `MIDDLE` or after it, and nothing that is known before."""
    late = f"'{MIDDLE:%Y-%m-%d %H:%M:%S.%f}'"
    young = f"ts >= '{MIDDLE - RIPE:%Y-%m-%d %H:%M:%S.%f}'"
    statements = {
        "removed": f"UPDATE card_tx SET fraud = NULL, known_at = NULL WHERE {young} "
        f"AND (fraud = 0 OR known_at >= {late})",
        "changed": f"UPDATE card_tx SET fraud = 0 WHERE fraud = 1 AND {young} "
        f"AND known_at >= {late}",
        "added": f"UPDATE card_tx SET fraud = 1, known_at = {late} WHERE fraud = 0 AND {young}",
    }
    if how in statements:
        run_sql(bank.url, statements[how])


@pytest.mark.parametrize("how", ["removed", "changed", "added", "verdicts"])
def test_what_is_not_yet_known_at_a_transactions_moment_leaves_it_equal_to_the_last_bit(
    bank, scored, tmp_path, how
):
    what_comes_later(bank, how)
    if how == "verdicts":
        rows = [row for row in troubled() if moment_of(row) < MIDDLE][-60:]
        said = ("false_positive", "confirmed_fraud")
        decide(
            bank,
            tmp_path / "v.csv",
            [(row["tx_id"], said[row["fraud"] == 0], MIDDLE) for row in rows],
        )

    bank.score()

    found, expected = numbers(bank), numbers(scored)
    early = [row["tx_id"] for row in IN_SCOPE if moment_of(row) <= MIDDLE]
    late = [row["tx_id"] for row in IN_SCOPE if moment_of(row) > MIDDLE]
    assert len(early) > 50
    for key in early:  # drawn reviews are drawn among what has no alert, so q is the day's
        assert found[key][:4] == expected[key][:4]
        if None not in (found[key][4], expected[key][4]):
            assert found[key][4:6] == expected[key][4:6]
    assert any(found[key][2] != expected[key][2] for key in late), "it tells something later"


# --- surprises that are stored ------------------------------------------------------------------


def test_surprises_that_are_read_are_those_that_would_be_computed(scored):
    ids = [row["tx_id"] for row in IN_SCOPE]
    stored = {key: values[1] for key, values in numbers(scored).items()}

    with runs.opened(scored.config, "fraudwatch.explain", NOW) as run:
        model = champion_of(run)
        assert model is not None
        assessor = Assessor(run, model)
        rows = assessor.read(frames.micros(SCOPE), frames.micros(END))
        at = np.flatnonzero(rows.transaction_id.isin(ids))
        scored_now = assessor.detector.score(assessor.features(rows, at))
        computed = assessor.detector.surprise(scored_now)

    keys = rows.transaction_id.iloc[at].tolist()
    assert len(keys) == len(ids)
    np.testing.assert_allclose(computed, [stored[key] for key in keys], rtol=0, atol=1e-9)


def spoil(bank: Bank, model: str) -> None:
    """The surprises that a model stored are no longer its own."""
    bank.say(f"UPDATE #transaction_scores SET surprise = 30 WHERE model_version_id = '{model}'")


def refitted(bank: Bank) -> str:
    """Another density as champion."""
    bank.settings["seed"] = 1
    with few_steps():
        name = bank.do("fraudwatch.fit", until=FITTED).model_version_id
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        registry.promote(connection, results.tables, str(name), by="a person", now=NOW)
    return str(name)


@pytest.mark.parametrize("same", [True, False], ids=["same champion", "new champion"])
def test_evidence_reads_what_the_champion_stored_and_nothing_of_the_one_before(bank, same):
    bank.mapped |= dict.fromkeys(LABELS)  # so that the evidence is of surprises alone
    half = END - timedelta(days=2)
    bank.score(until=half)
    first = champion(bank)
    if not same:
        assert refitted(bank) != first
    with copies(bank.url) as url:
        spoiled = scoped(url, **bank.settings)
        spoiled.mapped = bank.mapped
        spoil(spoiled, first)

        for one in (bank, spoiled):
            one.score()

        late = [row["tx_id"] for row in IN_SCOPE if moment_of(row) >= half]
        found, expected = numbers(spoiled), numbers(bank)
        equal = [found[key] == expected[key] for key in late]
        assert all(equal) if not same else np.mean(equal) < 0.5


# --- recalibration ------------------------------------------------------------------------------


def test_a_recalibration_is_a_child_of_the_same_density_and_its_ranker_goes_on(bank):
    parent, ranker = champion(bank), champion(bank, "ranker")
    bank.score(until=END - timedelta(days=2))
    before = bank.published()

    outcome = bank.do("fraudwatch.recalibrate", until=END - timedelta(days=2))
    child = str(outcome.model_version_id)
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        models = [registry.load(connection, results.tables, name) for name in (parent, child)]
        registry.promote(connection, results.tables, child, by="a person", now=NOW)
    bank.score()

    assert models[1].parent_id == parent != child and models[0].parent_id is None
    assert models[0].header["density_id"] == models[1].header["density_id"]
    assert models[1].header["calibration"]["until"] > models[0].header["calibration"]["until"]
    said = bank.ask("SELECT DISTINCT model_version_id, ranker_version_id FROM #fraud_alerts")
    assert sorted(said) == sorted([(parent, ranker), (child, ranker)])
    after = bank.published()
    assert {key: after[key] for key in before} == before, "what is published stays"


def test_a_ranker_of_another_density_has_no_say(bank):
    ranker = champion(bank, "ranker")
    refitted(bank)
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        registry.promote(connection, results.tables, ranker, by="a person", now=NOW)

    bank.score()

    rows = bank.ask(
        "SELECT ranker_version_id, priority - anomaly_score, expected_loss, amount "
        "FROM #fraud_alerts WHERE origin = 'threshold'"
    )
    assert len(rows) > 5 and {row[:2] for row in rows} == {(None, 0)}
    assert all(0 < loss <= abs(amount) for *_, loss, amount in rows), "by learnt evidence"


LOUD = [  # one a day, each of another customer, half of them in the calibration window
    a_transaction(
        at, f"{FITTED + timedelta(days=at - 15, hours=3):%Y-%m-%d %H:%M:%S}", cust=at + 1,
        amt=90_000.0 + at, merchant_id=777, fraud=1,
    )
    for at in range(1, 29)
]  # fmt: skip


def loud_q_values(url: str, path: Path, confirmed: bool) -> list[float]:
    """q-values of the frauds of closed days, after a recalibration on the days before."""
    bank = Bank(url)
    bank.settings |= {"score_from": FITTED.date(), "false_discovery_rate": 0.2}
    bank.add(LOUD)
    if confirmed:
        frauds = [row for row in (*LOUD, *transactions()) if row["fraud"]]
        old = [row["tx_id"] for row in frauds if moment_of(row) < FITTED - CALM]
        decide(bank, path, [(key, "confirmed_fraud", FITTED - CALM) for key in old])
    bank.do("fraudwatch.recalibrate", until=FITTED)
    bank.score()
    rows = bank.ask(
        "SELECT q_value FROM #fraud_alerts WHERE transaction_id < 100 AND q_value IS NOT NULL"
    )
    return [row[0] for row in rows]


def test_confirmed_frauds_in_the_calibration_window_do_not_silence_the_alarms(
    fitted_sqlite, tmp_path
):
    found = []
    for confirmed in (True, False):
        with copies(fitted_sqlite) as url:
            found.append(np.array(loud_q_values(url, tmp_path / "v.csv", confirmed)))

    known, unknown = found
    assert len(known) == len(unknown) == 14
    assert (known <= 0.2).all()
    assert np.mean(unknown <= 0.2) < 0.5, "unconfirmed they hide each other"


# --- segments as context ------------------------------------------------------------------------


def with_segments(url: str, customers: range, since: datetime) -> Bank:
    """A bank with a champion segmenter that put customers into two segments at a moment."""
    bank = a_bank_of(url, transactions())
    bank.settings |= {"segment_context": True, "score_from": SCOPE.date()}
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        name, _ = registry.store(
            connection, results.tables, "segmenter", {"one": 1}, {"one": np.ones(1)}, now=START,
            window=(START, START), rows=1, metrics={}, card={},
        )  # fmt: skip
        registry.promote(connection, results.tables, name, by="a person", now=START)
    for customer in customers:
        assigned(bank, customer, customer % 2, since)
    return bank


def assigned(bank: Bank, customer: int, segment: int, since: datetime) -> None:
    """The customer is in a segment from now on, by the champion segmenter."""
    moment = f"'{since:%Y-%m-%dT%H:%M:%S.%fZ}'"
    bank.say(
        f"UPDATE #customer_segments SET valid_to = {moment} WHERE customer_id = {customer} "
        "AND valid_to IS NULL",
        "INSERT INTO #customer_segments (customer_id, state, segment_id, valid_from, "
        f"last_scored_at, model_version_id, run_id) VALUES ({customer}, 'assigned', {segment}, "
        f"{moment}, {moment}, '{champion(bank, 'segmenter')}', 'r')",
    )


def fit_card(bank: Bank) -> dict[str, Any]:
    with few_steps():
        bank.do("fraudwatch.fit", until=FITTED)
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        return dict(registry.card(connection, results.tables, champion(bank))["card"])


def test_a_segment_recorded_before_the_day_is_context_and_one_of_the_day_is_not(sqlite_url):
    bank = with_segments(sqlite_url, range(1, 61), START - timedelta(days=1))
    card = fit_card(bank)
    assert "segment" in card["context"] and card["left_out"].get("segment") is None
    assert card["segmenter"] == champion(bank, "segmenter")
    day = END - timedelta(days=2)

    with copies(bank.url) as url:
        changed = Bank(url, settings=bank.settings)
        for customer in range(1, 61):
            assigned(changed, customer, 1 - customer % 2, day + timedelta(seconds=1))
        for one in (bank, changed):
            one.score()
        found, expected = numbers(changed), numbers(bank)

    named = [row for row in transactions() if moment_of(row) >= SCOPE and row["cust"]]
    until = [row["tx_id"] for row in named if moment_of(row) < day + timedelta(days=1)]
    after = [row["tx_id"] for row in named if moment_of(row) >= day + timedelta(days=1)]
    assert len(until) > 50 < len(after) + 30
    assert all(found[key] == expected[key] for key in until)
    assert all(found[key][0] != expected[key][0] for key in after)


def test_segments_known_of_few_rows_are_left_out_with_the_reason(sqlite_url):
    bank = with_segments(sqlite_url, range(1, 31), START - timedelta(days=1))

    card = fit_card(bank)

    assert "segment" not in card["context"] and card["segmenter"] is None
    known = np.mean(
        [(row["cust"] or 99) <= 30 for row in transactions() if moment_of(row) < FITTED]
    )
    assert card["left_out"]["segment"] == (
        f"known for {known:.0%} of the rows only, 80% are needed"
    )


def test_segments_that_are_asked_for_without_a_segmenter_are_left_out_with_the_reason(sqlite_url):
    bank = a_bank_of(sqlite_url, transactions())
    bank.settings["segment_context"] = True

    card = fit_card(bank)

    assert card["left_out"] == {"segment": "there is no champion segmenter"}


# --- exploration and what was missed ------------------------------------------------------------


def test_reviews_that_are_drawn_have_reasons_and_are_one_case_each(scored):
    alerts = scored.ask(
        "SELECT a.alert_id, a.case_id, a.log_likelihood, a.summary, a.q_value, a.day, "
        "s.log_likelihood FROM #fraud_alerts a JOIN #transaction_scores s "
        "ON s.transaction_id = a.transaction_id WHERE a.origin = 'exploration'"
    )
    lines = scored.ask("SELECT alert_id, feature, contribution FROM #fraud_alert_reasons")

    assert len(alerts) == 2 * scored.count("closed_days") > 0
    assert len({row[1] for row in alerts}) == len(alerts)
    cases = {row[0] for row in scored.ask("SELECT case_id FROM #fraud_alerts WHERE origin <> "
                                          "'exploration'")}  # fmt: skip
    assert cases.isdisjoint(row[1] for row in alerts)
    for alert, _, likelihood, summary, q_value, _, published in alerts:
        inside = [
            line[2] for line in lines
            if line[0] == alert and not line[1].startswith(("evidence.", "ranker."))
        ]  # fmt: skip
        assert sum(inside) == pytest.approx(-likelihood, abs=1e-5)
        assert likelihood == published and summary and q_value is not None


def test_a_fraud_that_raised_no_alert_is_counted_as_missed(scored):
    key, amount = scored.ask(
        "SELECT s.transaction_id, t.amt FROM #transaction_scores s JOIN card_tx t "
        "ON t.tx_id = s.transaction_id WHERE s.transaction_id NOT IN "
        "(SELECT transaction_id FROM #fraud_alerts) ORDER BY 1 LIMIT 1"
    )[0]
    figures = "SELECT sum(missed_frauds), sum(missed_value), sum(reviewed) FROM #alert_quality"
    assert not any(scored.ask(figures)[0])

    options = {"transaction": str(key), "verdict": "confirmed_fraud", "by": "a person"}
    scored.do("fraudwatch.verdict", options=options)

    missed, value, reviewed = scored.ask(figures)[0]
    assert (missed, value) == (1, pytest.approx(float(amount)))
    assert not reviewed, "nobody has read an alert"
