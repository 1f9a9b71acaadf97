"""Frame ⇄ matrix: round trips, the rare bucket, and statistics of the training rows only."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.encoding import MISSING, RARE, Encoder, Feature

AMOUNT = Feature("amount", "continuous", "focal", "currency", "the amount")
NET = Feature("net", "continuous", "shape", "currency", "net amount", "log1p")
COUNT = Feature("payments", "count", "context", "payments", "number of payments", "log1p")
SHARE = Feature("night", "share", "context", "share", "payments at night", "logit")
CHANNEL = Feature("channel", "category", "focal", "", "the channel")
FEATURES = (AMOUNT, NET, COUNT, SHARE, CHANNEL)

SIZE = 12
numbers = arrays(np.float64, SIZE, elements=st.floats(-1e6, 1e6) | st.just(np.nan))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "amount": draw(numbers),
            "net": draw(numbers),
            "payments": draw(arrays(np.int64, SIZE, elements=st.integers(0, 10**6))),
            "night": draw(arrays(np.float64, SIZE, elements=st.floats(0.001, 0.999))),
            "channel": pd.Series(
                draw(st.lists(st.text(max_size=3), min_size=SIZE, max_size=SIZE)), dtype="str"
            ),
        }
    )


@settings(deadline=None)
@given(frames())
def test_inverse_undoes_transform_on_the_training_rows(frame):
    encoder = Encoder.fit(frame, FEATURES, clip=1e6)

    back = encoder.inverse(encoder.transform(frame))

    for name in ("amount", "net", "payments", "night"):
        np.testing.assert_allclose(back[name], frame[name], rtol=1e-6, atol=1e-6)
    assert back["channel"].tolist() == [level or MISSING for level in frame["channel"]]


@settings(deadline=None)
@given(frames(), frames())
def test_transform_undoes_inverse_on_any_rows(training, later):
    encoder = Encoder.fit(training, FEATURES, max_levels=3)
    matrix = encoder.transform(later)

    again = encoder.transform(encoder.inverse(matrix))

    np.testing.assert_allclose(again, matrix, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(again[:, -1], matrix[:, -1])


@settings(deadline=None)
@given(frames())
def test_an_encoder_survives_json_to_the_bit(frame):
    encoder = Encoder.fit(frame, FEATURES)

    again = Encoder.from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))

    assert again == encoder
    np.testing.assert_array_equal(again.transform(frame), encoder.transform(frame))


@settings(deadline=None)
@given(frames(), frames())
def test_only_training_rows_set_the_scale(training, later):
    encoder = Encoder.fit(training, FEATURES)
    alone = encoder.transform(training)

    together = encoder.transform(pd.concat([training, later], ignore_index=True))

    np.testing.assert_array_equal(together[:SIZE], alone)


def test_a_column_is_centered_and_scaled_by_mean_and_deviation():
    frame = pd.DataFrame({"amount": [1.0, 2.0, 3.0, np.nan]})

    matrix = Encoder.fit(frame, [AMOUNT]).transform(frame)

    spread = np.sqrt(2 / 3)
    np.testing.assert_allclose(matrix[:, 0], [-1 / spread, 0, 1 / spread, np.nan])


def test_logarithms_are_mirrored_at_zero():
    frame = pd.DataFrame({"net": [np.e - 1, 0.0, 1 - np.e]})

    matrix = Encoder.fit(frame, [NET]).transform(frame)

    np.testing.assert_allclose(matrix[:, 0], np.array([1, 0, -1]) / np.sqrt(2 / 3))


def test_far_values_are_clipped_and_missing_numbers_stay_missing():
    training = pd.DataFrame({"amount": [-1.0, 1.0]})
    encoder = Encoder.fit(training, [AMOUNT])

    matrix = encoder.transform(pd.DataFrame({"amount": [1e9, -np.inf, np.nan]}))

    np.testing.assert_array_equal(matrix[:, 0], [30, -30, np.nan])


@pytest.mark.parametrize("values", [[0.1] * 7, [np.nan] * 7, [1e15] * 7])
def test_a_column_without_spread_has_scale_one(values):
    encoder = Encoder.fit(pd.DataFrame({"amount": values}), [AMOUNT])

    assert encoder.columns[0].scale == 1.0


def test_levels_stand_by_frequency_with_the_rare_bucket_last():
    frame = pd.DataFrame({"channel": ["web"] * 5 + ["app"] * 9 + [""] * 7 + ["fax"]})

    column = Encoder.fit(frame, [CHANNEL], min_level_share=0.1).columns[0]

    assert column.levels == ("app", MISSING, "web", RARE)


def test_no_more_levels_are_kept_than_asked():
    frame = pd.DataFrame({"channel": list("aaabbcdef")})

    column = Encoder.fit(frame, [CHANNEL], max_levels=3).columns[0]

    assert column.levels == ("a", "b", "c", RARE)


def test_unseen_and_rare_levels_share_the_last_code():
    frame = pd.DataFrame({"channel": ["web"] * 99 + ["fax"]})
    encoder = Encoder.fit(frame, [CHANNEL], min_level_share=0.05)

    codes = encoder.transform(pd.DataFrame({"channel": ["web", "fax", "pigeon", RARE]}))

    assert codes[:, 0].tolist() == [0, 1, 1, 1]


def test_null_and_empty_texts_are_the_missing_level():
    frame = pd.DataFrame({"channel": ["", None, "web", "web", "web"]})
    encoder = Encoder.fit(frame, [CHANNEL])

    names = encoder.inverse(encoder.transform(frame))["channel"]

    assert names.tolist() == [MISSING, MISSING, "web", "web", "web"]


def test_nullable_integers_are_numbers():
    frame = pd.DataFrame({"amount": pd.array([1, None, 3], dtype="Int64")})

    matrix = Encoder.fit(frame, [AMOUNT]).transform(frame)

    np.testing.assert_array_equal(matrix[:, 0], [-1, np.nan, 1])


def test_all_absent_columns_are_named_at_once():
    with pytest.raises(ValueError, match="lacks the feature columns amount, channel"):
        Encoder.fit(pd.DataFrame({"net": [1.0]}), [AMOUNT, NET, CHANNEL])


def test_a_matrix_of_another_width_is_refused():
    encoder = Encoder.fit(pd.DataFrame({"amount": [1.0, 2.0]}), [AMOUNT])

    with pytest.raises(ValueError, match=r"shape \(3, 2\), expected \(n, 1\)"):
        encoder.inverse(np.zeros((3, 2)))


@pytest.mark.parametrize(("kind", "transform"), [("colour", "none"), ("count", "sqrt")])
def test_unknown_kinds_and_transforms_are_refused(kind, transform):
    with pytest.raises(ValueError, match=f"kind '{kind}' and transform '{transform}'"):
        Feature("x", kind, "focal", "", "", transform)
