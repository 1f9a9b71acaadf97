"""A fit as a whole, on small worlds: honest p-values, and labels that teach without peeking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fraudwatch import learning
from fraudwatch.decisions import DRIFT_DAYS, benjamini_hochberg
from fraudwatch.detector import Detector
from fraudwatch.evidence import LEAST_FRAUDS, Evidence
from fraudwatch.judging import Journal, Judged, filled, judge
from fraudwatch.learning import Learned, Window
from fraudwatch.ranker import GENUINE_PER_FRAUD
from shared import artifacts
from shared.frames import MICROSECONDS_PER_DAY as DAY
from tests.planted import SETTINGS, World, a_window, a_world, learned_from

WINDOW = a_window(0, 20, 40)


@pytest.fixture(scope="module")
def world() -> World:
    """Forty days to learn from and ten more."""
    return a_world(0, days=50, normal=200, frauds=6)


@pytest.fixture(scope="module")
def learned(world: World) -> Learned:
    return learned_from(world, WINDOW)


def calibrated_on(found: Detector, world: World, window: Window, journal: Journal) -> Detector:
    at = world.places(window.since // DAY, window.until // DAY)
    frame = world.frame.iloc[at]
    return learning.calibrated(
        found, frame, found.score(frame), journal, at, window, SETTINGS, "UTC"
    )


def seen_by(found: Detector, world: World) -> Journal:
    """The journal with the surprises of all rows."""
    surprise = found.surprise(found.score(world.frame))
    return filled(world.journal(), np.arange(len(world.rows)), surprise)


def judged(found: Detector, world: World, journal: Journal, since: int, until: int) -> Judged:
    at = world.places(since, until)
    frame = world.frame.iloc[at]
    return judge(found, frame, found.score(frame), journal, at)


def of_days(found: Detector, days: int) -> Detector:
    """With evidence of so many days: what came before them is of no account."""
    return replace(found, evidence=replace(found.evidence, days=days))


# --- p-values and the rate of false alarms ------------------------------------------------------


@pytest.mark.parametrize("labelled", [False, True], ids=["surprises alone", "labels as well"])
def test_p_values_with_evidence_are_super_uniform_on_normal_rows(learned, labelled):
    """Calibration and new rows are of exchangeable days, each with its days of history.

    Half of the customers are wilder, so that the evidence does move the scores.
    """
    found = of_days(learned.detector, 6)
    if not labelled:
        found = replace(found, evidence=replace(Evidence.assumed(["customer"]), days=6))
    levels, below, moved = (0.01, 0.05, 0.2, 0.5), [], []
    for seed in range(30):
        world = a_world(
            1000 + seed, days=20, normal=60, frauds=2 * labelled, customers=40, wild=1.5
        )
        journal = seen_by(found, world)
        calibrated = calibrated_on(found, world, a_window(0, 7, 18), journal)
        made = judged(calibrated, world, journal, 18, 20)
        normal = ~world.fraud[made.at]
        below.append([np.mean(made.p_value[normal] <= level) for level in levels])
        moved.append(np.ptp(made.anomaly_score[normal] - made.surprise[normal]))

    error = np.std(below, axis=0, ddof=1) / np.sqrt(len(below))
    assert (np.mean(below, axis=0) <= np.array(levels) + 3 * error).all()
    assert np.mean(below, axis=0) == pytest.approx(levels, abs=0.03), "and not all one"
    assert np.median(moved) > 0.5


def test_the_share_of_false_alerts_is_at_most_the_asked_rate(learned):
    """Twelve worlds with frauds of their own, confirmed a day later; the density is that of one."""
    found, rates = of_days(learned.detector, 7), (0.05, 0.1, 0.2)
    false: dict[float, list[float]] = {rate: [] for rate in rates}
    hits: dict[float, list[float]] = {rate: [] for rate in rates}
    for seed in range(1, 13):
        world = a_world(seed, days=32, normal=200, frauds=6, customers=400)
        journal = seen_by(found, world)
        calibrated = calibrated_on(found, world, a_window(0, 8, 24), journal)
        made = judged(calibrated, world, journal, 24, 32)
        assert calibrated.footing is not None and calibrated.footing.weakness() is None
        for rate in rates:
            daily = [of_day(made, world, day, rate) for day in range(24, 32)]
            false[rate].append(float(np.mean([share for share, _ in daily])))
            hits[rate].append(float(np.mean([share for _, share in daily])))

    for rate in rates:
        error = np.std(false[rate], ddof=1) / np.sqrt(len(false[rate]))
        assert np.mean(false[rate]) <= rate + 2 * error
        assert np.mean(hits[rate]) > 0.8, "and most frauds are found"


def of_day(made: Judged, world: World, day: int, rate: float) -> tuple[float, float]:
    """(share of false alerts, 0 without any; share of the frauds found) of a closed day."""
    rows = world.day[made.at] == day
    fraud = world.fraud[made.at[rows]]
    under = benjamini_hochberg(made.p_value[rows]) <= rate
    return float(np.sum(under & ~fraud) / max(under.sum(), 1)), float(np.mean(under[fraud]))


def test_confirmed_frauds_in_the_calibration_window_do_not_silence_the_alarms(world, learned):
    found, journal = learned.detector, seen_by(learned.detector, world)
    unconfirmed = replace(journal, rows=world.rows.assign(label=np.nan))
    silenced = calibrated_on(found, world, WINDOW, unconfirmed)

    # Judged alike: only the calibration differs.
    with_labels, without = (judged(each, world, journal, 41, 50) for each in (found, silenced))

    fraud = world.fraud[with_labels.at]
    assert np.median(without.p_value[fraud]) > 10 * np.median(with_labels.p_value[fraud])
    hits = [
        np.mean([of_day(made, world, day, 0.1)[1] for day in range(41, 50)])
        for made in (with_labels, without)
    ]
    assert hits[0] > 0.9 and hits[1] < 0.1
    assert silenced.footing is not None and silenced.footing.weakness() is not None


# --- the calibration ----------------------------------------------------------------------------


def test_the_calibration_is_of_the_rows_judged_like_any_others(world, learned):
    journal, found = learned.journal, learned.detector

    made = judged(found, world, journal, 20, 39)  # of the last day nothing is known yet

    fraud = world.fraud[made.at]
    assert found.calibration.scores == pytest.approx(np.sort(made.anomaly_score[~fraud]), abs=1e-9)
    assert found.calibration.frauds == pytest.approx(np.sort(made.anomaly_score[fraud]), abs=1e-9)
    assert (found.calibration.days, found.footing.days) == (19, 19)
    assert world.rows.occurred_at[made.at].max() + 1 == found.calibration.until <= 39 * DAY
    assert found.footing.frauds_removed == 19 * 6
    assert found.footing.known_share == 1.0


def test_the_entry_level_counts_the_confirmed_frauds(world, learned):
    found = learned.detector.calibration

    level = found.entry_level(4)

    every = np.concatenate([found.scores, found.frauds])
    assert (every >= level).sum() == round(1.5 * 4 * 19)
    assert (found.scores >= level).sum() < 1.5 * 4 * 19 / 2, "most of what is raised are frauds"


def test_days_without_answers_stay_where_too_few_have_them(world, learned):
    answers = DRIFT_DAYS - 1
    unknown = (world.day < 20) | (world.day >= 20 + answers)
    few = world.rows.assign(label=world.rows.label.mask(unknown))
    journal = replace(seen_by(learned.detector, world), rows=few)

    found = calibrated_on(learned.detector, world, WINDOW, journal)

    assert found.calibration.days == 20
    assert len(found.calibration.frauds) == answers * 6
    assert len(found.calibration.scores) == 20 * 206 - answers * 6
    assert found.footing is not None
    assert found.footing.known_share == pytest.approx(answers / 20)


def test_what_is_not_known_by_the_end_of_the_window_teaches_nothing():
    """Not even whom to train on: the bytes of the detector are the same."""
    world, window = a_world(6, days=24, normal=40, frauds=2, delay_days=5), a_window(0, 12, 24)
    late = world.rows.occurred_at + world.delay_days * DAY >= window.until
    label = world.rows.label.mask(late, 1 - world.rows.label)
    changed = replace(world, rows=world.rows.assign(label=label))

    found, expected = (learned_from(each, window).detector for each in (changed, world))

    assert late.any() and len(expected.calibration.frauds)
    assert artifacts.pack(found.header(), found.to_arrays()) == artifacts.pack(
        expected.header(), expected.to_arrays()
    )


def test_confirmed_frauds_are_not_trained_on_and_teach_the_evidence(world, learned):
    known = world.journal().labels.known(WINDOW.until)
    trained = world.places(0, 20)

    assert learned.diagnostics["rows"] + learned.diagnostics["held_out_rows"] == np.sum(
        known[trained] != 1
    )
    assert learned.diagnostics["known_frauds"] == np.sum(known == 1) == 39 * 6
    assert learned.detector.learnt
    shops = dict(zip(("customer", "counterparty"), learned.detector.evidence.keys, strict=True))
    assert shops["counterparty"].duration > 30, "the same few counterparties, all the time"
    assert np.isfinite(learned.journal.surprise[learned.at]).all()


def test_without_labels_the_evidence_is_as_assumed_and_no_rate_is_promised():
    world = a_world(4, days=24, normal=40, frauds=2)
    world = replace(world, rows=world.rows.drop(columns="label"))

    found = learned_from(world, a_window(0, 12, 24)).detector

    assert found.evidence == Evidence.assumed(["customer", "counterparty"])
    assert not found.learnt
    assert found.calibration.frauds.shape == (0,)
    assert found.footing is not None and "only 0% has a verdict" in str(found.footing.weakness())


# --- the ranker ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subtle(learned: Learned) -> Learned:
    """The same detector before frauds of hardly larger amounts, about which a hunch says more."""
    world = a_world(7, days=60, normal=100, frauds=6, excess=0.8)
    at = world.places(0, 60)
    scored = learned.detector.score(world.frame)
    journal = filled(world.journal(), at, learned.detector.surprise(scored))
    return Learned(learned.detector, world.frame, scored, journal, at, {})


def test_a_ranker_that_knows_more_than_the_density_passes_its_gate(subtle):
    found = learning.rank(subtle, 60 * DAY, "UTC", seed=0)

    assert found is not None and found.gate["passed"]
    assert found.gate["average_precision"] > found.gate["average_precision_of_density"] + 0.05
    assert "hunch" in found.ranker.columns
    assert found.frauds == 59 * 6, "known a day later"
    assert found.rows == 59 * 106 <= found.frauds * (1 + GENUINE_PER_FRAUD)


@pytest.mark.parametrize("seed", range(4))
def test_a_ranker_taught_with_shuffled_labels_does_not_pass_its_gate(subtle, seed):
    labels = np.random.default_rng(seed).permutation(subtle.journal.rows.label)
    shuffled = replace(subtle.journal, rows=subtle.journal.rows.assign(label=labels))

    found = learning.rank(replace(subtle, journal=shuffled), 60 * DAY, "UTC", seed)

    assert found is not None and not found.gate["passed"]


def test_too_few_known_frauds_teach_no_ranker(subtle):
    unknown = replace(subtle.journal, rows=subtle.journal.rows.assign(label=np.nan))
    genuine = replace(subtle.journal, rows=subtle.journal.rows.assign(label=0.0))

    early = learning.rank(subtle, 5 * DAY, "UTC", seed=0)  # 24 frauds are known

    assert early is None and LEAST_FRAUDS > 24
    for journal in (unknown, genuine):
        assert learning.rank(replace(subtle, journal=journal), 60 * DAY, "UTC", seed=0) is None


def test_answers_that_are_not_known_yet_teach_no_ranker_anything(subtle):
    until = 50 * DAY
    rows = subtle.journal.rows
    late = rows.occurred_at + DAY >= until
    other = rows.assign(label=np.where(late, 1 - rows.label, rows.label))
    changed = replace(subtle, journal=replace(subtle.journal, rows=other))

    found, expected = (learning.rank(each, until, "UTC", seed=3) for each in (changed, subtle))

    assert late.any() and found is not None and expected is not None
    assert found.ranker.text == expected.ranker.text
    assert found.gate == expected.gate


def test_the_gate_is_of_the_newest_quarter_of_the_days_with_answers(subtle):
    """What the later days say is not learned from before they are judged: turned, it fails."""
    rows = subtle.journal.rows
    later = rows.occurred_at >= 45 * DAY
    turned = rows.assign(
        label=np.where(later, rows.label.sample(frac=1, random_state=0), rows.label)
    )

    found = learning.rank(
        replace(subtle, journal=replace(subtle.journal, rows=turned)), 60 * DAY, "UTC", seed=0
    )

    assert found is not None and not found.gate["passed"]
    assert "14 later days" in next(iter(found.gate["checks"])), "of 59 a quarter"
