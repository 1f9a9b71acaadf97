"""The warm refit, its cold challenger, and the measure on which they are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import multivariate_normal

from segmenter import decisions
from segmenter.config import Settings
from segmenter.lineage import match
from segmenter.refitting import Fitted, Previous, Task, gains, log_likelihood, refitted, wins
from shared.encoding import Feature

NAMES = ("x", "y")
FEATURES = tuple(Feature(name, "continuous", "shape", "", name) for name in NAMES)
KINDS = ((0.0, 0.0), (12.0, 0.0), (0.0, 12.0))
ROUND, SLANTED = np.eye(2), np.array([[1.0, 0.95], [0.95, 1.0]])


def customers(
    seed: int = 0, kinds: tuple = KINDS, shape: np.ndarray = ROUND, n: int = 600
) -> pd.DataFrame:
    """Customers in round or slanted groups around the kinds, the same customers for any seed."""
    generator = np.random.default_rng(seed)
    rows = np.array(kinds)[np.arange(n) % len(kinds)]
    rows = rows + generator.multivariate_normal(np.zeros(2), shape, n)
    frame = pd.DataFrame(rows, columns=NAMES)
    return frame.assign(customer_id=np.arange(n), purchase_days=3.0)


def task(frame: pd.DataFrame, **settings: object) -> Task:
    return Task(frame, FEATURES, Settings(**settings), {}, 0, "before")


def champion_on(fitted: Fitted, frame: pd.DataFrame) -> Previous:
    """What a champion with ids 1, 2, … says of other customers."""
    ids = list(range(1, fitted.segmentation.n_segments + 1))
    scores = fitted.segmentation.score(frame)
    decided = decisions.decide(scores, ids)
    members = decisions.memberships(decided, scores).set_axis(ids, axis=1)
    return Previous(decided.set_index("customer_id").segment_id, members)


def refit(before: pd.DataFrame, now: pd.DataFrame, **settings: object) -> tuple[Fitted, Previous]:
    first = task(before, **settings).fitted(None, {})
    previous = champion_on(first, now)
    return refitted(task(now, **settings), first.segmentation, previous), previous


def test_a_refit_of_unchanged_customers_is_warm_and_keeps_every_id() -> None:
    fitted, previous = refit(customers(0), customers(1))

    found = match(previous.memberships, fitted.memberships(), next_id=4)
    passed, reasons, moved = fitted.gate(found, previous)

    assert fitted.compared["start"] == "before"
    assert abs(fitted.compared["gain"]) < fitted.compared["margin"]
    assert found.ids == (1, 2, 3), "positions stay too"
    assert (passed, reasons) == (True, [])
    assert moved == 0.0
    assert fitted.challenger is None


def test_a_cold_fit_that_is_better_and_moves_nobody_takes_the_place() -> None:
    fitted, previous = refit(customers(0), customers(1, shape=SLANTED))

    found = match(previous.memberships, fitted.memberships(), next_id=4)

    assert fitted.compared["gain"] > fitted.compared["margin"]
    assert fitted.compared["start"] is None
    assert sorted(found.ids) == [1, 2, 3]
    assert fitted.gate(found, previous)[0]


def test_a_cold_fit_that_is_better_but_has_other_segments_stays_beside_the_warm_one() -> None:
    apart = ((0.0, 0.0), (12.0, -2.6), (0.0, 12.0), (0.0, 0.0), (12.0, 2.6), (0.0, 12.0))
    fitted, previous = refit(customers(0), customers(1, kinds=apart))

    assert fitted.compared["start"] == "before"
    assert fitted.challenger is not None
    assert wins(fitted.challenger.compared)
    found = match(previous.memberships, fitted.challenger.memberships(), next_id=4)
    passed, reasons, _ = fitted.challenger.gate(found, previous)
    assert not passed
    assert any("appear" in reason for reason in reasons)
    assert match(previous.memberships, fitted.memberships(), next_id=4).ids == (1, 2, 3)


def test_where_a_segment_has_lost_its_customers_the_fit_begins_from_nothing() -> None:
    fitted, _ = refit(customers(0), customers(1, kinds=KINDS[:2]))

    assert fitted.compared["start"] is None
    assert fitted.compared["reason"]
    assert fitted.segmentation.n_segments == 2


def test_what_is_asked_differs_with_features_settings_and_window_alone() -> None:
    asked = task(customers(0)).question

    assert task(customers(1)).question == asked
    assert task(customers(0), names={1: "A"}, seed=5).question == asked
    assert task(customers(0), segments=4).question != asked
    assert task(customers(0), exclude_features=("x",)).question != asked
    assert replace(task(customers(0)), lookback=1).question != asked
    assert replace(task(customers(0)), declared=FEATURES[:1]).question != asked


def test_the_measure_is_that_of_real_units_whatever_the_encoder() -> None:
    frame = customers(0, kinds=KINDS[:1])
    fitted = task(frame.assign(x=frame.x * 50, y=frame.y - 9), segments=1).fitted(None, {})
    (stratum,) = fitted.segmentation.strata
    columns = stratum.encoder.columns
    scale = np.array([column.scale for column in columns])
    center = np.array([column.center for column in columns])
    mixture = stratum.mixture
    density = np.log(mixture.weights_ @ [
        multivariate_normal(center + scale * mean, np.outer(scale, scale) * covariance).pdf(
            fitted.task.frame[list(NAMES)]
        )
        for mean, covariance in zip(mixture.means_, mixture.covariances_, strict=True)
    ])  # fmt: skip

    found = log_likelihood(stratum, fitted.task.frame, NAMES)

    assert mixture.tails_ == "gaussian"
    np.testing.assert_allclose(found, density, rtol=1e-6)


def test_fits_are_compared_on_the_columns_of_both() -> None:
    now = customers(1)
    with_more = now.assign(z=np.random.default_rng(5).standard_normal(len(now)) * 7)
    third = (*FEATURES, Feature("z", "continuous", "shape", "", "z"))
    two = task(now).fitted(None, {}).segmentation
    three = Task(with_more, third, Settings(), {}, 0).fitted(None, {}).segmentation

    found = gains(two, three, with_more)

    assert np.isfinite(found).all()
    assert abs(found.mean()) < 0.05, "a column of noise tells nothing about the others"
    np.testing.assert_allclose(found, -gains(three, two, with_more))


def test_fits_are_not_compared_on_a_column_that_they_take_for_different_things() -> None:
    """A probability of an atom and a density are not on one measure."""
    now = customers(1)
    atom = now.assign(z=np.where(np.arange(len(now)) % 2, 0.0, now.x.abs() + 1))
    third = (*FEATURES, Feature("z", "continuous", "shape", "", "z"))
    task_of = {"atom": atom, "none": atom.assign(z=now.x.abs() + 1)}
    fits = {name: Task(f, third, Settings(), {}, 0).fitted(None, {}) for name, f in task_of.items()}
    one, other = (fits[name].segmentation for name in ("atom", "none"))

    found = gains(one, other, atom)

    assert one.strata[0].columns.kinds["z"] == "semicontinuous"
    assert other.strata[0].columns.kinds["z"] == "continuous"
    without = [log_likelihood(fit.strata[0], atom, NAMES) for fit in (one, other)]
    np.testing.assert_allclose(found, without[1] - without[0])
