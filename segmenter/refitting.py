"""A refit: the champion's mixtures warmed up on the new customers, and a cold fit beside them.

A fit from nothing finds other segments each time although the customers are the same. So a refit
begins where the champion ended and keeps its grouping. It could miss that the customers fall
apart differently by now; a cold fit challenges it and is preferred where it describes customers
better whom neither has seen, on one and the same measure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from segmenter import decisions, lineage
from segmenter.em import SingularFitError
from segmenter.lineage import Match
from shared.encoding import Feature
from shared.errors import DataQualityError

if TYPE_CHECKING:
    from segmenter.columns import Columns
    from segmenter.config import Settings
    from segmenter.training import Scores, Segmentation, Stratum

HELD_OUT = 0.2  # of the customers, for the comparison
MARGIN = 0.05  # nats per held-out customer by which a cold fit has to be better
ERRORS = 2.0  # standard errors of the difference that the margin has to be above


@dataclass(frozen=True)
class Previous:
    """What the champion says of the customers as of the same moment; empty without a champion.

    segment_id: by customer_id, null where not assigned. memberships: see `lineage.match`.
    lacking: features of the champion that the mapping no longer gives.
    """

    segment_id: pd.Series
    memberships: pd.DataFrame
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """A new segmentation, the customers it was fitted on, and how it came about.

    compared: how a warm and a cold fit did, or why the fit is a cold one. challenger: a cold fit
    that describes customers better, but may not lead by itself.
    """

    segmentation: Segmentation
    task: Task
    scores: Scores
    diagnostics: dict[str, Any]
    compared: Mapping[str, Any]
    challenger: Fitted | None = None

    def memberships(self) -> pd.DataFrame:
        """See `decisions.memberships`; the columns are positions."""
        positions = range(self.segmentation.n_segments)
        return decisions.memberships(decisions.decide(self.scores, positions), self.scores)

    def published(self, matched: Match, current: pd.Series | None = None) -> pd.Series:
        """Segment id by customer_id of the customers of the fit, null where not assigned."""
        decided = decisions.decide(self.scores, matched.ids, current=current)
        return decided.set_index("customer_id").segment_id

    def gate(self, matched: Match, previous: Previous) -> tuple[bool, list[str], float]:
        """Whether it may lead by itself, the reasons against it, and the share that moves."""
        current = self.published(matched, previous.segment_id)
        passed, reasons = decisions.gate(previous.segment_id, current, matched, self.diagnostics)
        return passed, reasons, decisions.moved_share(previous.segment_id, current)


@dataclass(frozen=True)
class Task:
    """The customers of a window and what is asked of them; `fitted` answers.

    lookback: microseconds that the features see. base: the model that is, or could be, warmed up.
    """

    frame: pd.DataFrame
    declared: tuple[Feature, ...]
    settings: Settings
    levels: Mapping[str, tuple[str, ...]]
    lookback: int
    base: str | None = None

    @property
    def question(self) -> dict[str, Any]:
        """What is asked, as JSON; a model is warmed up only where it was asked the same."""
        return {
            "features": {f.name: f.kind for f in self.declared if f.role == "shape"},
            "segments": self.settings.segments,
            "max_segments": self.settings.max_segments,
            "min_segment_share": self.settings.min_segment_share,
            "exclude_features": sorted(self.settings.exclude_features),
            "lookback": self.lookback,
        }

    def fitted(self, start: Segmentation | None, compared: Mapping[str, Any]) -> Fitted:
        """The fit, warm where there is a start."""
        generator = np.random.default_rng(self.settings.seed)
        segmentation, diagnostics = self._trained(self.frame, generator, start)
        scores = segmentation.score(self.frame)
        decided = decisions.decide(scores, range(segmentation.n_segments))
        figures = {
            "mean_log_likelihood": float(np.nanmean(scores.log_density)),
            "assigned_share": float((decided.state == decisions.ASSIGNED).mean()),
        }
        return Fitted(segmentation, self, scores, diagnostics | figures, compared)

    def compared(self, start: Segmentation) -> dict[str, Any]:
        """How a warm and a cold fit describe customers held out of both.

        gain: mean of the cold fit's log-likelihood less the warm one's, nats per customer, with
        its standard error; null with a reason where the two cannot be compared.
        """
        generator = np.random.default_rng(self.settings.seed)
        bought = self.frame[self.frame["purchase_days"] > 0]
        held = generator.random(len(bought)) < HELD_OUT
        try:
            warm, _ = self._trained(bought[~held], generator, start)
            cold, _ = self._trained(bought[~held], generator, None)
        except (DataQualityError, SingularFitError) as error:
            return {"gain": None, "reason": str(error)}
        return _difference(gains(warm, cold, bought[held]))

    def _trained(
        self, frame: pd.DataFrame, generator: np.random.Generator, start: Segmentation | None
    ) -> tuple[Segmentation, dict[str, Any]]:
        from segmenter import training

        return training.train(frame, self.declared, self.settings, generator, self.levels, start)


def refitted(task: Task, start: Segmentation, previous: Previous) -> Fitted:
    """The warm refit of the base, or a cold fit that takes its place.

    A cold fit takes it where it describes held-out customers better and its gate is open, or
    where the warm one is no density of the customers any more.
    """
    found = task.compared(start)
    try:
        warm = task.fitted(start, {"start": task.base, **found})
    except (DataQualityError, SingularFitError) as error:
        return task.fitted(None, {"start": None, "reason": str(error)})
    if refused := decisions.refused(warm.diagnostics):
        return task.fitted(None, {"start": None, "reason": "; ".join(refused)})
    if not wins(found):
        return warm
    cold = task.fitted(None, {"start": None, **found})
    matched = lineage.match(previous.memberships, cold.memberships(), next_id=1)
    return cold if cold.gate(matched, previous)[0] else replace(warm, challenger=cold)


def wins(found: Mapping[str, Any]) -> bool:
    """Whether the cold fit was better by the margin."""
    return found["gain"] is not None and bool(found["gain"] > found["margin"])


def _difference(gains: np.ndarray) -> dict[str, Any]:
    """Mean gain, its standard error and the margin that it has to pass, in nats per customer."""
    gains = gains[np.isfinite(gains)]
    if len(gains) < 2:
        return {"gain": None, "reason": "too few customers to compare the fits on"}
    error = float(gains.std(ddof=1) / np.sqrt(len(gains)))
    return {
        "gain": float(gains.mean()),
        "standard_error": error,
        "margin": max(MARGIN, ERRORS * error),
        "held_out_customers": len(gains),
    }


def gains(warm: Segmentation, cold: Segmentation, frame: pd.DataFrame) -> np.ndarray:
    """(n,) log-likelihood under the cold fit less that under the warm one, in nats.

    Of each customer's columns that both fits use, the others being integrated out; NaN where they
    use none in common.
    """
    difference = np.full(len(frame), np.nan)
    for ours in warm.strata:
        for theirs in cold.strata:
            rows = np.intersect1d(ours.members(frame), theirs.members(frame))
            names = _alike(ours.columns, theirs.columns)
            if len(rows) and names:
                part = frame.iloc[rows]
                difference[rows] = log_likelihood(theirs, part, names)
                difference[rows] -= log_likelihood(ours, part, names)
    return difference


def _alike(ours: Columns, theirs: Columns) -> set[str]:
    """The features that both densities hold, and take for the same."""
    return {
        name
        for name in set(ours.names) & set(theirs.names)
        if (ours.kinds[name], ours.floors.get(name))
        == (theirs.kinds[name], theirs.floors.get(name))
    }


def log_likelihood(stratum: Stratum, frame: pd.DataFrame, names: Collection[str]) -> np.ndarray:
    """(n,) nats of the named columns, on a measure that all strata with these columns share.

    A density of encoded columns depends on how they were encoded. What is added is the log of the
    encoding's derivative as far as two encoders of one column differ: their scales.
    """
    matrix = stratum.matrix(frame)
    others = [i for i, name in enumerate(stratum.columns.names) if name not in names]
    matrix[:, others] = np.nan
    density = stratum.mixture.score_samples(matrix) + np.log(stratum.share)
    return density + _log_derivative(stratum, matrix)


def _log_derivative(stratum: Stratum, matrix: np.ndarray) -> np.ndarray:
    """(n,) over the continuous cells that are there; other cells have probabilities."""
    layout = stratum.mixture.layout_
    there = ~np.isnan(layout.continuous_part(matrix))
    scales = [stratum.encoder.columns[number].scale for number in layout.continuous]
    return np.asarray(-(there @ np.log(scales)))
