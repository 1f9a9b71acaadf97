"""Features against closed answers, and the laws of time and order."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmenter.features import (
    DAY_US,
    FEATURES,
    RESERVED,
    build,
    declared,
    plain_names,
    typical_levels,
)

AS_OF = int(pd.Timestamp("2026-03-02", tz="UTC").value // 1000)  # a Monday
HOUR_US = DAY_US // 24


def a_row(days_before: float = 1.0, **columns: object) -> dict[str, object]:
    row: dict[str, object] = {
        "transaction_id": 1,
        "occurred_at": AS_OF - int(days_before * DAY_US),
        "customer_id": 7,
        "counterparty_id": pd.NA,
        "amount": 10.0,
        "currency": "",
        "order_id": pd.NA,
    }
    return row | {name.replace("__", "."): value for name, value in columns.items()}


def rows_of(*rows: dict[str, object]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows))
    return frame.astype({"customer_id": "Int64", "occurred_at": "int64", "amount": "float64"})


def only(frame: pd.DataFrame) -> pd.Series:
    assert len(frame) == 1
    return frame.iloc[0]


def test_a_small_history_has_the_answers_of_pencil_and_paper() -> None:
    rows = rows_of(
        a_row(30.5, amount=20.0, order_id=1),  # 2026-01-30 12:00
        a_row(30.5, amount=30.0, order_id=1),
        a_row(20.5, amount=10.0, order_id=2),  # 2026-02-09 12:00
        a_row(20.5, amount=-15.0, order_id=3),
        a_row(16.5, amount=30.0, order_id=4),  # 2026-02-13 12:00
        a_row(1.5, amount=-5.0, order_id=5),  # 2026-02-28: a return alone
    )

    found = only(build(rows, AS_OF, "UTC"))

    assert found["recency_days"] == pytest.approx(16.5)
    assert found["tenure_days"] == pytest.approx(30.5)
    assert found["purchase_days"] == 3
    assert found["net_amount"] == pytest.approx(70)
    assert found["basket_amount"] == pytest.approx(30)  # orders of 50, 10 and 30
    assert found["lines_per_basket"] == pytest.approx(4 / 3)
    assert found["gap_days"] == pytest.approx(7)  # gaps of 10 and 4 days
    assert found["gap_variation"] == pytest.approx(3 / 7)
    assert found["return_share"] == pytest.approx(20 / 110)
    assert found["active_months"] == 2
    assert found["weekend_share"] == 0
    assert pd.isna(found["amount_trend"])


def test_the_trend_compares_ninety_days_with_the_ninety_before() -> None:
    rows = rows_of(a_row(200, amount=40), a_row(100, amount=40), a_row(3, amount=80))

    found = only(build(rows, AS_OF, "UTC"))

    assert found["amount_trend"] == pytest.approx(np.log((80 + 40) / (40 + 40)))


def test_weekends_and_nights_are_those_of_the_local_clock() -> None:
    sunday_23_utc = a_row(1 / 24)  # 2026-03-01 23:00 UTC is Monday 08:00 in Tokyo
    monday_20_utc = a_row(6 + 4 / 24)  # 2026-02-23 20:00 UTC is Tuesday 05:00 in Tokyo

    utc = only(build(rows_of(sunday_23_utc, monday_20_utc), AS_OF, "UTC"))
    tokyo = only(build(rows_of(sunday_23_utc, monday_20_utc), AS_OF, "Asia/Tokyo"))

    assert (utc["weekend_share"], utc["night_share"]) == (0.5, 0.0)
    assert (tokyo["weekend_share"], tokyo["night_share"]) == (0.0, 0.5)


def test_dates_without_a_time_say_nothing_about_nights() -> None:
    found = only(build(rows_of(a_row(1), a_row(2)), AS_OF, "UTC"))

    assert pd.isna(found["night_share"])


def test_lines_of_one_moment_are_one_order_where_none_is_mapped() -> None:
    rows = rows_of(a_row(1.5, amount=4), a_row(1.5, amount=6), a_row(1.25, amount=30))

    found = only(build(rows, AS_OF, "UTC"))

    assert found["basket_amount"] == pytest.approx(20)
    assert found["lines_per_basket"] == pytest.approx(1.5)


def test_of_an_accounts_movements_money_out_is_the_purchase_and_money_in_neither() -> None:
    rows = rows_of(
        a_row(20, amount=-30), a_row(10, amount=-50), a_row(5, amount=1000), a_row(2, amount=0)
    )

    found = only(build(rows, AS_OF, "UTC"))

    assert found["recency_days"] == pytest.approx(10)
    assert found["purchase_days"] == 2
    assert found["net_amount"] == pytest.approx(80)
    assert found["return_share"] == 0


def test_a_shop_that_takes_a_quarter_back_is_still_a_shop() -> None:
    rows = rows_of(*(a_row(day, amount=40) for day in (9, 8, 7)), a_row(5, amount=-40))

    found = only(build(rows, AS_OF, "UTC"))

    assert (found["purchase_days"], found["net_amount"]) == (3, pytest.approx(80))
    assert found["return_share"] == pytest.approx(0.25)


def test_a_customer_who_only_returned_has_no_purchase() -> None:
    rows = rows_of(a_row(amount=-9), *(a_row(customer_id=8) for _ in range(3)))

    found = build(rows, AS_OF, "UTC").iloc[0]

    assert found["purchase_days"] == 0
    assert found["net_amount"] == -9
    assert pd.isna(found["recency_days"])
    assert pd.isna(found["rfm_recency"])


def test_money_written_with_a_minus_throughout_is_spending() -> None:
    found = only(build(rows_of(a_row(1, amount=-9), a_row(2, amount=-3)), AS_OF, "UTC"))

    assert found["purchase_days"] == 2
    assert found["net_amount"] == 12


def test_without_amounts_every_row_is_a_purchase() -> None:
    found = only(build(rows_of(a_row(1, amount=np.nan), a_row(2, amount=np.nan)), AS_OF, "UTC"))

    assert found["purchase_days"] == 2
    assert pd.isna(found["net_amount"])


def test_currencies_are_compared_by_their_typical_amount() -> None:
    rows = rows_of(
        *(a_row(k, amount=10.0, currency="EUR", customer_id=1) for k in (1, 2, 3)),
        *(a_row(k, amount=1000.0, currency="JPY", customer_id=2) for k in (1, 2)),
    )

    found = build(rows, AS_OF, "UTC").set_index("customer_id")["net_amount"]

    assert found.to_dict() == pytest.approx({1: 30.0, 2: 20.0})


def test_categories_give_entropy_top_share_and_shares_of_levels() -> None:
    levels = ["food", "food", "food", "fuel", ""]
    rows = rows_of(*(a_row(k + 1, category__mcc=level) for k, level in enumerate(levels)))

    found = only(build(rows, AS_OF, "UTC"))

    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert found["mcc_entropy"] == pytest.approx(expected)
    assert found["mcc_top_share"] == 0.75
    assert (found["mcc_share_food"], found["mcc_share_fuel"]) == (0.75, 0.25)
    assert typical_levels(rows) == {"mcc": ("food", "fuel")}


def test_levels_of_training_keep_their_columns_when_nobody_has_them() -> None:
    rows = rows_of(a_row(category__mcc="food"))

    found = only(build(rows, AS_OF, "UTC", levels={"mcc": ("fuel",)}))

    assert found["mcc_share_fuel"] == 0
    assert "mcc_share_food" not in found


def test_customers_without_a_row_and_their_columns_are_there() -> None:
    customers = pd.DataFrame(
        {
            "customer_id": pd.array([7, 8], dtype="Int64"),
            "number.credit_limit": [100.0, 200.0],
            "category.product": ["gold", "basic"],
            "descriptor.age": [30.0, 40.0],
        }
    )

    frame = build(rows_of(a_row()), AS_OF, "UTC", customers)
    features = {f.name: f for f in declared(rows_of(a_row()), customers)}

    assert frame["customer_id"].tolist() == [7, 8]
    assert frame["customer_credit_limit"].tolist() == [100.0, 200.0]
    assert frame["purchase_days"].tolist() == [1, 0]
    assert features["customer_age"].role == "descriptor"
    assert features["customer_product"].kind == "category"


def test_entropy_shapes_segments_only_where_level_shares_leave_something_unsaid() -> None:
    few = rows_of(*(a_row(k, category__mcc="ab"[k % 2]) for k in range(1, 5)))
    many = rows_of(*(a_row(k, category__mcc=f"level {k}") for k in range(1, 13)))

    roles = [{f.name: f.role for f in declared(rows)} for rows in (few, many)]

    assert roles[0]["mcc_entropy"] == "descriptor"
    assert roles[1]["mcc_entropy"] == "shape"
    assert sum(name.startswith("mcc_share_") for name in roles[1]) == 8


def test_every_declared_feature_is_built() -> None:
    rows = rows_of(a_row(category__mcc="food"), a_row(3, category__mcc="fuel"))

    frame = build(rows, AS_OF, "UTC")

    names = [feature.name for feature in declared(rows)]
    assert len(set(names)) == len(names) > len(FEATURES)
    assert set(names) == set(frame.columns) - {"customer_id", *(c for c in frame if "rfm" in c)}


def test_rfm_scores_run_from_one_to_five_and_five_is_best() -> None:
    rows = rows_of(
        *(
            a_row(10 * k + j, amount=100.0 / k, customer_id=k)
            for k in range(1, 6)
            for j in range(6 - k)
        )
    )

    frame = build(rows, AS_OF, "UTC").set_index("customer_id")

    for column in ("rfm_recency", "rfm_frequency", "rfm_monetary"):
        assert frame[column].to_dict() == {1: 5, 2: 4, 3: 3, 4: 2, 5: 1}


def test_rows_without_a_customer_are_left_out() -> None:
    rows = rows_of(a_row(), a_row(customer_id=pd.NA))

    assert build(rows, AS_OF, "UTC")["customer_id"].tolist() == [7]


def test_a_row_at_the_moment_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="only rows before"):
        build(rows_of(a_row(0)), AS_OF, "UTC")


def test_no_rows_give_an_empty_frame_with_all_columns() -> None:
    frame = build(rows_of(a_row()).iloc[:0], AS_OF, "UTC")

    assert len(frame) == 0
    assert {feature.name for feature in FEATURES} <= set(frame.columns)


def test_text_keys_stay_text() -> None:
    rows = rows_of(a_row()).astype({"customer_id": object}).assign(customer_id="c-1")

    assert build(rows, AS_OF, "UTC")["customer_id"].tolist() == ["c-1"]


histories = st.lists(
    st.tuples(
        st.integers(1, 300 * 24),
        st.integers(1, 4),
        st.sampled_from([-20.0, 0.0, 5.0, 7.5, 100.0]),
        st.sampled_from(["food", "fuel", ""]),
        st.sampled_from(["EUR", "SEK"]),
    ),
    min_size=1,
    max_size=40,
)


def rows_from(history: list[tuple[int, int, float, str, str]]) -> pd.DataFrame:
    return rows_of(
        *(
            a_row(hours / 24, customer_id=who, amount=amount, category__mcc=mcc, currency=currency)
            for hours, who, amount, mcc, currency in history
        )
    )


@settings(max_examples=40, deadline=None)
@given(histories, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(history: list, shuffler: object) -> None:
    rows = rows_from(history)
    positions = list(range(len(rows)))
    shuffler.shuffle(positions)  # type: ignore[attr-defined]

    shuffled = rows.iloc[positions].reset_index(drop=True)

    pd.testing.assert_frame_equal(
        build(rows, AS_OF, "UTC"), build(shuffled, AS_OF, "UTC"), rtol=1e-9, atol=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(histories, st.integers(1, 4))
def test_another_customers_rows_change_nothing_but_ranks(history: list, who: int) -> None:
    rows = rows_from(history).assign(currency="")
    rows["amount"] = rows["amount"].abs()
    own = rows[rows["customer_id"] == who]

    together = build(rows, AS_OF, "UTC", levels={"mcc": ("food",)})
    alone = build(own, AS_OF, "UTC", levels={"mcc": ("food",)})

    kept = [c for c in alone.columns if not c.startswith("rfm") and c != "night_share"]
    both = together[together["customer_id"] == who][kept].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone[kept], rtol=1e-9, atol=1e-9)


@given(st.lists(st.text(max_size=80), unique=True), st.randoms())
def test_plain_names_are_unique_and_can_be_written_in_sql(names: list[str], shuffler) -> None:
    found = plain_names(names)

    assert len(set(found.values())) == len(names)
    assert all(re.fullmatch("[a-z][a-z0-9_]{0,59}", name) for name in found.values())
    assert not set(found.values()) & set(RESERVED)
    assert plain_names(found.values()) == {name: name for name in found.values()}
    shuffler.shuffle(names)
    assert plain_names(names) == found


def test_levels_of_any_writing_give_plain_columns() -> None:
    rows = rows_of(
        *(a_row(day, **{"category.pays": level}) for day, level in
          [(1, "United Kingdom"), (2, "united-kingdom"), (3, "Česko"), (4, "日本")])
    )  # fmt: skip

    frame = build(rows, AS_OF, "UTC")

    shares = [c for c in frame if c.startswith("pays_share") or c.startswith("f_")]
    assert len(shares) == 4
    assert "pays_share_cesko" in shares
    assert {f.name for f in declared(rows)} <= set(frame)
    assert frame[shares].iloc[0].tolist() == [0.25] * 4
