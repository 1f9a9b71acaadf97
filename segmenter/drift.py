"""Whether the customers are still those a model was fitted on: pure figures, one per feature.

The population stability index compares the shares of a feature's values, in cells that held a
tenth of the fit's customers each; the likelihood sees what no single feature shows. Both limits
mean a shift of half a standard deviation, and more where so few customers were looked at that
chance alone would move the figure as far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, norm

from shared.reports import DRIFT

CELLS = 10  # of a numeric feature, by quantiles of the fit
LEVELS = 20  # of a category; rarer ones share a cell
PSI_LIMIT = 0.25  # credit scoring's "major shift" (Siddiqi 2006): of a Gaussian, half a deviation
FALL_LIMIT = 0.5  # deviations of the fit's own log-likelihoods: the same shift
FALSE_DRIFT = 0.01  # of the scorings of a steady population may name any feature at all
LOWEST = 0.01  # quantile of the fit below which a log-likelihood counts as that: a few strays
LOG_LIKELIHOOD = "log_likelihood"
PSI, FALL = "population stability index", "fall of the mean in nats"
CHALLENGER_DAYS = 28  # while a drift lasts, one fit a month tries to follow it


def footing(frame: pd.DataFrame, columns: Sequence[str], log_density: np.ndarray) -> dict[str, Any]:
    """What a later scoring is compared with, as JSON: how the customers of the fit are spread.

    frame: the features in real units; columns: those that form the segments; log_density: (n,)
    nats, NaN without a purchase: such customers are left out.
    """
    bought = np.isfinite(log_density)
    own = log_density[bought]
    if not len(own):
        return {}
    low = float(np.quantile(own, LOWEST))
    kept = np.maximum(own, low)
    return {
        "customers": len(own),
        "features": {name: _spread(frame[name][bought]) for name in columns},
        LOG_LIKELIHOOD: {"low": low, "mean": float(kept.mean()), "sd": float(kept.std())},
    }


def _spread(values: pd.Series) -> dict[str, Any]:
    """The cells of a feature and how many customers each holds, the missing last.

    Cells of numbers end at an edge, which belongs to the cell below, so that an atom (the many
    with zero returns) fills one cell however many quantiles fall on it.
    """
    if not pd.api.types.is_numeric_dtype(values):
        known = values.astype("str")[values.notna()].value_counts()
        cells: dict[str, Any] = {"levels": [str(level) for level in known.index[:LEVELS]]}
    else:
        there = values.to_numpy(dtype=np.float64, na_value=np.nan)
        there = there[np.isfinite(there)]
        inner = np.linspace(0, 1, CELLS + 1)[1:-1]
        edges = np.unique(np.quantile(there, inner)) if len(there) else np.empty(0)
        cells = {"edges": edges.tolist()}
    return {**cells, "counts": _counts(values, cells).tolist()}


def _counts(values: pd.Series, cells: Mapping[str, Any]) -> np.ndarray:
    """Customers per cell, those of a rarer level and then the missing last."""
    missing = int(values.isna().sum())
    if "levels" in cells:
        known = values.astype("str")[values.notna()]
        counts = known.value_counts().reindex(cells["levels"], fill_value=0).to_numpy()
        return np.array([*counts, len(known) - counts.sum(), missing])
    there = values.to_numpy(dtype=np.float64, na_value=np.nan)
    codes = np.searchsorted(np.asarray(cells["edges"]), there[np.isfinite(there)], side="left")
    return np.array([*np.bincount(codes, minlength=len(cells["edges"]) + 1), missing])


def measured(
    fitted: Mapping[str, Any], frame: pd.DataFrame, log_density: np.ndarray
) -> pd.DataFrame:
    """One row per feature and one for the log-likelihood, with the columns DRIFT.

    fitted: the `footing` of the model; empty for a model without one. frame and log_density: the
    customers as of the scoring, as in `footing`. A value above its threshold is a drift.
    """
    bought = np.isfinite(log_density)
    if not fitted or not bought.any():
        return pd.DataFrame(columns=DRIFT)
    alpha = FALSE_DRIFT / (len(fitted["features"]) + 1)  # Bonferroni over the rows
    rows = [
        (name, PSI, *_stability(np.array(spread["counts"]), _counts(frame[name][bought], spread),
                                alpha))
        for name, spread in fitted["features"].items()
    ]  # fmt: skip
    rows.append((LOG_LIKELIHOOD, FALL, *_fall(fitted, log_density[bought], alpha)))
    found = pd.DataFrame(rows, columns=DRIFT[:-1])
    return found.assign(drifted=found.value > found.threshold)


def _stability(before: np.ndarray, now: np.ndarray, alpha: float) -> tuple[float, float]:
    """The index and its limit.

    sum (q - p) ln(q / p) over the shares p before and q now, each cell with half a customer more,
    which keeps empty ones finite. Of two samples of one population it is (1/n + 1/m) times a
    chi-squared of cells - 1 degrees of freedom (Yurdakul 2018), whose quantile is the least limit.
    """
    used = (before + now) > 0
    p, q = before[used] + 0.5, now[used] + 0.5
    index = float(((q / q.sum() - p / p.sum()) * np.log((q / q.sum()) / (p / p.sum()))).sum())
    chance = (1 / before.sum() + 1 / now.sum()) * chi2.isf(alpha, max(int(used.sum()) - 1, 1))
    return index, max(PSI_LIMIT, float(chance))


def _fall(fitted: Mapping[str, Any], log_density: np.ndarray, alpha: float) -> tuple[float, float]:
    """How far the mean log-likelihood lies under the fit's own, and its limit, in nats."""
    own = fitted[LOG_LIKELIHOOD]
    kept = np.maximum(log_density, own["low"])
    error = np.sqrt(own["sd"] ** 2 / fitted["customers"] + kept.var() / len(kept))
    chance = float(norm.isf(alpha) * error)
    return float(own["mean"] - kept.mean()), max(FALL_LIMIT * own["sd"], chance)


def drifted(metrics: pd.DataFrame) -> list[str]:
    """The features beyond their threshold, those farthest beyond it first."""
    beyond = metrics[metrics.drifted.astype(bool)]
    worst = (beyond.value / beyond.threshold).astype(float).sort_values(ascending=False)
    return [str(name) for name in beyond.feature[worst.index]]


def said(metrics: pd.DataFrame) -> str:
    """What a run adds to its line; nothing where the customers are as they were."""
    names = drifted(metrics)
    return f"; drifted since the fit: {', '.join(names)}" if names else ""


def challenger_due(newest_trained_to: datetime, as_of: datetime) -> bool:
    """Whether a lasting drift may start another fit: none of the last month stood up to it."""
    return as_of - newest_trained_to >= timedelta(days=CHALLENGER_DAYS)
