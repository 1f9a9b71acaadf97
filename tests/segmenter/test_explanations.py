"""Profiles against pandas by hand; names that are plain and unique."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segmenter.explanations import PROFILE, name_segments, profiles, rfm_reading
from segmenter.families import ALIASES, FAMILIES
from segmenter.features import FEATURES
from shared.encoding import Feature

AGE = Feature("customer_age", "continuous", "descriptor", "years", "age")
GROCERY = Feature("mcc_share_grocery", "share", "shape", "share", "share of grocery", "logit")


def customers(*groups: dict[str, float], n: int = 40) -> tuple[pd.DataFrame, pd.Series]:
    """Groups that differ from middling customers in what is given; segment ids from 1."""
    usual = {"recency_days": 30.0, "purchase_days": 8.0, "basket_amount": 50.0}
    usual |= {"weekend_share": 0.3, "net_amount": 400.0, "tenure_days": 200.0}
    wobble = np.exp(0.1 * np.random.default_rng(0).standard_normal((n * len(groups), len(usual))))
    means = pd.DataFrame([usual | group for group in groups for _ in range(n)])
    frame = means * wobble
    frame["weekend_share"] = frame["weekend_share"].clip(upper=0.95)
    frame["purchase_days"] = np.where(
        means["purchase_days"] == 1, 1.0, frame["purchase_days"].round()
    )
    segments = pd.Series(np.repeat(np.arange(len(groups)) + 1, n)).astype("Int64")
    return frame, segments


def test_a_profile_is_what_pandas_says_by_hand() -> None:
    frame, segments = customers({}, {"basket_amount": 200.0})

    table = profiles(frame, segments, FEATURES).set_index(["segment_id", "feature"])

    own, everybody = frame["basket_amount"][segments == 2], frame["basket_amount"]
    row = table.loc[(2, "basket_amount")]
    assert row["mean"] == pytest.approx(own.mean())
    assert row["median"] == pytest.approx(own.median())
    assert row["p10"] == pytest.approx(own.quantile(0.1))
    assert row["p90"] == pytest.approx(own.quantile(0.9))
    assert row["population_median"] == pytest.approx(everybody.median())
    assert row["effect_size"] == pytest.approx(
        (own.mean() - everybody.mean()) / everybody.std(ddof=0)
    )
    assert row["index_100"] == pytest.approx(100 * own.mean() / everybody.mean())
    assert row["unit"] == "currency"


def test_profiles_have_the_columns_of_the_contract_and_one_row_each() -> None:
    frame, segments = customers({}, {}, {})
    frame = frame.assign(customer_age=40.0, customer_town="here")
    town = Feature("customer_town", "category", "descriptor", "", "town")

    table = profiles(frame, segments, (*FEATURES, AGE, town))

    assert tuple(table.columns) == PROFILE
    assert not table.duplicated(["segment_id", "feature"]).any()
    assert "customer_age" in set(table["feature"])
    assert "customer_town" not in set(table["feature"])


def test_what_has_no_answer_is_null() -> None:
    frame, segments = customers({}, {})
    frame["amount_trend"] = -0.5

    table = profiles(frame, segments, FEATURES)

    row = table[table["feature"] == "amount_trend"].iloc[0]
    assert np.isnan(row["effect_size"])
    assert np.isnan(row["index_100"])


def test_customers_without_a_segment_do_not_enter_profiles() -> None:
    frame, segments = customers({}, {"basket_amount": 200.0})
    rich = pd.concat([frame, frame.iloc[:1].assign(basket_amount=1e9)], ignore_index=True)
    open_segments = pd.concat([segments, pd.Series([pd.NA], dtype="Int64")], ignore_index=True)

    pd.testing.assert_frame_equal(
        profiles(frame, segments, FEATURES), profiles(rich, open_segments, FEATURES)
    )


def test_names_say_what_is_distinctive() -> None:
    frame, segments = customers(
        {"purchase_days": 40.0, "weekend_share": 0.8, "basket_amount": 300.0},
        {"recency_days": 200.0},
        {},
        {},
    )

    names = name_segments(frame, segments, FEATURES).set_index("segment_id")["name"]

    assert names[2].startswith("Lapsing buyers")
    assert {"frequent", "weekend", "baskets"} & set(names[1].lower().replace(",", "").split())
    assert "lapsing" not in names[1].lower()


def test_one_time_buyers_are_called_so() -> None:
    frame, segments = customers({"purchase_days": 1.0}, {})

    named = name_segments(frame, segments, FEATURES).set_index("segment_id")

    assert named.loc[1, "name"].startswith("One-time")
    assert "purchase days 1 (all customers" in named.loc[1, "description"]
    assert "one-time" not in named.loc[2, "name"].lower()


def test_a_mapped_category_is_said_in_the_users_words() -> None:
    frame, segments = customers({}, {})
    frame["mcc_share_grocery"] = np.where(segments == 1, 0.8, 0.1)

    names = name_segments(frame, segments, (*FEATURES, GROCERY))["name"]

    assert names.tolist() == ["Often grocery", "Rarely grocery"]


def test_names_are_unique_even_for_segments_that_hardly_differ() -> None:
    frame, segments = customers({}, {}, {}, {"recency_days": 31.0})

    named = name_segments(frame, segments, FEATURES)

    assert named["name"].is_unique
    words = {word for name in named["name"] for word in name.lower().replace(",", "").split()}
    assert not words & {family.lower() for family in (*FAMILIES, *ALIASES)}
    assert named["description"].str.fullmatch(r"Typically .*\.").all()


def test_segments_alike_in_the_first_words_are_told_apart_by_what_they_do_not_share() -> None:
    frequent = {"purchase_days": 60.0, "net_amount": 9000.0}
    frame, segments = customers(frequent | {"weekend_share": 0.34}, frequent, {}, {}, {})

    names = name_segments(frame, segments, FEATURES)["name"].tolist()

    weekend, plain = names[:2]
    assert weekend == plain.replace("buyers", "weekend buyers")
    assert "frequent" in plain.lower() and "high value" in plain


def test_a_persons_name_wins_and_stays_unique() -> None:
    frame, segments = customers({"recency_days": 200.0}, {"purchase_days": 60.0})
    usual = name_segments(frame, segments, FEATURES)["name"].tolist()

    named = name_segments(frame, segments, FEATURES, {2: usual[0], 9: "nobody"})

    assert named["name"].tolist()[1] == usual[0]
    assert named["name"].is_unique
    assert "nobody" not in set(named["name"])


def test_a_category_of_the_customers_is_described_by_the_shares_of_its_levels() -> None:
    frame, segments = customers({}, {})
    frame["customer_region"] = np.where(segments == 2, "North Coast", "south")
    frame.loc[:9, "customer_region"] = None
    frame.loc[10, "customer_region"] = "rare"
    region = Feature("customer_region", "category", "descriptor", "", "region")

    table = profiles(frame, segments, [*FEATURES, region]).set_index(["segment_id", "feature"])

    assert table.loc[(2, "customer_region_north_coast"), "mean"] == 1.0
    assert table.loc[(1, "customer_region_south"), "mean"] == pytest.approx(29 / 40)
    assert "customer_region_rare" not in table.index.get_level_values("feature")
    assert table.loc[(1, "customer_region_south"), "unit"] == "share"


def test_the_rfm_scores_are_profiled_in_scores_of_five_after_the_features() -> None:
    frame, segments = customers({"recency_days": 200.0}, {})
    for name, best, column in (
        ("rfm_recency", -1, "recency_days"),
        ("rfm_frequency", 1, "purchase_days"),
        ("rfm_monetary", 1, "net_amount"),
    ):
        frame[name] = np.ceil(5 * (best * frame[column]).rank(pct=True)).astype("Int64")

    table = profiles(frame, segments, FEATURES)

    own = table[table["segment_id"] == 1]
    assert own["feature"].tolist()[-3:] == ["rfm_recency", "rfm_frequency", "rfm_monetary"]
    recency = own[own["feature"] == "rfm_recency"].iloc[0]
    assert recency["mean"] == pytest.approx(frame["rfm_recency"][:40].mean())
    assert recency["unit"] == "of 5" and recency["effect_size"] < -0.8


def test_the_rfm_reading_covers_every_score_and_rises_with_recency_and_frequency() -> None:
    readings = {(r, f): rfm_reading(r, f) for r in range(1, 6) for f in range(1, 6)}

    assert readings[5, 5] == rfm_reading(4.6, 4.5001) == "champions"
    assert readings[1, 1] == "hibernating"
    assert readings[1, 5] == "not to be lost" and readings[5, 1] == "new"
    assert all(text and text.islower() for text in readings.values())
