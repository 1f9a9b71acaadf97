"""A shop's invoice lines behind a view that gives the amount: segments that a marketer can read.

Run: python -m pytest tests/quality/test_online_retail.py -s
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.quality import commands, datasets
from tests.quality.commands import Done

LINES, CUSTOMERS = 541_909, 4_372
LEAST_SHARE = 0.02  # [segmenter] min_segment_share
MOMENTS = ("2011-06-01", "2011-09-01")  # of which the 90 days after are known


@pytest.fixture(scope="module")
def folder(bank: Callable[[str], Path]) -> Path:
    return bank("online_retail")


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    run = commands.whole_line(folder, "--until", "2011-11-10")
    print(commands.told(folder, run))
    return run


def test_init_takes_the_view_and_its_columns(done: dict[str, Done]) -> None:
    mapped = done["init"].data["mapping"]

    keys = ("table", "id", "time", "customer", "amount", "order")
    expected = ["purchases", "line_id", "moment", "customer", "amount", "invoice"]
    assert [mapped[key] for key in keys] == expected


def test_the_books_and_promises_hold(folder: Path, done: dict[str, Done]) -> None:
    commands.assert_sound(folder, done)
    assert commands.books(folder / "bank.db").source_rows == LINES


def test_segments_are_few_and_none_is_tiny(folder: Path, done: dict[str, Done]) -> None:
    found = commands.segments(folder / "bank.db")

    assert 3 <= len(found) <= 12
    assert min(segment["share"] for segment in found) >= LEAST_SHARE
    names = [segment["name"] for segment in found]
    assert len(set(names)) == len(names)


def test_every_customer_has_one_state(folder: Path, done: dict[str, Done]) -> None:
    current = commands.select(
        folder / "bank.db",
        "SELECT customer_id, count(*) AS rows, max(state) AS state "
        "FROM customer_segments WHERE valid_to IS NULL GROUP BY customer_id",
    )

    assert len(current) == CUSTOMERS
    assert (current.rows == 1).all()
    assert set(current.state) <= {"assigned", "outlier", "too_new", "inactive"}
    assert (current.state == "assigned").mean() > 0.9


def test_segments_differ_in_what_a_marketer_asks(folder: Path, done: dict[str, Done]) -> None:
    """Recency, frequency and money of the segments, as medians of their customers."""
    medians = commands.select(
        folder / "bank.db",
        "SELECT s.segment_id, f.rfm_recency, f.rfm_frequency, f.rfm_monetary, f.purchase_days "
        "FROM current_customer_segments s JOIN customer_features f USING (customer_id) "
        "WHERE s.state = 'assigned'",
    ).groupby("segment_id")
    print(f"\n{medians.median().to_string()}")

    assert medians.rfm_monetary.median().max() - medians.rfm_monetary.median().min() >= 2
    assert medians.purchase_days.median().max() >= 2 * medians.purchase_days.median().min()


@pytest.fixture(scope="module", params=MOMENTS)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What `evaluate` says of a fit as of a moment, on a copy of the source."""
    alone = tmp_path_factory.mktemp(f"as_of_{request.param}")
    try:
        datasets.online_retail(alone).rename(alone / "bank.db")
    except datasets.DataAbsent as absent:
        pytest.skip(str(absent))
    commands.peerwatch(alone, "init", "--url", "sqlite:///bank.db")
    fit = commands.peerwatch(alone, "segmenter", "fit", "--until", request.param)
    seen = commands.peerwatch(alone, "segmenter", "evaluate", "--until", request.param)
    shutil.rmtree(alone)
    rows = seen.data["foresight"]["rows"]
    print(commands.markdown([shown(row) for row in rows], f"90 days after {request.param}"))
    return {**seen.data, "agreement": fit.data["agreement"]}


def shown(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["interval"]
    figures = {key: row[key] for key in ("outcome", "grouping", "groups", "eta_squared", "ahead")}
    return {**figures, "interval": f"{low:.3f} to {high:.3f}"}


def test_segments_tell_more_of_the_next_90_days_than_k_means(told: dict[str, Any]) -> None:
    others = [row for row in told["foresight"]["rows"] if row["grouping"] != "segments"]

    assert {row["outcome"] for row in others} == {"spend", "purchase days"}
    assert min(row["ahead"] for row in others) > 0


def test_two_halves_of_the_customers_give_the_same_segments(told: dict[str, Any]) -> None:
    assert told["agreement"] >= 0.8
    assert told["split_half_ari"] >= 0.8
