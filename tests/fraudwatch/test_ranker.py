"""The ranker: what it learns, when it may lead, and what it never sees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fraudwatch import ranker
from fraudwatch.evaluation import average_precision
from fraudwatch.labels import labels_of
from fraudwatch.ranker import Ranker
from shared.windows import DAY

NO_VERDICTS = pd.DataFrame(
    {"transaction_id": [], "verdict": [], "decided_at": np.empty(0, np.int64)}
)


def a_world(seed: int, rows: int = 6000) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(table, fraud, day): frauds where two columns are high together, one alone says little."""
    generator = np.random.default_rng(seed)
    table = {name: generator.normal(size=rows) for name in ("surprise", "risk", "noise")}
    odds = 2.5 * np.minimum(table["surprise"], table["risk"]) - 4
    fraud = generator.random(rows) < 1 / (1 + np.exp(-odds))
    return table, fraud, np.sort(generator.integers(0, 40, rows))


def ranked(seed: int, *, shuffled: bool = False) -> dict[str, object]:
    """The gate's answer on the last ten days after learning from the days before."""
    table, fraud, day = a_world(seed)
    generator = np.random.default_rng(seed + 100)
    earlier, later = day < 30, day >= 30
    learned = generator.permutation(fraud[earlier]) if shuffled else fraud[earlier]
    model = ranker.train({n: v[earlier] for n, v in table.items()}, learned, 1.0, generator)
    scores = model.log_odds(model.matrix({n: v[later] for n, v in table.items()}))
    return ranker.gate(day[later], fraud[later], table["surprise"][later], scores, generator)


@pytest.mark.parametrize("seed", range(3))
def test_a_better_order_is_promoted(seed):
    gate = ranked(seed)

    assert gate["passed"]
    assert gate["average_precision"] > gate["average_precision_of_density"]


@pytest.mark.parametrize("seed", range(8))
def test_a_ranker_trained_on_shuffled_labels_is_never_promoted(seed):
    assert not ranked(seed, shuffled=True)["passed"]


def test_the_figures_of_the_gate_are_average_precision():
    table, fraud, day = a_world(1)

    gate = ranker.gate(day, fraud, table["noise"], table["risk"], np.random.default_rng(0))

    expected = [average_precision(fraud, table[name]) for name in ("risk", "noise")]
    found = [gate["average_precision"], gate["average_precision_of_density"]]
    assert found == pytest.approx(expected, rel=1e-12)


def test_an_order_is_no_better_than_itself():
    table, fraud, day = a_world(2)

    gate = ranker.gate(day, fraud, table["risk"], table["risk"], np.random.default_rng(0))

    assert not gate["passed"]


def test_probabilities_are_right_although_genuine_rows_were_sampled():
    table, fraud, _ = a_world(3, rows=40_000)
    rare = fraud & (np.random.default_rng(0).random(len(fraud)) < 0.3)

    kept, share = ranker.sampled(rare, np.random.default_rng(0))
    some = {name: values[kept] for name, values in table.items()}
    model = ranker.train(some, rare[kept], share, np.random.default_rng(0))

    assert share < 1
    assert rare[kept].sum() == rare.sum()
    probability = 1 / (1 + np.exp(-model.log_odds(model.matrix(table))))
    assert probability.sum() == pytest.approx(rare.sum(), rel=0.05)


def test_contributions_and_a_constant_sum_to_the_log_odds():
    table, fraud, _ = a_world(4)
    model = ranker.train(table, fraud, 1.0, np.random.default_rng(0))
    matrix = model.matrix(table)

    rest = model.log_odds(matrix) - model.contributions(matrix).sum(1)

    assert np.ptp(rest) < 1e-9


def test_a_ranker_comes_back_from_its_text_to_the_last_bit():
    table, fraud, _ = a_world(5)
    model = ranker.train(table, fraud, 1.0, np.random.default_rng(0))

    again = Ranker.from_arrays(model.header(), model.to_arrays())

    matrix = model.matrix(table)
    np.testing.assert_array_equal(again.log_odds(matrix), model.log_odds(matrix))
    np.testing.assert_array_equal(
        np.concatenate([again.log_odds(matrix[i : i + 1]) for i in range(50)]),
        model.log_odds(matrix)[:50],
    )


def test_the_same_rows_and_seed_give_the_same_trees():
    table, fraud, _ = a_world(6)

    texts = {ranker.train(table, fraud, 1.0, np.random.default_rng(7)).text for _ in range(2)}

    assert len(texts) == 1


def test_a_column_that_is_missing_everywhere_does_no_harm():
    table, fraud, _ = a_world(7)
    table["risk"] = np.full(len(fraud), np.nan)

    model = ranker.train(table, fraud, 1.0, np.random.default_rng(0))

    assert np.isfinite(model.log_odds(model.matrix(table))).all()


