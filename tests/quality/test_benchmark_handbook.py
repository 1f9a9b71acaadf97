"""The benchmark's protocol on the handbook's payments: the book's week and the published ceilings.

Run: python -m pytest tests/quality/test_benchmark_handbook.py
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.quality import datasets, peers
from tests.quality.views import VIEWS, Payments
from tests.quality.weeks import RULES, STARTS, Week

BOOK = 129  # 2018-08-08
OWN_WEEKS = (59, 87, 129, 157)  # over these the ceilings were measured before
FEATURES = "handbook/features_2018-07-11_2018-08-14.parquet"
BOOK_NAMES = {
    "weekend": "TX_DURING_WEEKEND",
    "night": "TX_DURING_NIGHT",
    **{f"customer_count_{d}d": f"CUSTOMER_ID_NB_TX_{d}DAY_WINDOW" for d in (1, 7, 30)},
    **{f"customer_mean_{d}d": f"CUSTOMER_ID_AVG_AMOUNT_{d}DAY_WINDOW" for d in (1, 7, 30)},
    **{f"terminal_count_{d}d": f"TERMINAL_ID_NB_TX_{d}DAY_WINDOW" for d in (1, 7, 30)},
    **{f"terminal_risk_{d}d": f"TERMINAL_ID_RISK_{d}DAY_WINDOW" for d in (1, 7, 30)},
}


@pytest.fixture(scope="module")
def payments() -> Payments:
    try:
        return Payments.read()
    except datasets.DataAbsent as absent:
        pytest.skip(str(absent))


def test_the_weeks_hold_the_books_rows(payments: Payments) -> None:
    week = Week(payments, BOOK)
    training = week.training(7, labels=True)

    assert week.name == "2018-08-08"
    assert (week.kept.sum(), payments.fraud[week.test][week.kept].sum()) == (58_264, 385)
    assert (training.stop - training.start, payments.fraud[training].sum()) == (67_240, 598)


def test_the_books_columns_are_as_published(payments: Payments) -> None:
    theirs = datasets.frame(FEATURES).sort_values("TRANSACTION_ID")
    rows = np.searchsorted(payments.identifier, theirs["TRANSACTION_ID"].to_numpy())

    assert set(BOOK_NAMES) == set(VIEWS["book15"]) - {"amount"}
    for ours, name in BOOK_NAMES.items():
        equal = np.isclose(payments.column(ours)[rows], theirs[name], rtol=1e-5)
        assert equal.mean() > 0.9999, ours  # but for payments of one customer in one second


@pytest.mark.parametrize(
    ("rule", "ap", "precision", "value"),
    [
        ("oracle: scenarios 1 and 3", 0.330, 0.087, 0.681),
        ("oracle: and scenario 2 at known terminals", 0.801, 0.311, 0.902),
        ("oracle: perfect", 1.000, 0.401, 1.000),
        ("rule: amount", 0.205, 0.079, 0.612),
        ("rule: terminal risk over 7 days", 0.297, 0.232, 0.222),
    ],
)
def test_ceilings_and_rules_are_those_measured_before(
    payments: Payments, rule: str, ap: float, precision: float, value: float
) -> None:
    weeks = [Week(payments, start) for start in OWN_WEEKS]

    figures = [week.figures(RULES[rule][1](week))["main"] for week in weeks]

    means = [np.mean([one[name] for one in figures]) for name in ("AP", "CP@100", "value@100")]
    assert means == pytest.approx([ap, precision, value], abs=6e-4)
    assert set(OWN_WEEKS) < set(STARTS)


def test_a_gaussian_scores_as_measured_before(payments: Payments) -> None:
    week = Week(payments, BOOK)
    split = week.split("book15", 7, labels=True)

    scores = peers.fit(peers.Setting("GMM1"), split, seed=0)(split.test)

    found = week.figures(scores)["main"]
    names = ("AUC", "AP", "CP@100", "value@100", "AP s2", "AP s3")
    measured = (0.834, 0.259, 0.260, 0.604, 0.255, 0.051)
    assert [found[name] for name in names] == pytest.approx(measured, abs=6e-4)
