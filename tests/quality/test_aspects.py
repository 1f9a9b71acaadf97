"""What the aspects of a surprise do: average precision on the handbook's weeks of choice, with the
density as it is and each choice of its aspects undone.

Run: python -m pytest tests/quality/test_aspects.py -s
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fraudwatch import evidence, judging
from fraudwatch.decisions import Aspect, SurpriseScale, mixed
from fraudwatch.labels import FRAUD
from fraudwatch.learning import Learned
from shared.windows import DAY
from tests.quality import commands, datasets
from tests.quality.ours import Study, study
from tests.quality.views import Payments
from tests.quality.weeks import CHOICE, Week

Aspects = Sequence[Aspect]
SEEN: dict[str, dict[str, float]] = {}


def without_misfit(aspects: Aspects) -> Aspects:
    return [aspect for aspect in aspects if aspect.name != "misfit"]


def unbounded(aspects: Aspects) -> Aspects:
    return [replace(aspect, most=None) for aspect in aspects]


def amount_half(aspects: Aspects) -> Aspects:
    """The amount weighs as much as all others."""
    others = sum(aspect.weight for aspect in aspects if aspect.name != "amount")
    return [replace(a, weight=others) if a.name == "amount" else a for a in aspects]


CHOICES: Mapping[str, Callable[[Aspects], Aspects]] = {
    "as it is": lambda aspects: aspects,
    "without the misfit": without_misfit,
    "the misfit without its bound": unbounded,
    "the amount weighs half": amount_half,
}


def changed(made: Study, aspects: Aspects) -> Study:
    """The study with other aspects, scaled and its evidence learned as in a fit."""
    learned, journal = made.learned, made.journal(made.span)
    until = int(made.payments.times[0] // DAY + made.until) * DAY
    known = journal.labels.known(until)[learned.at]
    held_out = (journal.times[learned.at] >= learned.detector.calibration.since) & (known != FRAUD)
    weights = sum(aspect.weight for aspect in aspects)
    aspects = [replace(aspect, weight=aspect.weight / weights) for aspect in aspects]
    scale = SurpriseScale.of(mixed(learned.scored.surprise[held_out], aspects))
    detector = replace(learned.detector, aspects=tuple(aspects), scale=scale)
    journal = judging.filled(journal, learned.at, detector.surprise(learned.scored))
    keys, times, surprise = journal.keys, journal.times, journal.surprise
    chains, _ = evidence.fit(keys, times, surprise, journal.labels, until)
    return _with(made, replace(learned, detector=replace(detector, evidence=chains)))


def _with(made: Study, learned: Learned) -> Study:
    """The study with what is given in the place of what it would learn."""
    other = replace(made)
    other.__dict__["learned"] = learned
    return other


@pytest.fixture(scope="module", autouse=True)
def printed() -> Iterator[None]:
    """The table of what was seen, at the end."""
    yield
    lines = [{"aspects": name, **figures} for name, figures in SEEN.items()]
    print(commands.markdown(lines, "AP on the weeks of choice, seed 0"))


@cache
def precision(*, labels: bool) -> dict[str, float]:
    """Mean average precision by choice; labels: as inputs, 7 days old."""
    try:
        payments = Payments.read()
    except datasets.DataAbsent as absent:
        pytest.skip(str(absent))
    found: dict[str, list[float]] = {name: [] for name in CHOICES}
    for start in CHOICE:
        week = Week(payments, start)
        made = study(week, 0, labels=labels)
        for name, choice in CHOICES.items():
            one = changed(made, choice(made.learned.detector.aspects))
            scores = one.judged(week.test)[0].anomaly_score
            found[name].append(week.figures(scores)["main"]["AP"])
    for name, values in found.items():
        SEEN.setdefault(name, {})["labels" if labels else "no label"] = float(np.mean(values))
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.parametrize(("labels", "least"), [(False, 0.005), (True, -0.005)])
def test_the_misfit_finds_more_without_labels_and_costs_little_with_them(
    labels: bool, least: float
) -> None:
    found = precision(labels=labels)

    assert found["as it is"] - found["without the misfit"] > least


@pytest.mark.parametrize(("labels", "least"), [(False, -0.005), (True, 0.01)])
def test_its_bound_costs_little_without_labels_and_pays_with_them(
    labels: bool, least: float
) -> None:
    found = precision(labels=labels)

    assert found["as it is"] - found["the misfit without its bound"] > least