@pytest.mark.parametrize(
    ("frauds", "later_frauds", "is_enough"), [(49, 20, False), (50, 19, False), (50, 20, True)]
)
def test_a_ranker_waits_for_enough_known_frauds(frauds, later_frauds, is_enough):
    fraud = np.zeros(500, dtype=bool)
    later = np.arange(500) >= 300
    fraud[:frauds] = True
    fraud[300 : 300 + later_frauds] = True

    assert ranker.enough(fraud, later) is is_enough


def payments(seed: int, rows: int = 400) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "transaction_id": np.arange(rows),
            "occurred_at": generator.integers(0, 60, rows) * DAY + generator.integers(0, 3, rows),
            "customer": generator.integers(-1, 6, rows),
            "label": generator.choice([0.0, 1.0, np.nan], rows, p=[0.6, 0.2, 0.2]),
        }
    )
    return frame.sort_values(["occurred_at", "transaction_id"], ignore_index=True)


def test_risks_are_what_counting_finds():
    frame = payments(0)
    verdicts = pd.DataFrame(
        {
            "transaction_id": [3, 8, 8, 20],
            "verdict": ["confirmed_fraud", "false_positive", "reopened", "genuine_unusual"],
            "decided_at": [int(d * DAY) for d in (5, 30, 41, 12)],
        }
    )
    labels = labels_of(frame, verdicts, delay_days=7)
    times, keys = frame.occurred_at.to_numpy(), frame.customer.to_numpy(np.int64)
    targets, horizon = np.arange(100, 400), 33 * DAY

    found = ranker.risks({"customer": keys}, times, labels, targets, horizon)

    for at, target in enumerate(targets):
        for days in (1, 7, 30):
            begin = times[target] - days * DAY
            same = (keys == keys[target]) & (keys[target] >= 0) & (times >= times[target] - horizon)
            known = frauds = 0
            for moments, sign in ((labels.since, 1), (labels.until, -1)):
                inside = same[:, None] & (moments >= begin) & (moments < times[target])
                known += sign * int(inside.sum())
                frauds += sign * int((inside & labels.fraud).sum())
            assert found[f"customer_known_{days}d"][at] == max(known, 0)
            assert found[f"customer_frauds_{days}d"][at] == max(frauds, 0)
            share = found[f"customer_fraud_share_{days}d"][at]
            assert np.isnan(share) if known <= 0 else share == max(frauds, 0) / known


def test_an_answer_that_came_late_tells_the_same_in_any_journal():
    """Whether or not the journal reaches further back than the horizon of its rows."""
    frame = payments(2)
    verdicts = pd.DataFrame(
        {
            "transaction_id": np.arange(40),
            "verdict": "confirmed_fraud",
            "decided_at": frame.occurred_at[:40] + 36 * DAY,
        }
    )
    since = 35 * DAY
    seen = []
    for rows in (frame, frame[frame.occurred_at >= since - 33 * DAY].reset_index(drop=True)):
        targets = np.flatnonzero(rows.occurred_at >= since)
        keys = {"customer": rows.customer.to_numpy(np.int64)}
        labels = labels_of(rows, verdicts, delay_days=3)
        times = rows.occurred_at.to_numpy()
        seen.append(ranker.risks(keys, times, labels, targets, 33 * DAY))

    for name, values in seen[0].items():
        np.testing.assert_array_equal(values, seen[1][name], err_msg=name)


def test_a_fraud_that_was_reported_at_the_midnight_before_it_tells_nothing_of_itself():
    rows = pd.DataFrame(
        {
            "transaction_id": [0, 1, 2],
            "occurred_at": [10 * DAY + 10, 10 * DAY + 14, 10 * DAY + 18],
            "label": [np.nan, 1.0, np.nan],
            "label_time": pd.array([pd.NA, 10 * DAY, pd.NA], dtype="Int64"),
        }
    )
    labels = labels_of(rows, NO_VERDICTS, delay_days=7)
    keys, times = {"customer": np.zeros(3, np.int64)}, rows.occurred_at.to_numpy()

    found = ranker.risks(keys, times, labels, np.arange(3), 37 * DAY)

    assert found["customer_frauds_1d"].tolist() == [0, 0, 1]


def test_a_label_that_is_not_yet_known_changes_no_risk():
    frame = payments(1)
    targets = np.flatnonzero(frame.occurred_at.to_numpy() < 30 * DAY)
    changed = frame.assign(label=frame.label.where(frame.occurred_at < 24 * DAY, 1.0))
    keys, times = {"customer": frame.customer.to_numpy(np.int64)}, frame.occurred_at.to_numpy()

    before, after = (
        ranker.risks(keys, times, labels_of(rows, NO_VERDICTS, delay_days=7), targets, 37 * DAY)
        for rows in (frame, changed)
    )

    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)
