"""The planted world: what was promised of it holds, and its truth is where it says."""

from __future__ import annotations

import sqlite3

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from shared.synthetic import (
    DEFECTS,
    KINDS,
    NIGHT_ENDS,
    SEGMENTS,
    SQL_TYPES,
    START,
    VISIBLE_KINDS,
    World,
    _event_sizes,
    adjusted_rand_index,
    planted_explained,
    planted_found,
    world,
)


@pytest.fixture(scope="module")
def whole() -> World:
    return world(7)


@pytest.fixture(scope="module")
def payments(whole: World) -> pd.DataFrame:
    """The valid transactions, typed, with what was planted: kind ("" is honest) and event."""
    rows = whole.transactions.drop_duplicates("tx_id")
    rows = rows[~rows["tx_id"].isin(whole.truth_defects.query("problem != 'duplicate_id'").tx_id)]
    rows = rows.assign(
        amount=rows["amount"].astype(float), moment=pd.to_datetime(rows["booked_at"])
    )
    rows = rows.merge(whole.truth_frauds, on="tx_id", how="left")
    return rows.assign(kind=rows["kind"].fillna("")).sort_values("moment", kind="stable")


def the_past_of(payments: pd.DataFrame, fraud: pd.Series) -> pd.DataFrame:
    own = payments[(payments["client_id"] == fraud["client_id"]) & (payments["amount"] > 0)]
    return own[(own["moment"] < fraud["moment"].normalize()) & ~own["kind"].isin(VISIBLE_KINDS)]


def same(a: World, b: World) -> bool:
    return all(getattr(a, name).equals(getattr(b, name)) for name in World.__dataclass_fields__)


def test_the_same_seed_makes_the_same_world_and_another_seed_another() -> None:
    first = world(3, customers=150, days=50)

    assert same(first, world(3, customers=150, days=50))
    assert not same(first, world(4, customers=150, days=50))


def test_the_world_has_the_promised_size(whole: World, payments: pd.DataFrame) -> None:
    merchants = payments["merchant_id"].nunique()

    assert 85_000 <= len(whole.transactions) <= 115_000
    assert len(whole.customers) == whole.customers["client_id"].nunique() == 1500
    assert 550 <= merchants <= 600
    assert payments["moment"].min() >= START
    assert payments["moment"].max() < START + pd.Timedelta(days=120)


def test_the_source_tables_tell_nothing_of_the_truth(whole: World) -> None:
    assert list(whole.transactions) == list(SQL_TYPES["transactions"])
    assert list(whole.customers) == list(SQL_TYPES["customers"])


def test_the_tables_load_into_sqlite_as_they_are(whole: World) -> None:
    with sqlite3.connect(":memory:") as connection:
        for name, types in SQL_TYPES.items():
            columns = ", ".join(f"{column} {kind}" for column, kind in types.items())
            connection.execute(f"CREATE TABLE {name} ({columns})")
            getattr(whole, name).to_sql(name, connection, if_exists="append", index=False)
        kinds = dict(
            connection.execute("SELECT typeof(amount), count(*) FROM transactions GROUP BY 1")
        )
        clients = dict(
            connection.execute("SELECT typeof(client_id), count(*) FROM transactions GROUP BY 1")
        )
    connection.close()

    problems = whole.truth_defects["problem"].value_counts()
    assert kinds["text"] == problems["text_amount"]
    assert kinds["null"] == problems["no_amount"]
    assert clients["null"] == problems["no_customer"]
    assert set(clients) == {"integer", "null"}


def test_frauds_are_half_a_percent_equally_by_kind(whole: World) -> None:
    counts = whole.truth_frauds["kind"].value_counts()

    assert set(counts.index) == set(KINDS)
    assert counts.nunique() == 1
    assert len(whole.truth_frauds) / len(whole.transactions) == pytest.approx(0.005, abs=2e-4)
    assert whole.truth_frauds["tx_id"].is_unique


def test_a_small_world_still_holds_every_kind() -> None:
    small = world(5, customers=120, days=45)

    counts = small.truth_frauds["kind"].value_counts()
    assert set(counts) == {8}
    assert set(counts.index) == set(KINDS)


def test_a_world_too_small_for_its_frauds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 100 customers.*got 99, 50 and 600"):
        world(0, customers=99, days=50)


def test_every_month_has_its_share_of_every_kind(payments: pd.DataFrame) -> None:
    frauds = payments[payments["kind"] != ""]
    last_weeks = frauds["moment"] >= START + pd.Timedelta(days=120 - 38)

    by_kind = last_weeks.groupby(frauds["kind"]).mean()

    assert by_kind.between(0.15, 0.6).all()  # 38 of the 106 days that have frauds are 0.36
    assert frauds["moment"].min() >= START + pd.Timedelta(days=14)


