"""A fitted detector: its parts, what it leaves out, and how it rests as header and arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fraudwatch import detector
from fraudwatch.decisions import DRIFT_LEVELS, Footing
from fraudwatch.detector import LATENT, Detector, Scored
from fraudwatch.evidence import Evidence, KeyModel
from fraudwatch.features import Reference
from shared import artifacts
from shared.encoding import Feature
from shared.errors import ConfigurationError, DataQualityError

AMOUNT = Feature("amount", "continuous", "focal", "EUR", "the amount")
FEATURES = (
    AMOUNT,
    Feature("visits", "count", "focal", "payments", "payments in an hour", "log1p"),
    Feature("channel", "category", "focal", "", "the channel"),
    Feature("habit", "share", "context", "share", "share of nights", "logit"),
    Feature("beside", "continuous", "evidence", "", "never part of the density"),
)
REFERENCE = Reference({"EUR": 20.0}, 20.0, 1.5, 3.0)
WINDOW = (100, 200, 7)


def a_frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """Amounts that follow the habit; one in ten is missing."""
    generator = np.random.default_rng(seed)
    habit = generator.beta(2, 5, rows)
    amount = 20 + 40 * habit + generator.normal(0, 2, rows)
    amount[generator.random(rows) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "amount": amount,
            "visits": generator.poisson(0.3, rows).astype(float),
            "channel": generator.choice(["web", "chip", ""], rows),
            "habit": habit,
            "beside": generator.normal(size=rows),
        }
    )


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "STEPS", (60, 60))
        yield


def fitted(
    train: pd.DataFrame, held_out: pd.DataFrame, features=FEATURES, seed: int = 0
) -> tuple[Detector, dict]:
    return detector.fit(train, held_out, features, REFERENCE, WINDOW, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def found() -> tuple[Detector, dict]:
    return fitted(a_frame(600), a_frame(200, seed=1))


def packed(made: Detector) -> bytes:
    return artifacts.pack(made.header(), made.to_arrays())


EVIDENCE = Evidence(
    (KeyModel("customer", share=0.1 / 3), KeyModel("card", stages=4, duration=9.7)),
    1 / 700,
    0.07,
    21,
)
FOOTING = Footing(1 / 3, 5, tuple(level / 7 for level in DRIFT_LEVELS), (0.1 / 3,) * 4, 28)


@pytest.mark.parametrize(
    "more", [{}, {"evidence": EVIDENCE, "footing": FOOTING, "segmenter": "segmenter-1"}], ids=str
)
def test_a_stored_detector_scores_the_same_to_the_last_bit(found, more):
    rows, generator = a_frame(100, seed=2), np.random.default_rng(0)
    frauds = np.sort(generator.exponential(9, 5))
    calibration = replace(found[0].calibration, frauds=frauds)
    stored = replace(found[0], calibration=calibration, **more)
    data = packed(stored)

    again = Detector.from_arrays(*artifacts.unpack(data, artifacts.digest(data)))

    before, after = stored.score(rows), again.score(rows)
    assert np.array_equal(before.log_likelihood, after.log_likelihood)
    assert np.array_equal(before.surprise, after.surprise)
    assert np.array_equal(stored.expected(rows, (0.1, 0.9)), again.expected(rows, (0.1, 0.9)), True)
    posterior = generator.random((100, len(stored.evidence.keys)))
    scores = [
        made.evidence.anomaly_score(made.surprise(scored), posterior)
        for made, scored in ((stored, before), (again, after))
    ]
    assert np.array_equal(*scores)
    asked = (scores[0], np.full(100, 150))
    assert np.array_equal(stored.calibration.p_value(*asked), again.calibration.p_value(*asked))
    assert stored.calibration.entry_level(1) == again.calibration.entry_level(1)
    assert (again.evidence, again.footing) == (stored.evidence, stored.footing)
    assert (again.density_id, again.segmenter) == (stored.density_id, stored.segmenter)
    assert packed(again) == data


def test_the_parts_of_a_surprise_sum_to_minus_the_log_likelihood(found):
    scored = found[0].score(a_frame(300, seed=3))

    assert found[0].names == ["amount", "visits", "channel", LATENT]
    assert scored.surprise.sum(1) == pytest.approx(-scored.log_likelihood, abs=1e-5)


def test_a_missing_cell_has_no_part_in_the_surprise(found):
    rows = a_frame(50, seed=4)
    missing = rows.assign(amount=np.nan)

    scored = found[0].score(missing)

    assert scored.surprise[:, 0] == pytest.approx(0, abs=1e-9)
    assert np.isfinite(scored.log_likelihood).all()


def test_the_log_likelihood_is_in_the_units_of_the_features():
    train, held_out = a_frame(600), a_frame(200, seed=1)
    in_cents = [frame.assign(amount=frame.amount * 100) for frame in (train, held_out)]

    euros, _ = fitted(train, held_out)
    cents, _ = fitted(*in_cents)

    there = held_out.amount.notna().to_numpy()
    shift = euros.score(held_out).log_likelihood - cents.score(in_cents[1]).log_likelihood
    assert shift[there] == pytest.approx(np.log(100), abs=1e-3)
    assert shift[~there] == pytest.approx(0, abs=1e-3)


def test_a_row_is_scored_alone_as_among_others(found):
    rows = a_frame(64, seed=5)

    together = found[0].score(rows).log_likelihood
    alone = [found[0].score(rows.iloc[[at]]).log_likelihood[0] for at in range(8)]

    assert alone == pytest.approx(together[:8], abs=1e-9)


def test_evidence_is_no_part_of_the_density(found):
    rows = a_frame(50, seed=6)

    changed = rows.assign(beside=1e9)

    assert np.array_equal(
        found[0].score(rows).log_likelihood, found[0].score(changed).log_likelihood
    )


def test_the_calibration_is_of_the_held_out_rows_alone(found):
    held_out = found[0].score(a_frame(200, seed=1))

    surprise = found[0].surprise(held_out)

    assert found[0].calibration.scores == pytest.approx(np.sort(surprise), abs=1e-12)
    assert (found[0].calibration.since, found[0].calibration.until) == WINDOW[:2]
    assert found[0].calibration.frauds.shape == (0,)
    medians = dict(zip(found[0].names, np.median(held_out.surprise, axis=0), strict=True))
    assert found[0].baseline == pytest.approx(medians, abs=1e-12)


def test_a_surprise_is_minus_the_log_of_the_share_of_held_out_rows_as_surprising(found):
    surprise = np.sort(found[0].surprise(found[0].score(a_frame(200, seed=1))))

    reached = np.arange(200, 0, -1)  # by so many, the row itself among them
    assert surprise[:-2] == pytest.approx(-np.log((1 + reached) / 201)[:-2], abs=1e-9)


NAMED = {
    name: Feature(name, "continuous", "focal", "", name)
    for name in ("amount_ratio", "amount_relative", "count_1h", "height", "width")
}
TIME_OF_DAY = Feature("time_of_day", "category", "focal", "", "local time of day")


@pytest.mark.parametrize(
    ("focal", "aspects"),
    [
        (
            ["amount_ratio", "amount_relative"],
            {"amount": ((0, 1, 2), 0.98), "misfit": ((0, 1), 0.02)},
        ),
        (["height", "width"], {"other": ((0, 1, 2), 1.0)}),
        (["count_1h", "height"], {"time": ((0, 2), 0.5), "other": ((1, 2), 0.5)}),
        (
            ["height", "amount_ratio", "time_of_day", "count_1h", "width"],
            {
                "other": ((0, 4, 5), 0.98 / 3),
                "amount": ((1, 5), 0.98 / 3),
                "time": ((2, 3, 5), 0.98 / 3),
                "misfit": ((1,), 0.02),
            },
        ),
    ],
    ids=str,
)
def test_aspects_weigh_the_same_and_amounts_are_looked_at_again_without_the_latent(focal, aspects):
    frame = pd.DataFrame({name: np.random.default_rng(0).normal(size=60) for name in focal})
    if "time_of_day" in frame:
        frame = frame.assign(time_of_day=["00-06", "06-12"] * 30)
    features = [TIME_OF_DAY if name == "time_of_day" else NAMED[name] for name in focal]

    made, _ = fitted(frame, frame, features)

    assert {aspect.name: (aspect.at, aspect.weight) for aspect in made.aspects} == aspects


def of_amounts() -> tuple[Detector, pd.DataFrame]:
    """A detector of an amount and a column beside it, and rows."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({name: generator.normal(size=400) for name in ("amount_ratio", "height")})
    return fitted(frame, frame, [NAMED["amount_ratio"], NAMED["height"]])[0], frame


