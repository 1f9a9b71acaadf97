"""The screen, the joining of parts, and planted segments found again."""

from __future__ import annotations

import functools
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from segmenter.config import Settings
from segmenter.em import SingularFitError
from segmenter.merging import group_terms, merge, misclassification, posteriors
from segmenter.screening import far_rows, screen
from segmenter.training import REPEAT, SINGLE, Segmentation, train
from shared.encoding import Feature
from shared.errors import DataQualityError

FEATURES = (
    Feature("recency_days", "continuous", "shape", "days", "days since the last purchase", "log1p"),
    Feature("purchase_days", "count", "shape", "days", "purchase days", "log1p"),
    Feature("basket_amount", "continuous", "shape", "currency", "median order amount", "log1p"),
    Feature("net_amount", "continuous", "shape", "currency", "net amount", "log1p"),
    Feature("weekend_share", "share", "shape", "share", "share of orders at weekends", "logit"),
    Feature("customer_age", "continuous", "descriptor", "years", "age"),
)
# recency, purchase days, basket, weekend share
GROUPS = ((5, 60, 20, 0.2), (40, 12, 150, 0.2), (15, 30, 40, 0.8))


def customers(n: int = 900, seed: int = 0, skew: float = 0.0) -> tuple[pd.DataFrame, np.ndarray]:
    """Customers of three planted kinds, with days, baskets and shares that vary within a kind."""
    generator = np.random.default_rng(seed)
    kind = np.arange(n) % len(GROUPS)
    recency, days, basket, weekend = np.array(GROUPS, dtype=float)[kind].T
    noise = 0.25 * (generator.standard_normal((3, n)) + skew * generator.exponential(size=(3, n)))
    counts = np.maximum(generator.poisson(days * np.exp(noise[1])), 2).astype(float)
    frame = pd.DataFrame(
        {
            "customer_id": np.arange(n),
            "recency_days": recency * np.exp(noise[0]),
            "purchase_days": counts,
            "basket_amount": basket * np.exp(noise[2]),
            "weekend_share": generator.binomial(counts.astype(int), weekend) / counts,
            "customer_age": generator.uniform(20, 80, n),
        }
    )
    frame["net_amount"] = frame["basket_amount"] * counts * generator.uniform(0.6, 1.4, n)
    return frame, kind


@functools.cache
def of_buyers() -> tuple[pd.DataFrame, Segmentation, dict]:
    """The continuum with its segmentation, which several tests look at."""
    frame = buyers()
    return frame, *fitted(frame)


def fitted(frame: pd.DataFrame, **settings: object) -> tuple[Segmentation, dict]:
    return train(frame, FEATURES, Settings(**settings), np.random.default_rng(0))


def test_planted_segments_are_found_without_their_number() -> None:
    frame, kind = customers()

    segmentation, diagnostics = fitted(frame)
    scores = segmentation.score(frame)

    assert segmentation.n_segments == diagnostics["segments"] == 3
    assert adjusted_rand_score(kind, scores.posterior.argmax(axis=1)) >= 0.95
    np.testing.assert_allclose(scores.posterior.sum(axis=1), 1)


def test_skewed_segments_are_not_split() -> None:
    frame, kind = customers(n=3_000, skew=1.0)

    segmentation, diagnostics = fitted(frame)

    assert diagnostics["strata"][0]["components"] > 3
    assert segmentation.n_segments == 3
    assert adjusted_rand_score(kind, segmentation.score(frame).posterior.argmax(axis=1)) >= 0.9


@pytest.mark.parametrize("wanted", [1, 2, 3, 5])
def test_a_person_gets_the_number_of_segments_they_want(wanted: int) -> None:
    frame, _ = customers(n=600)

    segmentation, _ = fitted(frame, segments=wanted)

    assert segmentation.n_segments == wanted
    assert segmentation.score(frame).posterior.shape == (600, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_a_person_gets_it_of_few_customers_too(seed: int) -> None:
    """Of so few a mixture cannot have as many components; a cut makes the segments."""
    frame, _ = customers(n=24, seed=seed)

    segmentation, told = fitted(frame, segments=5)

    assert segmentation.n_segments == 5
    assert told["strata"][0]["published"]["by"] == "cut"


def test_columns_without_a_density_are_told_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_self: object, _rows: object) -> None:
        raise SingularFitError("the columns [1] are constant; leave them out")

    monkeypatch.setattr("segmenter.model.SegmentMixture.fit", refuses)

    with pytest.raises(DataQualityError, match="no density of 600 customers") as caught:
        fitted(customers(n=600)[0])
    assert "exclude_features" in str(caught.value)


