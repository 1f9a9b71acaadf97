"""Everything that gives scores in the benchmark: rules, oracles, peers, and peerwatch itself.

A scorer is trained on a case (a test week, a split, a world) and then scores its test rows. More
of them come in by another function in `SOURCES`, from the name of a data set to its scorers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from tests.quality import cases, ours, ours_on_tables, peers, views
from tests.quality.weeks import INPUTS, NONE, RULES, TRAINING, Week

DEFAULT = "default"
HANDBOOK_VIEWS = ("focal2", "rich24", "book15", "rich+known", "small9")


class Scorer(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def view(self) -> str:
        """The columns that it is given."""

    @property
    def setting(self) -> str: ...

    @property
    def labels(self) -> str:
        """What used labels: nothing, inputs at least 7 days old, or the training."""

    @property
    def source(self) -> str:
        """What its scores came from: a version, or a fingerprint of code."""

    @property
    def seeded(self) -> bool:
        """Whether another seed gives other scores."""

    @property
    def cost(self) -> int:
        """0 to 3: the order of a run."""

    def fit(self, case: Any, seed: int) -> Callable[[], np.ndarray]:
        """Trains; what it returns gives the (test rows,) scores, higher for likelier frauds."""

    def train_rows(self, case: Any) -> int:
        """How many rows the training sees."""


@dataclass(frozen=True)
class Rule:
    """A formula of the handbook's columns; an oracle is one that looks at the truth."""

    name: str
    labels: str
    formula: Callable[[Week], np.ndarray]
    view: str = "–"
    setting: str = DEFAULT
    source: str = "rule"
    seeded: bool = False
    cost: int = 0

    def fit(self, case: Week, seed: int) -> Callable[[], np.ndarray]:
        return lambda: self.formula(case)

    def train_rows(self, case: Week) -> int:
        return 0


@dataclass(frozen=True)
class Column:
    """A rule of a table: one of its columns."""

    name: str
    column: str
    view: str = "–"
    setting: str = DEFAULT
    labels: str = NONE
    source: str = "rule"
    seeded: bool = False
    cost: int = 0

    def fit(self, case: cases.Table, seed: int) -> Callable[[], np.ndarray]:
        return lambda: case.column(self.column)

    def train_rows(self, case: cases.Table) -> int:
        return 0


@dataclass(frozen=True)
class Peer:
    """A detector with a setting on a view."""

    tried: peers.Setting
    view: str

    @property
    def _detector(self) -> peers.Detector:
        return peers.DETECTORS[self.tried.detector]

    @property
    def name(self) -> str:
        return self.tried.detector

    @property
    def setting(self) -> str:
        return self.tried.text

    @property
    def labels(self) -> str:
        if self._detector.supervised:
            return TRAINING
        return INPUTS if self.view in views.VIEWS and views.uses_labels(self.view) else NONE

    @property
    def source(self) -> str:
        return self._detector.source

    @property
    def seeded(self) -> bool:
        return self._detector.seeded

    @property
    def cost(self) -> int:
        return self._detector.cost

    def fit(self, case: cases.Case, seed: int) -> Callable[[], np.ndarray]:
        split = self._split(case)
        score = peers.fit(self.tried, split, seed)
        return lambda: score(split.test)

    def train_rows(self, case: cases.Case) -> int:
        return len(peers.drawn(self._detector, self._split(case).train.shape, 0))

    def _split(self, case: cases.Case) -> peers.Split:
        return case.split(self.view, self.tried.days, labels=self.labels != NONE)


def _rules(dataset: str) -> Iterable[Scorer]:
    if dataset == "handbook":
        yield from (Rule(name, labels, formula) for name, (labels, formula) in RULES.items())
    if dataset in ("ulb", "demo"):
        yield Column("rule: amount", cases.AMOUNT[dataset])
    if dataset == "demo":
        yield Column("rule: amount over own median", "amount_ratio")


def _peers(dataset: str) -> Iterable[Scorer]:
    for name, detector in peers.DETECTORS.items():
        if detector.supervised and (dataset == "anz" or dataset in cases.DRAWN):
            continue  # it has no labels, or hides them
        for view in HANDBOOK_VIEWS if dataset == "handbook" else ("all columns",):
            for tried in peers.settings(name):
                if dataset == "handbook" or tried.days == peers.DAYS:  # others train on all before
                    yield Peer(tried, view)


SOURCES: list[Callable[[str], Iterable[Scorer]]] = [
    _rules,
    _peers,
    ours.classes,
    ours_on_tables.classes,
]


@cache
def on(dataset: str) -> tuple[Scorer, ...]:
    """The scorers of a data set."""
    return tuple(scorer for source in SOURCES for scorer in source(dataset))


def named(dataset: str, name: str, view: str, setting: str) -> Scorer:
    """The one scorer of these names."""
    for scorer in on(dataset):
        if (scorer.name, scorer.view, scorer.setting) == (name, view, setting):
            return scorer
    raise LookupError(f"no scorer on {dataset} is called {name}, {view}, {setting}")