def test_each_defect_is_in_the_table_rarely_and_never_on_a_fraud(whole: World) -> None:
    rows, defects = whole.transactions, whole.truth_defects
    problem = defects.set_index("tx_id")["problem"]

    of = rows["tx_id"].map(problem)
    counts = defects["problem"].value_counts()
    assert set(counts.index) == set(DEFECTS)
    assert len(defects) < 0.002 * len(rows)
    assert not set(defects["tx_id"]) & set(whole.truth_frauds["tx_id"])
    assert (rows["client_id"].isna() == (of == "no_customer")).all()
    assert (rows["booked_at"].isna() == (of == "no_time")).all()
    assert ((rows["booked_at"] == "not recorded") == (of == "bad_time")).all()
    assert ((rows["amount"] == "n/a") == (of == "text_amount")).all()
    assert (rows["amount"].isna() == (of == "no_amount")).all()
    assert (rows["tx_id"].duplicated(keep=False) == (of == "duplicate_id")).all()


def test_an_unusual_amount_is_many_times_the_customers_own_usual(payments: pd.DataFrame) -> None:
    for _, fraud in payments[payments["kind"] == "unusual_amount"].iterrows():
        past = the_past_of(payments, fraud)

        assert len(past) >= 9  # ten were planted; a defect may have hidden one
        assert 5.5 <= fraud["amount"] / past["amount"].median() <= 33
        assert fraud["merchant_id"] in set(past["merchant_id"])


def test_a_burst_is_eight_to_twelve_payments_within_minutes(payments: pd.DataFrame) -> None:
    bursts = payments[payments["kind"] == "burst"].groupby("event")

    lasts = bursts["moment"].agg(lambda moment: moment.max() - moment.min())
    assert bursts.size().between(8, 12).all()
    assert (lasts <= pd.Timedelta(minutes=18)).all()
    assert (bursts["client_id"].nunique() == 1).all()


def test_payments_of_a_burst_are_of_ordinary_size(payments: pd.DataFrame) -> None:
    for _, fraud in payments[payments["kind"] == "burst"].iterrows():
        past = the_past_of(payments, fraud)["amount"]

        assert 0.5 * past.min() <= fraud["amount"] <= 2 * past.max()


def test_a_new_place_is_a_shop_and_a_country_never_used_otherwise(payments: pd.DataFrame) -> None:
    for _, fraud in payments[payments["kind"] == "new_place"].iterrows():
        own = payments[payments["client_id"] == fraud["client_id"]]
        others = own[own["tx_id"] != fraud["tx_id"]]

        assert fraud["country"] not in set(others["country"])
        assert fraud["merchant_id"] not in set(others["merchant_id"])
        assert 1.3 <= fraud["amount"] / the_past_of(payments, fraud)["amount"].median() <= 5.6


def test_a_taken_over_account_pays_at_night_online_at_new_shops_and_never_else(
    payments: pd.DataFrame,
) -> None:
    night = payments["moment"].dt.hour < NIGHT_ENDS
    for _, attack in payments[payments["kind"] == "takeover_at_night"].groupby("event"):
        others = payments[
            payments["client_id"].isin(attack["client_id"])
            & ~payments["tx_id"].isin(attack["tx_id"])
        ]

        assert 4 <= len(attack) <= 6
        assert night[attack.index].all()
        assert not night[others.index].any()
        assert (attack["channel"] == "online").all()
        assert not set(attack["merchant_id"]) & set(others["merchant_id"])


def test_a_compromised_counterparty_shows_in_nothing_but_the_label(
    payments: pd.DataFrame,
) -> None:
    marked = payments[payments["kind"] == "compromised_counterparty"]
    by_event = marked.groupby("event")

    honest = payments[
        (payments["kind"] == "") & payments["merchant_id"].isin(marked["merchant_id"])
    ]
    honest = honest[honest["amount"] > 0]
    ratio = (
        np.log(marked["amount"]).groupby(marked["merchant_id"]).mean()
        - np.log(honest["amount"]).groupby(honest["merchant_id"]).mean()
    )
    assert (by_event["merchant_id"].nunique() == 1).all()
    assert ((by_event["moment"].max() - by_event["moment"].min()).dt.days <= 10).all()
    assert ratio.abs().max() < 0.7  # means of about twenty log-normal amounts


def test_no_customer_is_attacked_twice(payments: pd.DataFrame) -> None:
    attacks = payments[payments["kind"].isin(VISIBLE_KINDS)]

    assert (attacks.groupby("client_id")["event"].nunique() == 1).all()