def test_no_more_segments_than_the_most_wanted_and_none_too_small() -> None:
    frame, _ = customers(n=600)

    few, _ = fitted(frame, max_segments=2)
    large, _ = fitted(frame, min_segment_share=0.4)

    assert few.n_segments == 2
    shares = np.bincount(large.score(frame).posterior.argmax(axis=1)) / len(frame)
    assert shares.min() >= 0.39


def test_segments_are_ordered_by_falling_share() -> None:
    frame, kind = customers()
    frame = frame[(kind != 1) | (np.arange(len(frame)) % 2 == 0)]

    segmentation, _ = fitted(frame)

    sizes = np.bincount(segmentation.score(frame).posterior.argmax(axis=1))
    assert (np.diff(sizes) <= 20).all()
    assert sizes[-1] == pytest.approx(150, abs=10)


def test_the_same_seed_gives_the_same_segmentation() -> None:
    frame, _ = customers(n=300)

    first, second = fitted(frame)[0].score(frame), fitted(frame)[0].score(frame)

    np.testing.assert_array_equal(first.log_density, second.log_density)


def test_far_customers_do_not_shape_segments_and_are_under_the_floor() -> None:
    frame, kind = customers()
    far = frame.iloc[:18].assign(customer_id=np.arange(10_000, 10_018))
    far["basket_amount"] = np.geomspace(1e6, 1e9, 18)
    together = pd.concat([frame, far], ignore_index=True)

    segmentation, diagnostics = fitted(together)
    scores = segmentation.score(together)

    outlier = scores.log_density < scores.floor
    assert segmentation.n_segments == 3
    assert diagnostics["strata"][0]["far_customers"] >= 18
    assert outlier[900:].all()
    assert outlier[:900].mean() < 0.01
    assert adjusted_rand_score(kind, scores.posterior[:900].argmax(axis=1)) >= 0.95


def one_time_and_repeat() -> tuple[pd.DataFrame, np.ndarray]:
    frame, _ = customers(n=900)
    single = np.arange(900) < 400
    frame.loc[single, "purchase_days"] = 1.0
    frame.loc[single, "net_amount"] = frame.loc[single, "basket_amount"]
    frame.loc[single, "weekend_share"] = 0.0
    return frame, single


def test_one_time_customers_are_a_stratum_of_their_own() -> None:
    frame, single = one_time_and_repeat()

    segmentation, diagnostics = fitted(frame)
    scores = segmentation.score(frame)

    position = scores.posterior.argmax(axis=1)
    assert [s["stratum"] for s in diagnostics["strata"]] == [SINGLE, REPEAT]
    assert not set(position[single]) & set(position[~single])
    assert diagnostics["strata"][0]["columns"]["purchase_days"] == "constant: 1 throughout"
    assert sum(s.share for s in segmentation.strata) == pytest.approx(1)


def buyers(n: int = 1_200, seed: int = 0) -> pd.DataFrame:
    """A continuum: who buys more bought more lately and spends more; four in ten bought once."""
    generator = np.random.default_rng(seed)
    value, recent, amount = generator.standard_normal((3, n))
    often = 2.0 + generator.poisson(np.exp(0.5 + value))
    days = np.where(generator.random(n) < 0.4, 1.0, often)
    basket = 30 * np.exp(0.2 * value + 0.7 * amount)
    return pd.DataFrame(
        {
            "customer_id": np.arange(n),
            "recency_days": 40 * np.exp(-0.4 * value + 0.9 * recent),
            "purchase_days": days,
            "basket_amount": basket,
            "net_amount": basket * days * np.where(days == 1, 1, generator.uniform(0.7, 1.3, n)),
            "weekend_share": 0.0,
            "customer_age": generator.uniform(20, 80, n),
        }
    )


def test_a_continuum_is_split_only_as_far_as_halves_agree() -> None:
    frame, segmentation, diagnostics = of_buyers()

    position = segmentation.score(frame).posterior.argmax(axis=1)

    single, repeat = diagnostics["strata"]
    assert (single["published"]["by"], single["published"]["segments"]) == ("parts", 1)
    assert repeat["published"]["stable"]
    assert set(position[frame["purchase_days"] == 1]).isdisjoint(
        position[frame["purchase_days"] > 1]
    )
    assert segmentation.n_segments >= 3
    assert 0.8 <= diagnostics["agreement"] <= 1


def test_no_segment_has_fewer_than_twenty_customers() -> None:
    frame, _ = customers(n=60)

    segmentation, _ = fitted(frame, min_segment_share=0.0)

    sizes = np.bincount(segmentation.score(frame).posterior.argmax(axis=1))
    assert sizes.min() >= 18  # the share of the density may differ from the count


