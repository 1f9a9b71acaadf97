"""A small world of payments with planted frauds, as frames, and the detector that learns it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from fraudwatch import detector
from fraudwatch.config import Settings
from fraudwatch.detector import Detector
from fraudwatch.features import Reference
from fraudwatch.judging import Journal, Judged, filled, judge
from fraudwatch.learning import Learned, Window, learn
from shared.encoding import Feature
from shared.frames import MICROSECONDS_PER_DAY as DAY

FEATURES = (
    Feature("amount_ratio", "continuous", "focal", "times", "amount over the own median", "log1p"),
    Feature("height", "continuous", "focal", "", "what follows the habit"),
    Feature("channel", "category", "focal", "", "the channel"),
    Feature("habit", "continuous", "context", "", "what the height follows"),
)
REFERENCE = Reference({}, 1.0, 1.0, 1.0)
NO_VERDICTS = pd.DataFrame(
    {"transaction_id": [], "verdict": [], "decided_at": np.empty(0, np.int64)}
)
SETTINGS = Settings(reviews_per_day=20)


@dataclass(frozen=True, eq=False)
class World:
    """rows: as `Journal` takes them, in order of time, with labels. frame: their features."""

    rows: pd.DataFrame
    frame: pd.DataFrame
    fraud: np.ndarray
    delay_days: int

    @property
    def day(self) -> np.ndarray:
        return self.rows.occurred_at.to_numpy() // DAY

    def journal(self) -> Journal:
        """Without a surprise yet."""
        return Journal(self.rows, NO_VERDICTS, self.delay_days, np.full(len(self.rows), np.nan))

    def places(self, since: int, until: int) -> np.ndarray:
        """Of the rows of the days [since, until)."""
        return np.flatnonzero((self.day >= since) & (self.day < until))


def a_world(
    seed: int,
    *,
    days: int = 50,
    normal: int = 100,
    frauds: int = 4,
    customers: int = 200,
    delay_days: int = 1,
    excess: float = 3.0,
    wild: float = 1.0,
) -> World:
    """So many normal and fraudulent payments each day; frauds are large and at few counterparties.

    excess: log of how many times as large a fraud is. wild: how many times wider the amounts of
    every second customer deviate.
    """
    generator = np.random.default_rng(seed)
    size = days * (normal + frauds)
    fraud = np.tile(np.arange(normal + frauds) < frauds, days)
    times = np.repeat(np.arange(days), normal + frauds) * DAY + generator.integers(0, DAY, size)
    order = np.argsort(times)
    times, fraud = times[order], fraud[order]
    customer = generator.integers(0, customers, size)
    shop = np.where(fraud, generator.integers(0, 5, size), generator.integers(0, 40, size))
    deviation = np.where(customer % 2 == 0, 0.5, 0.5 * wild)
    habit = generator.normal(size=size)
    rows = pd.DataFrame({
        "transaction_id": np.arange(size),
        "occurred_at": times,
        "customer_id": [f"c{code}" for code in customer],
        "counterparty_id": [f"s{code}" if code % 7 else None for code in shop],
        "label": fraud.astype(float),
    })  # fmt: skip
    frame = pd.DataFrame({
        "amount_ratio": np.exp(generator.normal(0, deviation) + excess * fraud),
        "height": habit + generator.normal(0, 0.3, size),
        "channel": generator.choice(["web", "chip", "atm"], size, p=[0.7, 0.25, 0.05]),
        "habit": habit,
        "hunch": generator.normal(size=size) + 1.5 * fraud,  # no feature of the density
    })  # fmt: skip
    return World(rows, frame, fraud, delay_days)


@contextmanager
def few_steps(steps: int = 80) -> Iterator[None]:
    """Enough of training to tell an amount from one twenty times as large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "STEPS", (steps, steps))
        yield


def a_window(since: int, split: int, until: int) -> Window:
    """Of whole days."""
    return Window(since * DAY, split * DAY, until * DAY, until - split)


def learned_from(world: World, window: Window, seed: int = 0) -> Learned:
    at = world.places(window.since // DAY, window.until // DAY)
    settings = replace(SETTINGS, seed=seed)
    with few_steps():
        return learn(
            world.frame.iloc[at], at, world.journal(), FEATURES, REFERENCE, window, settings, "UTC"
        )


def judged_by(found: Detector, world: World, journal: Journal, at: np.ndarray) -> Judged:
    """Judges rows of the world, with the surprises of all its rows in the journal."""
    scored = found.score(world.frame)
    journal = filled(journal, np.arange(len(world.rows)), found.surprise(scored))
    return judge(found, world.frame.iloc[at], scored.part(at), journal, at)