def habits(payments: pd.DataFrame) -> pd.DataFrame:
    """Plain per-customer aggregates of the customers with at least ten purchases."""
    rows = payments[payments["amount"] > 0]
    hour, weekday = rows["moment"].dt.hour, rows["moment"].dt.day_of_week
    rows = rows.assign(
        log_amount=np.log(rows["amount"]),
        night=hour < NIGHT_ENDS,
        morning=hour.between(6, 10),
        weekend=weekday >= 5,
        online=rows["channel"] == "online",
        abroad=rows["country"] != "DE",
    ).groupby("client_id")
    means = rows[["log_amount", "night", "morning", "weekend", "online", "abroad"]].mean()
    return means.assign(log_count=np.log(rows.size()))[rows.size() >= 10]


@pytest.fixture(scope="module")
def standard_habits(payments: pd.DataFrame) -> pd.DataFrame:
    table = habits(payments)
    return (table - table.mean()) / table.std()


def ari_of(table: pd.DataFrame, whole: World) -> float:
    found = KMeans(len(SEGMENTS), n_init=5, random_state=0).fit_predict(table)
    truth = whole.truth_segments.set_index("client_id")["segment"].loc[table.index]
    return adjusted_rand_index(list(truth), list(found))


def test_the_segments_can_be_told_apart_by_several_habits(
    whole: World, standard_habits: pd.DataFrame
) -> None:
    assert len(standard_habits) > 1400
    assert ari_of(standard_habits, whole) >= 0.8


def test_the_segments_cannot_be_read_from_one_habit(
    whole: World, standard_habits: pd.DataFrame
) -> None:
    for name in standard_habits:
        assert ari_of(standard_habits[[name]], whole) < 0.7, name


@pytest.mark.parametrize("column", ["age", "credit_limit", "region", "product"])
def test_the_segments_cannot_be_read_from_a_customer_column(whole: World, column: str) -> None:
    values = whole.customers[column]
    if values.dtype.kind in "if":
        values = pd.qcut(values, len(SEGMENTS), labels=False)
    truth = whole.truth_segments["segment"]  # in the order of the customers

    assert adjusted_rand_index(list(truth), list(values)) < 0.15


def test_amounts_have_a_heavy_tail_and_two_decimals(payments: pd.DataFrame) -> None:
    bought = payments.loc[(payments["amount"] > 0) & (payments["kind"] == ""), "amount"]

    assert bought.mean() > 1.5 * bought.median()
    assert bought.quantile(0.999) > 20 * bought.median()
    assert np.array_equal(bought, bought.round(2))
    assert (payments["amount"] < 0).mean() == pytest.approx(0.012, abs=0.008)


@given(total=st.integers(16, 400))
def test_event_sizes_keep_their_limits_and_their_sum(total: int) -> None:
    sizes = _event_sizes(np.random.default_rng(total), total, 8, 12)

    assert sum(sizes) == total
    assert all(8 <= size <= 12 for size in sizes)


def test_planted_found_counts_scored_frauds_in_the_top() -> None:
    scores = pd.DataFrame(
        {"transaction_id": range(200), "anomaly_score": np.arange(200)[::-1].astype(float)}
    )
    truth = pd.DataFrame(
        {
            "tx_id": [0, 150, 1, 2, 500],
            "kind": ["burst", "burst", "new_place", "compromised_counterparty", "new_place"],
        }
    )

    found = planted_found(scores, truth, top_share=0.01)

    assert found["burst"] == 0.5
    assert found["new_place"] == 1.0  # 500 was not scored
    assert found["compromised_counterparty"] == 0.0
    assert np.isnan(found["unusual_amount"])
    assert found["visible"] == pytest.approx(2 / 3)


def test_planted_explained_looks_at_the_first_reasons_of_true_alerts() -> None:
    truth = pd.DataFrame(
        {"tx_id": [1, 2, 3], "kind": ["burst", "unusual_amount", "compromised_counterparty"]}
    )
    reasons = pd.DataFrame(
        [
            (1, 1, "amount_ratio"),
            (1, 3, "count_1h"),  # planted, and among the first three
            (2, 1, "country"),
            (2, 4, "amount_ratio"),  # planted, but too late
            (3, 1, "amount_ratio"),  # cannot be seen: does not count
            (9, 1, "amount_ratio"),  # no fraud: does not count
        ],
        columns=["transaction_id", "rank", "feature"],
    )

    assert planted_explained(reasons, truth) == 0.5
    assert planted_explained(reasons, truth, first=4) == 1.0
    assert np.isnan(planted_explained(reasons[reasons["transaction_id"] == 9], truth))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=40))
def test_the_rand_index_equals_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)

    assert adjusted_rand_index(first, second) == pytest.approx(adjusted_rand_score(first, second))


def test_the_rand_index_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="got 2 and 3"):
        adjusted_rand_index([0, 1], [0, 1, 1])