def test_a_cut_is_read_back_and_labels_its_samples() -> None:
    frame, segmentation, _ = of_buyers()

    again = Segmentation.from_arrays(segmentation.to_arrays(), segmentation.header())
    drawn = again.sample(3_000, seed=1)

    np.testing.assert_array_equal(again.score(frame).posterior, segmentation.score(frame).posterior)
    assert set(drawn["segment"]) == set(range(segmentation.n_segments))
    position = segmentation.score(frame).posterior.argmax(axis=1)
    for segment in range(1, segmentation.n_segments):
        typical = frame["net_amount"][position == segment].median()
        assert drawn["net_amount"][drawn["segment"] == segment].median() == pytest.approx(
            typical, rel=0.3
        )


def test_a_warm_fit_keeps_every_cell_in_its_place() -> None:
    after = buyers(seed=1)
    _, start, _ = of_buyers()

    warm, _ = train(after, FEATURES, Settings(), np.random.default_rng(0), start=start)

    first, second = (s.score(after).posterior.argmax(axis=1) for s in (start, warm))
    assert warm.n_segments == start.n_segments
    assert (first == second).mean() >= 0.85


def test_customers_without_a_purchase_have_no_density() -> None:
    frame, _ = customers(n=300)
    segmentation, diagnostics = fitted(frame)
    frame.loc[0, "purchase_days"] = 0.0

    scores = segmentation.score(frame)

    assert np.isnan(scores.log_density[0])
    assert not np.isnan(scores.log_density[1:]).any()
    assert diagnostics["without_purchase"] == 0


def test_arrays_and_json_give_the_same_segmentation() -> None:
    frame, _ = one_time_and_repeat()
    segmentation, diagnostics = fitted(frame)

    header = json.loads(json.dumps(segmentation.header()))
    again = Segmentation.from_arrays(segmentation.to_arrays(), header)

    before, after = segmentation.score(frame), again.score(frame)
    np.testing.assert_array_equal(before.log_density, after.log_density)
    np.testing.assert_array_equal(before.posterior, after.posterior)
    np.testing.assert_array_equal(before.floor, after.floor)
    assert json.loads(json.dumps(diagnostics)) is not None


def test_samples_look_like_the_customers_of_their_segment() -> None:
    frame, _ = customers()
    segmentation, _ = fitted(frame)

    drawn = segmentation.sample(3_000, seed=1)

    position = segmentation.score(frame).posterior.argmax(axis=1)
    for segment in range(3):
        typical = frame["basket_amount"][position == segment].median()
        assert drawn["basket_amount"][drawn["segment"] == segment].median() == pytest.approx(
            typical, rel=0.15
        )


def test_too_few_customers_stop_the_fit_with_the_count() -> None:
    frame, _ = customers(n=7)

    with pytest.raises(DataQualityError, match="7 customers"):
        fitted(frame)


def test_nothing_to_tell_customers_apart_stops_the_fit_with_the_reasons() -> None:
    frame, _ = customers(n=60)
    same = frame.assign(**{f.name: 3.0 for f in FEATURES})

    with pytest.raises(DataQualityError, match="recency_days: constant"):
        fitted(same)


def test_the_screen_gives_a_reason_for_each_column_it_takes_out() -> None:
    frame, _ = customers(n=500)
    generator = np.random.default_rng(0)
    made = {
        "same": 3.0,
        "spike": np.where(np.arange(500) < 480, 0.0, generator.uniform(1, 2, 500)),
        "spikes": np.where(np.arange(500) < 200, 0.0, np.arange(500) % 2),
        "censored": np.minimum(generator.uniform(0, 250, 500), generator.uniform(119, 120, 500)),
        "age_again": frame["customer_age"],
        "sum": frame["recency_days"] + frame["customer_age"],
        "double": np.where(np.arange(500) < 100, 2 * frame["recency_days"], frame["net_amount"]),
        "holes": np.where(np.arange(500) < 200, np.nan, frame["net_amount"]),
        "text": "a",
    }
    plain = [Feature(n, "continuous", "shape", "", n) for n in ("recency_days",)]
    odd = [Feature(n, "category" if n == "text" else "continuous", "shape", "", n) for n in made]
    unwanted = Feature("net_amount", "continuous", "shape", "", "net")

    found = screen(frame.assign(**made), [*plain, *odd, FEATURES[5], unwanted], ["net_amount"])
    reasons = found.reasons

    assert reasons["recency_days"] == ""
    assert reasons["same"] == "constant: 3 throughout"
    assert reasons["spike"] == "spike: 0 for 96% of the customers"
    assert reasons["spikes"] == "spike: 0 for 70% of the customers"
    assert reasons["censored"].startswith("piled up: within 5% of the largest value, 119.9")
    assert reasons["sum"] == "collinear: follows from recency_days, age_again"
    assert reasons["double"] == "2 times recency_days for 20% of the customers"
    assert reasons["holes"] == "missing for 40% of the customers"
    assert reasons["text"].startswith("category")
    assert reasons["customer_age"].startswith("descriptor")
    assert reasons["net_amount"] == "excluded by exclude_features"