def test_what_a_misfit_may_say_at_most_is_stored_with_the_model():
    made, frame = of_amounts()
    data = packed(made)

    again = Detector.from_arrays(*artifacts.unpack(data, artifacts.digest(data)))

    assert [aspect.most for aspect in again.aspects] == [None, None, pytest.approx(np.log(1e6))]
    scored = made.score(frame)
    assert np.array_equal(made.surprise(scored), again.surprise(scored))


@pytest.mark.parametrize("lost", ["aspects", "most"])
def test_a_model_of_an_older_release_is_refused_with_what_to_do(lost):
    made, _ = of_amounts()
    header = made.header()
    if lost == "aspects":
        del header["aspects"]
    else:
        for aspect in header["aspects"]:
            del aspect["most"]

    assert not Detector.readable(header)
    with pytest.raises(ConfigurationError, match="older release"):
        Detector.from_arrays(header, made.to_arrays())


def test_an_aspect_looks_at_its_own_columns_alone():
    """A row that only its amount makes surprising is as surprising in any other company."""
    made, frame = of_amounts()
    parts = np.median(made.score(frame).surprise, axis=0) + np.zeros((2, 3))
    parts[:, 0] += 30.0
    parts[1, 1] += 1.0

    surprise = made.surprise(Scored(-parts.sum(1), parts))

    assert surprise[0] > made.calibration.scores[-1]
    assert surprise[1] == pytest.approx(surprise[0], rel=1e-3)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("amount", 5.0, "has one value only"),
        ("amount", np.nan, "has no values"),
        ("channel", "web", "has one value only"),
        ("channel", "", "has no values"),
        ("habit", 0.5, "has one value only"),
    ],
)
def test_a_column_that_says_nothing_is_left_out_with_its_reason(column, value, reason):
    train, held_out = a_frame(80), a_frame(80, seed=1)
    train[column] = value

    made, diagnostics = fitted(train, held_out)

    assert diagnostics["left_out"] == {column: reason}
    assert column not in [feature.name for feature in (*made.focal, *made.context)]
    assert np.isfinite(made.score(held_out).log_likelihood).all()


