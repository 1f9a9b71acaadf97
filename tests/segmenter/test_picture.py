"""The picture: directions that separate, ellipses that hold, axes with names."""

from __future__ import annotations

import numpy as np
import pandas as pd

from segmenter.picture import draw
from shared.encoding import Feature

FEATURES = [
    Feature("apart", "continuous", "shape", "", "what separates"),
    Feature("noise_a", "continuous", "shape", "", "noise"),
    Feature("noise_b", "continuous", "shape", "", "more noise"),
]


def groups(n: int = 300) -> tuple[pd.DataFrame, pd.Series]:
    """Two groups that differ in one feature only, whose spread is the smallest."""
    generator = np.random.default_rng(1)
    ids = np.repeat([3, 8], n)
    frame = pd.DataFrame(
        {
            "apart": np.where(ids == 3, -1.0, 1.0) + 0.1 * generator.standard_normal(2 * n),
            "noise_a": 5 * generator.standard_normal(2 * n),
            "noise_b": 9 * generator.standard_normal(2 * n),
        }
    )
    return frame, pd.Series(pd.array(ids, dtype="Int64"))


def test_the_first_direction_is_the_one_that_separates() -> None:
    frame, ids = groups()

    drawn = draw(frame, ids, FEATURES, np.random.default_rng(0))

    assert drawn is not None
    x = drawn.points.groupby(drawn.points.segment_id.astype(int)).x
    assert x.max()[3] < x.min()[8]
    assert drawn.axes[0].startswith("what separates ↑")


def test_an_ellipse_holds_four_of_five_of_its_customers() -> None:
    frame, ids = groups(2000)

    drawn = draw(frame, ids, FEATURES, np.random.default_rng(0))

    assert drawn is not None
    for shape in drawn.ellipses.itertuples():
        own = drawn.points[drawn.points.segment_id == shape.segment_id]
        turn = np.array([[np.cos(shape.angle), np.sin(shape.angle)],
                         [-np.sin(shape.angle), np.cos(shape.angle)]])  # fmt: skip
        along = turn @ np.array([own.x - shape.cx, own.y - shape.cy])
        inside = (along[0] / shape.a) ** 2 + (along[1] / shape.b) ** 2 <= 1
        assert abs(inside.mean() - 0.8) < 0.04


def test_customers_without_a_segment_are_drawn_and_place_nothing() -> None:
    frame, ids = groups()
    with_strays = pd.concat([frame, frame.head(5) * 100], ignore_index=True)
    strays = pd.Series(pd.array([*ids, *[pd.NA] * 5], dtype="Int64"))

    plain = draw(frame, ids, FEATURES, np.random.default_rng(0))
    drawn = draw(with_strays, strays, FEATURES, np.random.default_rng(0))

    assert plain is not None and drawn is not None
    assert len(drawn.points) == len(frame) + 5
    assert drawn.points.segment_id.isna().sum() == 5
    np.testing.assert_allclose(plain.ellipses[["a", "b"]], drawn.ellipses[["a", "b"]], rtol=1e-9)


def test_one_feature_makes_a_line_and_nothing_makes_no_picture() -> None:
    frame, ids = groups()

    line = draw(frame, ids, FEATURES[:1], np.random.default_rng(0))

    assert line is not None
    assert (line.points.y == 0).all()
    assert draw(frame, ids, [], np.random.default_rng(0)) is None
    assert draw(frame, pd.Series([pd.NA] * len(frame), dtype="Int64"), FEATURES,
                np.random.default_rng(0)) is None  # fmt: skip