def test_a_feature_is_found_to_be_what_it_is() -> None:
    frame, _ = customers(n=500)
    generator = np.random.default_rng(0)
    frame["refund"] = np.where(np.arange(500) < 200, 0.0, generator.uniform(1, 2, 500))
    refund = Feature("refund", "continuous", "shape", "", "refund")

    found = screen(frame, [*FEATURES, refund], ())

    assert not found.reasons["refund"]
    assert found.kinds["refund"] == "semicontinuous"
    assert found.kinds["weekend_share"] == "share"
    assert found.kinds["basket_amount"] == found.kinds["purchase_days"] == "continuous"


def test_where_many_bought_within_the_week_recency_is_the_week_or_longer() -> None:
    """Days since the last purchase of who buys daily tell the weekday of the moment."""
    generator = np.random.default_rng(0)
    often = pd.DataFrame({"recency_days": generator.uniform(0, 14, 500)})
    seldom = pd.DataFrame({"recency_days": generator.uniform(0, 140, 500)})

    found, other = (screen(frame, FEATURES[:1], ()) for frame in (often, seldom))

    assert found.kinds == {"recency_days": "semicontinuous"}
    assert found.floors == {"recency_days": 7.0}
    assert other.kinds == {"recency_days": "continuous"}
    assert other.floors == {}


def test_far_rows_are_few_and_lie_three_interquartile_ranges_outside() -> None:
    strays = np.linspace(0, 1, 101)[:, None].copy()  # quartiles .25 and .75: far is beyond 2.25
    strays[:2] = [[2.2], [2.3]]
    tail = np.linspace(0, 1, 101)[:, None].copy()
    tail[:20] = 9.0

    assert np.flatnonzero(far_rows(strays)).tolist() == [1]
    assert not far_rows(tail).any()


def log_terms_of(means: list[float], draws: np.ndarray) -> np.ndarray:
    return -0.5 * (draws[:, None] - np.array(means)) ** 2 - np.log(len(means))


def test_overlapping_parts_are_joined_and_separate_ones_are_not() -> None:
    generator = np.random.default_rng(0)
    draws = generator.normal(np.repeat([0.0, 1.0, 9.0], 2_000))

    groups, merges = merge(log_terms_of([0.0, 1.0, 9.0], draws))

    assert groups == [(0, 1), (2,)]
    assert [step.reason for step in merges] == ["overlap"]


def test_the_misclassification_of_two_gaussians_is_that_of_the_normal_tail() -> None:
    from scipy.stats import norm

    draws = np.random.default_rng(0).normal(np.repeat([0.0, 3.0], 100_000))

    mistaken = misclassification(log_terms_of([0.0, 3.0], draws))

    assert mistaken[0, 1] == pytest.approx(norm.sf(1.5), abs=0.003)
    assert mistaken[1, 0] == pytest.approx(norm.sf(1.5), abs=0.003)


def test_joined_parts_keep_the_density_and_add_their_posteriors() -> None:
    terms = log_terms_of([0.0, 1.0, 9.0], np.linspace(-3, 12, 50))

    grouped = group_terms(terms, [(0, 1), (2,)])

    np.testing.assert_allclose(
        np.logaddexp.reduce(grouped, axis=1), np.logaddexp.reduce(terms, axis=1)
    )
    np.testing.assert_allclose(posteriors(grouped)[:, 0], posteriors(terms)[:, :2].sum(axis=1))


def test_too_many_and_too_small_groups_go_to_the_nearest() -> None:
    draws = np.random.default_rng(0).normal(np.repeat([0.0, 20.0, 50.0], [1_000, 30, 1_000]))
    terms = log_terms_of([0.0, 20.0, 50.0], draws)

    fewer, by_number = merge(terms, maximum=2, overlap=np.inf)
    larger, by_share = merge(terms, min_share=0.1)

    assert fewer == larger == [(0, 1), (2,)]
    assert by_number[0].reason == "number"
    assert by_share[0].reason == "share"


def test_all_faults_of_the_settings_are_reported_at_once() -> None:
    wrong = Settings(lookback_days=0, segments=13, min_segment_share=0.7, names={1: "A", 2: "A"})

    faults = wrong.faults()

    assert Settings().faults() == []
    assert len(faults) == 4
    assert any("13" in fault and "max_segments (12)" in fault for fault in faults)
    assert any("0.7" in fault for fault in faults)