def test_nothing_that_varies_is_refused_with_what_to_do():
    constant = a_frame(80).assign(amount=1.0, visits=0.0, channel="web")

    with pytest.raises(DataQualityError, match="no column that varies"):
        fitted(constant, constant)


@pytest.mark.parametrize(("train", "held_out"), [(49, 200), (200, 49), (0, 0)])
def test_too_few_rows_are_refused_with_their_counts(train, held_out):
    with pytest.raises(DataQualityError) as caught:
        fitted(a_frame(train), a_frame(held_out))

    assert caught.value.exit_code == 4
    assert f"{train} valid transactions to train on" in str(caught.value)
    assert f"{held_out} to calibrate on" in str(caught.value)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(found):
    again = fitted(a_frame(600), a_frame(200, seed=1))[0]
    other = fitted(a_frame(600), a_frame(200, seed=1), seed=1)[0]

    assert packed(again) == packed(found[0]) != packed(other)


def test_a_single_column_without_context_is_enough():
    made, _ = fitted(a_frame(100), a_frame(100, seed=1), features=(AMOUNT,))

    assert np.isfinite(made.score(a_frame(20, seed=2)).log_likelihood).all()
    assert made.names == ["amount", LATENT]


def test_samples_are_in_real_units_and_repeatable(found):
    drawn = found[0].sample(500, seed=3)

    assert list(drawn) == ["amount", "visits", "channel"]
    assert 20 < drawn.amount.median() < 50
    assert set(drawn.channel) <= {"web", "chip", "(missing)", "(other)"}
    assert (drawn.visits >= 0).all()
    pd.testing.assert_frame_equal(drawn, found[0].sample(500, seed=3))


def test_expected_ranges_and_levels_follow_the_context(found):
    rows = a_frame(2, seed=8).assign(habit=[0.02, 0.7], channel="never seen")

    expected = found[0].expected(rows, (0.05, 0.95))
    levels = found[0].levels(rows)["channel"]

    assert (expected[:, 0, 0] < expected[:, 0, 1]).all()
    assert expected[1, 0].mean() > expected[0, 0].mean(), "amounts rise with the habit"
    assert levels.sum(axis="columns").to_numpy() == pytest.approx([1, 1])
    assert np.isfinite(found[0].score(rows).log_likelihood).all()


def test_a_detector_is_not_changed_by_scoring(found):
    before = packed(found[0])

    found[0].score(a_frame(10))
    found[0].expected(a_frame(10), (0.5,))
    replace(found[0]).sample(5, seed=0)

    assert packed(found[0]) == before
