"""Features see the strict past, the same past in any slice, and give hand-made answers."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudwatch.features import Reference, build, declared, reference
from shared.encoding import Encoder
from shared.errors import ConfigurationError
from shared.windows import DAY, HOUR

MONDAY = 17_532 * DAY  # 2018-01-01, midnight
DEVICE = {"entity.device": "phone"}
PLAIN = Reference({"": 20.0}, overall_amount=20.0, upper_quartile=1.5, upper_twentieth=3.0)


def a_payment(**changes: Any) -> dict[str, Any]:
    return {
        "occurred_at": MONDAY,
        "customer_id": "anna",
        "counterparty_id": "shop",
        "amount": 20.0,
        "currency": "",
    } | changes


def as_rows(payments: list[dict[str, Any]]) -> pd.DataFrame:
    rows = pd.DataFrame(payments, columns=list(payments[0]))
    rows.insert(0, "transaction_id", np.arange(len(rows)))
    begins = ("currency", "category", "entity", "segment")
    texts = [c for c in rows if c.endswith("_id") or c.startswith(begins)]
    return rows.astype({name: "str" for name in texts if name != "transaction_id"})


def last(payments: list[dict[str, Any]], **settings: Any) -> pd.Series:
    """Features of the last payment."""
    rows = as_rows(payments)
    target = np.array([len(rows) - 1])
    return build(rows, target, settings.pop("reference", PLAIN), "UTC", **settings).iloc[0]


def everything(rows: pd.DataFrame, history_days: int = 30) -> pd.DataFrame:
    return build(rows, np.arange(len(rows)), PLAIN, "Europe/Brussels", history_days)


@st.composite
def histories(draw: st.DrawFn) -> pd.DataFrame:
    """Payments of few customers and shops in 90 days: ties, nulls, refunds, currencies, levels.

    Hypothesis chooses how many and the seed; its own lists would be too thin for two windows, one
    inside the other, to meet.
    """
    size = draw(st.integers(1, 150))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    moments = generator.integers(0, 90 * DAY, size)
    half_days = moments // (12 * HOUR) * (12 * HOUR)
    text = {
        "customer_id": ["anna", "bert", "cleo", None],
        "counterparty_id": ["shop", "cafe", "fair", None],
        "currency": ["", "EUR", "JPY"],
        "category.channel": ["", "web", "app", "fax"],
        "entity.device": ["phone", "desk", "kiosk", None],
        "segment": ["", "1", "2"],
    }
    rows = pd.DataFrame(
        {
            "transaction_id": np.arange(size),
            "occurred_at": MONDAY + np.where(generator.random(size) < 0.5, moments, half_days),
            "amount": np.round(generator.lognormal(3, 1, size) - 2, 2),
            "number.distance": generator.random(size),
        }
    )
    for column, levels in text.items():
        rows[column] = pd.array(generator.choice(np.array(levels, dtype=object), size), "str")
    cards = pd.Series(generator.integers(1, 5, size), dtype="Int64")
    rows["entity.card"] = cards.where(generator.random(size) < 0.8)
    return rows


@settings(max_examples=40, deadline=None)
@given(histories(), st.lists(st.integers(0, 100), max_size=4), st.sampled_from([30, 45]))
def test_scoring_in_slices_equals_a_full_recompute_to_the_bit(rows, cuts, history_days):
    full = everything(rows, history_days)
    times = rows["occurred_at"].to_numpy()
    edges = [MONDAY - DAY, *sorted(MONDAY + cut * DAY for cut in cuts), MONDAY + 101 * DAY]

    for begin, end in pairwise(edges):
        visible = np.flatnonzero((times >= begin - history_days * DAY) & (times < end))[::-1]
        asked = np.flatnonzero(times[visible] >= begin)
        sliced = build(rows.iloc[visible], asked, PLAIN, "Europe/Brussels", history_days)
        expected = full.iloc[visible[asked]].reset_index(drop=True)
        pd.testing.assert_frame_equal(sliced, expected, check_exact=True)


@settings(max_examples=40, deadline=None)
@given(histories(), st.integers(0, 100))
def test_a_later_transaction_never_changes_an_earlier_feature(rows, day):
    seen = (rows["occurred_at"] <= MONDAY + day * DAY).to_numpy()

    before = everything(rows[seen])

    after = everything(rows)[seen].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, after, check_exact=True)


@settings(max_examples=25, deadline=None)
@given(histories())
def test_rows_of_one_moment_do_not_see_each_other(rows):
    rows = rows.head(12).assign(occurred_at=MONDAY)

    together = everything(rows)

    alone = pd.concat([everything(rows.iloc[[i]]) for i in range(len(rows))], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone, check_exact=True)


@settings(max_examples=25, deadline=None)
@given(histories())
def test_everything_declared_is_built_and_nothing_else(rows):
    features = declared(rows.columns)

    frame = everything(rows)

    assert list(frame.columns) == [feature.name for feature in features]
    numbers = [feature.name for feature in features if feature.kind != "category"]
    assert not np.isinf(frame[numbers].to_numpy()).any()
    assert (
        frame[numbers][
            rows[["customer_id", "counterparty_id", "entity.device", "entity.card"]]
            .notna()
            .all(axis=1)
        ]
        .notna()
        .all(axis=None)
    )
    assert Encoder.fit(frame, features).transform(frame).shape == frame.shape


def test_a_null_customer_stands_alone():
    history = [
        a_payment(customer_id=None, occurred_at=MONDAY + day * DAY, counterparty_id=None)
        for day in range(4)
    ]

    found = last(history)

    assert np.isnan(
        found[["amount_ratio", "count_1h", "count_30d", "days_since_last"]].tolist()
    ).all()
    assert np.isnan(found[["counterparty_count_30d", "counterparty_surprise_7d"]].tolist()).all()
    assert found["new_counterparty"] == ""
    assert found["amount_relative"] == 1.0


def test_a_null_customer_adds_nothing_to_the_known_ones():
    noise = [a_payment(customer_id=None, amount=900.0, counterparty_id="fair")] * 5
    own = [a_payment(occurred_at=MONDAY + day * DAY) for day in range(1, 4)]

    pd.testing.assert_series_equal(last(noise + own), last(own))


def test_the_amount_is_set_beside_the_customers_own_median():
    amounts = [10.0, 20.0, 60.0, 100.0]
    history = [a_payment(occurred_at=MONDAY + i * DAY, amount=a) for i, a in enumerate(amounts)]

    found = last(history)

    # Past amounts over the typical 20: 0.5, 1 and 3, beside two payments of the prior at 1.
    median = (3 * 1.0 + 2) / 5
    assert found["amount_relative"] == 5.0
    assert found["amount_ratio"] == pytest.approx(5.0 / (median + 0.1))
    assert found["own_amount_median"] == pytest.approx(100 * median)
    upper = (3 * 2.0 + 2 * 1.5) / 5
    assert found["own_amount_q75"] == pytest.approx((upper + 0.1) / (median + 0.1))
    top = (3 * 2.8 + 2 * 3.0) / 5
    assert found["own_amount_q95"] == pytest.approx((top + 0.1) / (median + 0.1))


def test_counts_and_means_are_of_the_strict_past():
    ages = {40 * DAY: 500.0, 30 * DAY: 30.0, 7 * DAY: 60.0, HOUR: -20.0, 0: 90.0}
    history = [a_payment(occurred_at=MONDAY - age, amount=a) for age, a in ages.items()]

    found = last(history)

    assert found[["count_1h", "count_1d", "count_7d", "count_30d"]].tolist() == [1, 1, 2, 3]
    means = found[["mean_amount_1d", "mean_amount_7d", "mean_amount_30d"]].tolist()
    np.testing.assert_allclose(means, [-100.0, 100.0, 350 / 3], atol=1e-4)
    assert found["days_since_last"] == pytest.approx(1 / 24)
    counterparty = ["counterparty_count_1d", "counterparty_count_7d", "counterparty_count_30d"]
    assert found[counterparty].tolist() == [1, 2, 3]


def test_the_first_payment_of_a_customer_is_ordinary_and_long_awaited():
    found = last([a_payment()], history_days=45)

    assert found["days_since_last"] == 45
    assert found["own_amount_median"] == 100
    assert found["mean_amount_30d"] == 0
    assert found["night_share"] == 0.25
    assert found["new_counterparty"] == "yes"


def test_a_counterparty_is_new_until_met_and_again_after_the_history():
    def met(age: int) -> str:
        return last([a_payment(occurred_at=MONDAY - age), a_payment()])["new_counterparty"]

    assert met(30 * DAY) == "no"
    assert met(30 * DAY + 1) == "yes"


def test_a_level_is_new_until_the_customer_has_used_it():
    channels = ["web", "web", "app", ""]
    rows = as_rows(
        [
            a_payment(occurred_at=MONDAY + day * DAY, **{"category.channel": channel})
            for day, channel in enumerate(channels)
        ]
    )

    frame = everything(rows)

    assert frame["channel"].tolist() == channels
    assert frame["new_channel"].tolist() == ["yes", "no", "yes", "yes"]


def test_the_share_of_new_counterparties_counts_first_meetings():
    shops = ["shop", "shop", "cafe", "fair"]
    history = [
        a_payment(occurred_at=MONDAY + day * DAY, counterparty_id=shop)
        for day, shop in enumerate(shops)
    ]

    assert last(history)["new_counterparty_share"] == (2 + 1) / (3 + 2)


def test_the_clock_is_local():
    rows = as_rows(
        [
            a_payment(occurred_at=MONDAY - HOUR + 1, customer_id="anna"),  # Sunday, 23 h UTC
            a_payment(occurred_at=MONDAY + 9 * HOUR),
        ]
    )

    utc = build(rows, np.array([0, 1]), PLAIN, "UTC")
    tokyo = build(rows, np.array([0, 1]), PLAIN, "Asia/Tokyo")  # nine hours ahead

    assert utc["time_of_day"].tolist() == ["21-24", "09-12"]
    assert utc["weekend"].tolist() == [1, 0]
    assert utc["evening_share"].tolist() == [1 / 4, 2 / 5]
    assert tokyo["time_of_day"].tolist() == ["06-09", "18-21"]
    assert tokyo["weekend"].tolist() == [0, 0]
    assert tokyo["morning_share"].tolist() == [1 / 4, 2 / 5]


def test_a_counterparty_with_strange_payments_is_surprising():
    usual = [
        a_payment(customer_id=f"c{i}", counterparty_id="home", occurred_at=MONDAY + day * DAY)
        for i in range(4)
        for day in range(6)
    ]
    strange = [
        a_payment(customer_id=f"c{i}", amount=400.0, occurred_at=MONDAY + 7 * DAY + i)
        for i in range(4)
    ]
    visit = a_payment(customer_id="c9", occurred_at=MONDAY + 8 * DAY)

    surprised = last([*usual, *strange, visit])["counterparty_surprise_7d"]
    calm = last([*usual, *strange, visit | {"counterparty_id": "home"}])["counterparty_surprise_7d"]

    assert surprised == pytest.approx(4 * np.log(20.1 / 1.1) / (4 + 2), abs=1e-6)
    assert calm == 0


def test_amounts_of_several_currencies_are_compared_by_their_typical_amounts():
    money = Reference({"EUR": 20.0, "JPY": 2000.0}, 30.0, 1.5, 3.0)
    history = [
        a_payment(currency="EUR", amount=20.0),
        a_payment(currency="JPY", amount=4000.0, occurred_at=MONDAY + DAY),
        a_payment(currency="CHF", amount=60.0, occurred_at=MONDAY + 2 * DAY),
    ]

    found = last(history, reference=money)

    assert found["mean_amount_30d"] == 150
    assert found["amount_relative"] == 2


def test_the_reference_is_the_median_of_what_was_paid():
    rows = as_rows(
        [
            a_payment(currency=currency, amount=amount)
            for currency, amount in [
                ("EUR", 10.0), ("EUR", -30.0), ("EUR", 0.0), ("JPY", 5000.0), ("JPY", 1000.0),
            ]
        ]
    )  # fmt: skip

    found = reference(rows)

    assert found.typical_amount == {"EUR": 20.0, "JPY": 3000.0}
    assert found.overall_amount == 515.0
    relative = [0.5, 1.5, 5 / 3, 1 / 3]
    assert found.upper_quartile == np.quantile(relative, 0.75)
    assert found.upper_twentieth == np.quantile(relative, 0.95)
    assert Reference.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("amount", [0.0, np.nan])
def test_without_amounts_every_amount_is_typical_at_one(amount):
    found = reference(as_rows([a_payment(amount=amount)] * 3))

    assert found == Reference({}, 1.0, 1.0, 1.0)


def test_features_follow_the_mapped_columns():
    bare = declared(["transaction_id", "occurred_at", "category.channel", "number.km"])
    names = [feature.name for feature in bare]

    assert names == ["time_of_day", "channel", "km", "weekend"]
    with_customer = declared(["occurred_at", "customer_id", "category.channel"])
    assert "new_channel" in [feature.name for feature in with_customer]


def test_a_mapped_column_keeps_apart_from_a_feature_of_the_same_name():
    payment = a_payment(**{"category.weekend": "so", "category.counterparty": "x"})

    found = last([payment])

    assert found["weekend"] == 0
    assert found["weekend_"] == "so"
    assert found["counterparty"] == "x"
    assert found["new_counterparty_"] == "yes"


@settings(max_examples=12, deadline=None)
@given(histories())
def test_the_customers_of_an_entity_are_those_seen_in_the_window(rows):
    frame = everything(rows)

    for days in (7, 30):
        expected = [
            np.nan
            if pd.isna(row["entity.device"])
            else rows.loc[
                (rows["entity.device"] == row["entity.device"])
                & (rows.occurred_at < row.occurred_at)
                & (rows.occurred_at >= row.occurred_at - days * DAY),
                "customer_id",
            ].nunique()
            for _, row in rows.iterrows()
        ]
        np.testing.assert_array_equal(frame[f"device_customers_{days}d"], expected)


def test_a_device_that_many_customers_share_within_days_shows_it():
    ring = [
        a_payment(occurred_at=MONDAY + hour * HOUR, customer_id=f"c{hour % 5}", **DEVICE)
        for hour in range(10)
    ]

    found = last([*ring, a_payment(occurred_at=MONDAY + 8 * DAY, **DEVICE)])

    assert found[["device_customers_7d", "device_customers_30d"]].tolist() == [0, 5]
    assert found[["device_count_1d", "device_count_7d", "device_count_30d"]].tolist() == [0, 0, 10]
    assert found["new_device"] == "yes"


def test_an_entity_is_new_until_the_customer_has_used_it():
    devices = ["phone", "phone", "desk", None, "desk"]
    rows = as_rows(
        [
            a_payment(occurred_at=MONDAY + day * DAY, **{"entity.device": device})
            for day, device in enumerate(devices)
        ]
    )

    frame = everything(rows)

    assert frame["new_device"].tolist() == ["yes", "no", "yes", "", "no"]
    assert frame["new_device_share"].tolist() == [1 / 2, 2 / 3, 2 / 4, 3 / 5, 3 / 6]
    assert frame["device_count_30d"].isna().tolist() == [False, False, False, True, False]


def test_an_entity_without_customers_is_only_counted():
    names = [feature.name for feature in declared(["occurred_at", "entity.ip", "number.km"])]

    assert names == ["time_of_day", "km", "weekend", "ip_count_1d", "ip_count_7d", "ip_count_30d"]


def test_no_count_of_an_entity_is_seen_by_the_density():
    """A key without payments is new to everybody: as context it would explain that away."""
    roles = {
        feature.name: feature.role
        for feature in declared(["occurred_at", "customer_id", "entity.ip"])
        if "ip" in feature.name
    }

    assert roles == {
        "new_ip": "focal",
        "new_ip_share": "context",
        "ip_count_1d": "evidence",
        "ip_count_7d": "evidence",
        "ip_count_30d": "evidence",
        "ip_customers_7d": "evidence",
        "ip_customers_30d": "evidence",
    }


def test_a_mapped_column_keeps_apart_from_the_lines_of_reasons_and_of_the_ranker():
    columns = ["number.latent", "number.surprise", "category.evidence.customer", "number.risk.a.b"]

    names = [feature.name for feature in declared(columns)]

    assert {"latent_", "surprise_", "evidence_customer", "risk_a.b"} <= set(names)
    assert not {"latent", "surprise"} & set(names)


def test_an_entity_keeps_apart_from_features_of_the_same_name():
    payment = a_payment(**{"entity.counterparty": "x", "category.new_counterparty": "y"})

    found = last([payment])

    assert found["counterparty_count_7d"] == found["counterparty_count_7d_"] == 0
    assert found[["new_counterparty_", "new_counterparty__"]].tolist() == ["yes", "y"]


def test_a_segment_is_context_and_unknown_where_it_is_empty():
    rows = as_rows([a_payment(segment="4"), a_payment(segment=""), a_payment(segment=None)])

    (feature,) = [f for f in declared(rows.columns) if f.name == "segment"]

    assert (feature.kind, feature.role) == ("category", "context")
    assert everything(rows)["segment"].tolist() == ["4", "", ""]
    assert "segment" not in [f.name for f in declared(["occurred_at", "customer_id"])]


def test_a_mapped_category_named_segment_keeps_its_name_until_segments_are_context():
    own = declared(["occurred_at", "category.segment"])
    both = declared(["occurred_at", "category.segment", "segment"])

    assert [(f.name, f.role) for f in own if "segment" in f.name] == [("segment", "focal")]
    assert [(f.name, f.role) for f in both if "segment" in f.name] == [
        ("segment_", "focal"), ("segment", "context"),
    ]  # fmt: skip


COLUMNS = ["occurred_at", "customer_id", "amount", "currency", "category.channel"]


def test_an_expert_may_give_a_feature_another_role_or_none():
    plain = {feature.name: feature for feature in declared(COLUMNS)}
    roles = {
        "amount_ratio": "context",
        "count_1d": "focal",
        "weekend": "evidence",
        "channel": "none",
    }

    found = declared(COLUMNS, roles)

    assert {f.name: f.role for f in found} == {
        name: roles.get(name, feature.role) for name, feature in plain.items() if name != "channel"
    }
    order = ["focal", "context", "evidence"]
    assert [f.role for f in found] == sorted((f.role for f in found), key=order.index)
    assert declared(COLUMNS, {}) == declared(COLUMNS) == tuple(plain.values())


def test_a_role_of_an_unknown_feature_names_the_nearest():
    with pytest.raises(ConfigurationError) as caught:
        declared(COLUMNS, {"amount_ration": "focal", "x": "none"})

    near, far = caught.value.faults
    assert near == (
        "[fraudwatch.roles] amount_ration is no feature of this mapping; did you mean amount_ratio?"
    )
    assert far.startswith(
        "[fraudwatch.roles] x is no feature of this mapping; it has afternoon_share, "
    )


def test_roles_that_leave_nothing_to_judge_are_refused():
    roles = dict.fromkeys(["time_of_day", "km"], "context")

    with pytest.raises(ConfigurationError, match="leaves no feature focal"):
        declared(["occurred_at", "number.km"], roles)


def test_no_targets_give_a_frame_of_no_rows_with_the_same_columns():
    rows = as_rows([a_payment(), a_payment(occurred_at=MONDAY + DAY)])

    none = build(rows, np.array([], dtype=int), PLAIN, "UTC")

    assert len(none) == 0
    assert none.dtypes.equals(build(rows, np.array([1]), PLAIN, "UTC").dtypes)


def test_a_history_shorter_than_the_longest_window_is_refused():
    with pytest.raises(ValueError, match="history_days is 29, expected at least 30"):
        last([a_payment()], history_days=29)
