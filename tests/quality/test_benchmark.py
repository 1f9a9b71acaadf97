"""What the benchmark promises, on small payments made here: no label too early, nothing lost.

Run: python -m pytest tests/quality/test_benchmark.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fraudwatch.features import build, reference
from tests.quality import benchmark, cases, leaderboard, peers, scorers, views
from tests.quality.fingerprints import fingerprint
from tests.quality.views import Payments
from tests.quality.weeks import RULES, Week

SECONDS_A_DAY = 86_400
N = 6_000


def some_payments(folder: Path | None = None, **changes: Any) -> Payments:
    """Sixty days of forty customers at sixty terminals; one payment in thirty is a fraud."""
    generator = np.random.default_rng(3)
    seconds = np.sort(generator.choice(60 * SECONDS_A_DAY, N, replace=False))
    fraud = (generator.random(N) < 1 / 30).astype(np.int64)
    rows = pd.DataFrame(
        {
            "TRANSACTION_ID": np.arange(N),
            "TX_DATETIME": pd.Timestamp("2018-04-01") + pd.to_timedelta(seconds, unit="s"),
            "CUSTOMER_ID": generator.integers(0, 40, N),
            "TERMINAL_ID": generator.integers(0, 60, N),
            "TX_AMOUNT": np.round(generator.lognormal(3, 0.7, N), 2),
            "TX_TIME_DAYS": seconds // SECONDS_A_DAY,
            "TX_FRAUD": fraud,
            "TX_FRAUD_SCENARIO": fraud * generator.integers(1, 4, N),
        }
    )
    return Payments(rows.assign(**changes), folder)


@pytest.fixture(scope="module")
def payments() -> Payments:
    return some_payments()


@pytest.fixture(scope="module")
def week(payments: Payments) -> Week:
    return Week(payments, 50)


# --- windows and columns -------------------------------------------------------------------------


def test_training_ends_a_week_before_the_test_where_labels_are_used(week: Week) -> None:
    day = week.payments.day

    labelled, free = week.training(7, labels=True), week.training(7, labels=False)

    assert (day[labelled].min(), day[labelled].max()) == (36, 42)
    assert (day[free].min(), day[free].max()) == (43, 49)
    assert set(day[week.test]) == set(range(50, 57))


def test_a_column_knows_no_label_younger_than_a_week(payments: Payments) -> None:
    moment = payments.times[N // 2]
    young = payments.times > moment - views.DELAY_DAYS * 86_400_000_000
    flipped = some_payments(TX_FRAUD=np.where(young, 1 - payments.fraud, payments.fraud))
    before = payments.times <= moment

    for name in views.COLUMNS:
        here, there = payments.column(name)[before], flipped.column(name)[before]
        np.testing.assert_array_equal(here, there, err_msg=name)


def test_only_the_columns_said_to_use_labels_use_them(payments: Payments) -> None:
    other = some_payments(TX_FRAUD=1 - payments.fraud)

    changed = {
        name
        for name in views.COLUMNS
        if not np.array_equal(payments.column(name), other.column(name))
    }

    assert changed == views.LABELLED


def test_later_payments_never_change_a_column(payments: Payments) -> None:
    amounts = payments.amount.copy()
    amounts[N // 2 :] *= 7
    other = some_payments(TX_AMOUNT=amounts)

    for name in views.COLUMNS:
        here, there = payments.column(name)[: N // 2], other.column(name)[: N // 2]
        np.testing.assert_array_equal(here, there, err_msg=name)


def test_the_focal_columns_are_peerwatchs_own(payments: Payments) -> None:
    rows = pd.DataFrame(
        {
            "occurred_at": payments.times,
            "customer_id": pd.array(payments.customer, dtype="Int64"),
            "amount": payments.amount,
            "currency": "",
        }
    )
    opening = rows[payments.day < views.OPENING_DAYS]

    ours = build(rows, np.arange(N), reference(opening), "UTC")

    np.testing.assert_allclose(payments.column("focal_ratio"), ours["amount_ratio"], rtol=1e-4)
    relative = payments.column("amount") / ours["amount_relative"]
    np.testing.assert_allclose(relative, np.median(relative), rtol=1e-5)


def test_columns_are_kept_and_read_again(tmp_path: Path, payments: Payments) -> None:
    first, second = some_payments(tmp_path), some_payments(tmp_path)

    made, found = first.column("terminal_risk_7d"), second.column("terminal_risk_7d")

    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(made, found)
    np.testing.assert_array_equal(found, payments.column("terminal_risk_7d"))


# --- figures -------------------------------------------------------------------------------------


def test_nothing_scores_above_the_perfect_oracle(week: Week) -> None:
    tables = {name: week.figures(formula(week)) for name, (_, formula) in RULES.items()}

    perfect = tables["oracle: perfect"]
    assert perfect["main"]["AP"] == perfect["all rows"]["AP"] == 1.0
    for figures in tables.values():
        for table, found in figures.items():
            best = perfect[table]
            assert all(found[name] <= best[name] + 1e-12 for name in best), table


def test_each_ceiling_lies_above_the_one_that_knows_less(week: Week) -> None:
    names = ("scenarios 1 and 3", "and scenario 2 at known terminals", "perfect")

    visible, known, perfect = (
        week.figures(RULES[f"oracle: {name}"][1](week))["main"]["AP"] for name in names
    )

    assert visible < known < perfect == 1.0


def test_the_book_filter_leaves_out_only_customers_with_an_older_fraud(week: Week) -> None:
    p, left = week.payments, np.flatnonzero(~week.kept) + week.test.start

    for row in left:
        own = (p.customer == p.customer[row]) & (p.fraud == 1)
        assert ((p.day[own] >= 36) & (p.day[own] < p.day[row] - views.DELAY_DAYS)).any()
    assert 0 < len(left) < week.test.stop - week.test.start


def test_scores_that_are_not_finite_are_refused(week: Week) -> None:
    scores = np.zeros(week.test.stop - week.test.start)
    scores[0] = np.nan

    with pytest.raises(ValueError, match="finite"):
        week.figures(scores)


# --- detectors -----------------------------------------------------------------------------------


def planted(rows: int = 400) -> peers.Split:
    """Normal rows to train on with 2 % of outliers among them, and as many to score."""
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(2, rows, 6))
    fraud = (np.arange(rows) < rows // 50).astype(np.int64)
    train[fraud == 1] += 6
    test[fraud == 1] += 6
    return peers.Split(train, fraud, test)


@pytest.mark.parametrize("name", [n for n, d in peers.DETECTORS.items() if d.library != "pyod"])
def test_planted_outliers_are_found(name: str) -> None:
    split = planted()
    for setting in peers.settings(name)[: 1 if name == "GMM30" else None]:
        scores = peers.fit(setting, split, seed=0)(split.test)

        assert scores[split.fraud == 1].min() > np.median(scores), setting.text


@pytest.mark.filterwarnings("ignore")  # of other people's libraries
@pytest.mark.parametrize("name", [n for n, d in peers.DETECTORS.items() if d.cost < 3])
def test_a_seed_gives_the_same_scores_again(name: str) -> None:
    if peers.DETECTORS[name].library == "pyod":
        pytest.importorskip("pyod")
    split, setting = planted(), peers.Setting(name)

    one, same = (peers.fit(setting, split, seed=1)(split.test) for _ in range(2))

    np.testing.assert_array_equal(one, same)


def test_rows_beyond_the_cap_are_drawn_without_repetition() -> None:
    kernel = peers.DETECTORS["OCSVM"]

    kept = peers.drawn(kernel, (50_000, 20), seed=4)

    assert len(np.unique(kept)) == len(kept) == peers.KERNEL_ROWS
    assert (np.diff(kept) > 0).all()
    assert len(peers.drawn(peers.DETECTORS["KNN"], (50_000, 2), seed=4)) == 50_000


def test_infinite_scores_become_the_highest() -> None:
    np.testing.assert_array_equal(
        peers.finite(np.array([1.0, np.inf, -2.0, np.nan])), [1, 1, -2, 1]
    )


def test_every_scorer_has_a_name_of_its_own() -> None:
    for dataset in cases.PARTS:
        names = [(one.name, one.view, one.setting) for one in scorers.on(dataset)]

        assert len(set(names)) == len(names) > 10
        assert "peerwatch" in {name for name, _, _ in names}


def test_a_scorer_that_learns_from_labels_or_their_columns_says_so() -> None:
    said = {(one.name, one.view): one.labels for one in scorers.on("handbook")}

    assert said["LightGBM", "rich24"] == "training"
    assert said["KNN", "rich+known"] == said["KNN", "book15"] == "inputs, 7 days old"
    assert said["KNN", "rich24"] == said["GMM1", "focal2"] == "none"


# --- cells and tables ----------------------------------------------------------------------------


def a_cell(part: str, ap: float, detector: str = "PCA", **changes: Any) -> dict[str, Any]:
    """A line of cells.jsonl of the handbook."""
    usual = {
        **{"dataset": "handbook", "part": part, "detector": detector, "view": "rich24"},
        **{"setting": "default", "seed": 0, "labels": "none", "train_rows": 10},
        **{"protocol": benchmark.protocol_of("handbook"), "source": "x", "fit_seconds": 1.0},
        **{"score_seconds": 1.0, "figures": {"main": {"AUC": 0.5, "AP": ap}}},
    }
    return usual | changes


def as_frame(*cells: dict[str, Any]) -> pd.DataFrame:
    return leaderboard.frame(cells, {"handbook": benchmark.protocol_of("handbook")})


def test_a_setting_is_chosen_on_the_weeks_of_choice_alone() -> None:
    choice, report = leaderboard.WEEKS[0], leaderboard.WEEKS[-1]
    rows = as_frame(
        *(a_cell(choice, 0.2), a_cell(report, 0.2)),
        *(a_cell(choice, 0.3, setting="good"), a_cell(report, 0.1, setting="good")),
        *(a_cell(choice, 0.1, setting="late"), a_cell(report, 0.9, setting="late")),
    )

    shown = leaderboard.chosen(leaderboard.by_part(rows))

    assert set(shown["setting"]) == {"default", "good"}


def test_seeds_are_averaged_within_a_week() -> None:
    week = leaderboard.WEEKS[0]

    parts = leaderboard.by_part(as_frame(a_cell(week, 0.2), a_cell(week, 0.4, seed=1)))

    assert parts[["AP", "seeds"]].to_numpy().tolist() == [[pytest.approx(0.3), 2]]


def test_paired_differences_are_those_of_the_weeks() -> None:
    one, other = [0.3, 0.5, 0.2, 0.6], [0.2, 0.1, 0.3, 0.4]
    rows = as_frame(
        *(a_cell(week, ap, "A") for week, ap in zip(leaderboard.WEEKS, one, strict=False)),
        *(a_cell(week, ap, "B") for week, ap in zip(leaderboard.WEEKS, other, strict=False)),
    )

    found = leaderboard.paired(rows, ("A", "rich24", "default"), ("B", "rich24", "default"), "AP")

    differences = np.array([0.1, 0.4, -0.1, 0.2])
    assert found["difference"] == pytest.approx(differences.mean())
    assert found["s.e."] == pytest.approx(differences.std(ddof=1) / 2)


def test_a_cell_of_another_protocol_counts_no_more(tmp_path: Path) -> None:
    (wanted,) = benchmark.wanted(
        benchmark.Asked(("handbook",), ("GMM1",), ("rich24",), (1,), seeds=(0, 1))
    )
    source = scorers.named("handbook", "GMM1", "rich24", "default").source
    done = a_cell(wanted.part, 0.2, "GMM1", source=source)
    lines = tmp_path / leaderboard.CELLS

    lines.write_text(json.dumps(done | {"protocol": "older"}) + "\n", encoding="utf-8")
    before = benchmark.missing(tmp_path, [wanted])
    with lines.open("a", encoding="utf-8") as out:
        out.write(json.dumps(done) + "\n" + json.dumps(done)[:40])  # the last one was cut off
    after = benchmark.missing(tmp_path, [wanted])

    assert (before, after) == ([wanted], [])


def test_what_is_missing_stands_in_the_table(tmp_path: Path) -> None:
    cells = [a_cell(week, 0.25) for week in leaderboard.WEEKS[:2]]
    text = "".join(json.dumps(cell) + "\n" for cell in cells)
    (tmp_path / leaderboard.CELLS).write_text(text, encoding="utf-8")
    left = [("handbook", week, "KNN", "rich24", "default", "0") for week in leaderboard.WEEKS]

    markdown, csv = leaderboard.write(
        tmp_path, {"handbook": benchmark.protocol_of("handbook")}, left
    )

    written = markdown.read_text(encoding="utf-8")
    assert "| PCA | rich24 | default | none | 0.500 | 0.250 |" in written
    assert "| handbook | KNN | rich24 | default | 7 |" in written
    assert pd.read_csv(csv)["AP"].tolist() == [0.25, 0.25]


def test_prose_is_no_part_of_a_fingerprint(tmp_path: Path) -> None:
    def of(text: str) -> str:
        path = tmp_path / "code.py"
        path.write_text(text, encoding="utf-8")
        return fingerprint(path)

    plain = of("def f(x):\n    return x + 1\n")

    assert of('"""Module."""\ndef f(x):\n    "Adds."\n    return x + 1  # one\n') == plain
    assert of("def f(x):\n    return x + 2\n") != plain
