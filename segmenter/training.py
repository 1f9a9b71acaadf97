"""From a feature frame to a fitted segmentation, with a record of every choice on the way.

Where many customers bought on a single day (more than SPIKE_SHARE), frequency is a spike, the net
amount equals the basket and tenure equals recency: no Gaussian holds that together with regular
customers. The customers are then fitted as two strata, one-time and repeat, each with the
columns that mean something there; densities of the strata add up weighted by their shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from segmenter.config import Settings
from segmenter.merging import MERGE_OVERLAP, group_terms, merge, posteriors
from segmenter.model import SegmentMixture
from segmenter.screening import (
    SPIKE_SHARE,
    dequantised,
    encoded,
    far_rows,
    screen,
    share_centers,
    smoothed,
)
from shared.encoding import Encoder, Feature
from shared.errors import DataQualityError

ALL, SINGLE, REPEAT = "all", "single", "repeat"
MIN_CUSTOMERS = 20  # fewer are looked at one by one, not grouped
MERGE_ROWS = 500  # below, overlap is estimated too roughly and real groups get joined
MAX_JOINED_SHARE = 0.5  # of all customers, in one segment made by joining overlapping parts
MAX_COMPONENTS = 12  # parts before merging; the criterion stops well before where data allow
MIN_COMPONENT_SHARE = 0.005  # a smaller part describes single customers
FLOOR_SHARE = 0.001  # of ordinary customers may fall under the outlier floor
FLOOR_DRAWS = 20_000  # draws that place the floor


@dataclass(frozen=True)
class Scores:
    """What the density says of customers, row by row as in the frame scored.

    log_density: (n,) nats, NaN without a purchase. posterior: (n, segments). floor: (n,) the log
    density under which a customer is an outlier.
    """

    customer_id: pd.Series
    log_density: np.ndarray
    posterior: np.ndarray
    floor: np.ndarray


@dataclass(frozen=True)
class Stratum:
    """The density of one part of the customers; `segment_of` maps components to positions."""

    name: str
    encoder: Encoder
    centers: Mapping[str, float]
    mixture: SegmentMixture
    segment_of: np.ndarray
    share: float
    floor: float

    def matrix(self, frame: pd.DataFrame) -> np.ndarray:
        return encoded(self.encoder, smoothed(frame, self.centers))

    def groups(self) -> list[tuple[int, ...]]:
        """Components per segment, in the order of the segments' positions."""
        return [
            tuple(np.flatnonzero(self.segment_of == position).tolist())
            for position in np.unique(self.segment_of)
        ]


@dataclass(frozen=True)
class Segmentation:
    """A fitted segmentation: all that is needed to score, as arrays and JSON.

    levels: per category those whose shares are features, for `features.build` when scoring.
    """

    strata: tuple[Stratum, ...]
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def n_segments(self) -> int:
        return 1 + max(int(stratum.segment_of.max()) for stratum in self.strata)

    def score(self, frame: pd.DataFrame) -> Scores:
        """Densities and posteriors of the customers of a feature frame."""
        n = len(frame)
        log_density, floor = np.full(n, np.nan), np.full(n, np.nan)
        posterior = np.zeros((n, self.n_segments))
        for stratum in self.strata:
            rows = np.flatnonzero(_members(frame, stratum.name))
            if len(rows) == 0:
                continue
            terms = stratum.mixture.log_terms(stratum.matrix(frame.iloc[rows]))
            grouped = group_terms(terms, stratum.groups())
            log_density[rows] = np.logaddexp.reduce(grouped, axis=1) + np.log(stratum.share)
            posterior[np.ix_(rows, np.unique(stratum.segment_of))] = posteriors(grouped)
            floor[rows] = stratum.floor + np.log(stratum.share)
        return Scores(frame["customer_id"].reset_index(drop=True), log_density, posterior, floor)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All numbers, by "stratum.name"."""
        return {
            f"{stratum.name}.{key}": value
            for stratum in self.strata
            for key, value in {
                **stratum.mixture.to_arrays(),
                "segment_of": stratum.segment_of,
                "share_and_floor": np.array([stratum.share, stratum.floor]),
            }.items()
        }

    def header(self) -> dict[str, Any]:
        """What is not an array, as JSON."""
        return {
            "levels": {name: list(levels) for name, levels in self.levels.items()},
            "strata": [
                {
                    "name": stratum.name,
                    "encoder": stratum.encoder.to_json(),
                    "centers": dict(stratum.centers),
                }
                for stratum in self.strata
            ],
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> Segmentation:
        """The segmentation whose `to_arrays` and `header` these are."""
        strata = tuple(_stratum_at_rest(arrays, document) for document in header["strata"])
        return cls(strata, {name: tuple(levels) for name, levels in header["levels"].items()})

    def sample(self, n: int, seed: int) -> pd.DataFrame:
        """Synthetic customers in real units, with `segment` (position); see `Stratum`.

        Features that the stratum's density does not hold are NaN.
        """
        counts = np.random.default_rng(seed).multinomial(n, [s.share for s in self.strata])
        drawn = []
        for stratum, count in zip(self.strata, counts, strict=True):
            stratum.mixture.set_params(random_state=seed)
            matrix, labels = stratum.mixture.sample(int(count))
            frame = stratum.encoder.inverse(matrix)
            if stratum.name == SINGLE:
                frame = frame.assign(purchase_days=1.0)
            drawn.append(frame.assign(segment=stratum.segment_of[labels]))
        return pd.concat(drawn, ignore_index=True)


def _stratum_at_rest(arrays: dict[str, np.ndarray], document: dict[str, Any]) -> Stratum:
    own = {
        key.partition(".")[2]: value
        for key, value in arrays.items()
        if key.partition(".")[0] == document["name"]
    }
    share, floor = own["share_and_floor"].tolist()
    return Stratum(
        document["name"],
        Encoder.from_json(document["encoder"]),
        document["centers"],
        SegmentMixture.from_arrays(own),
        own["segment_of"],
        share,
        floor,
    )


def train(
    frame: pd.DataFrame,
    features: Sequence[Feature],
    settings: Settings,
    generator: np.random.Generator,
    levels: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[Segmentation, dict[str, Any]]:
    """Fit a segmentation to a feature frame; customers without a purchase are left out.

    Segments are positions 0.. by falling share of the customers. The diagnostics say per stratum
    which columns were used and why the others were not, what was scanned, refused and merged.
    """
    bought = frame[frame["purchase_days"] > 0]
    if len(bought) < MIN_CUSTOMERS:
        raise DataQualityError(
            f"The fit found {len(bought)} customers with a purchase within "
            f"{settings.lookback_days} days; expected at least {MIN_CUSTOMERS}."
        )
    strata, records = [], []
    for name, wanted, limit in _plan(bought, settings):
        part = bought[_members(bought, name)]
        stratum, record = _fit(
            part, len(bought), features, settings, generator, name, wanted, limit
        )
        strata.append(stratum)
        records.append(record)
    segmentation = _ordered(Segmentation(tuple(strata), levels or {}))
    return segmentation, {
        "customers": len(frame),
        "without_purchase": len(frame) - len(bought),
        "segments": segmentation.n_segments,
        "strata": records,
    }


def _members(frame: pd.DataFrame, stratum: str) -> np.ndarray:
    days = frame["purchase_days"].to_numpy()
    return {ALL: days > 0, SINGLE: days == 1, REPEAT: days > 1}[stratum]


def _plan(bought: pd.DataFrame, settings: Settings) -> list[tuple[str, int | None, int]]:
    """The strata to fit, each with the wanted and the largest number of segments."""
    total = None if settings.segments == "auto" else int(settings.segments)
    most = total or settings.max_segments
    single = int(_members(bought, SINGLE).sum())
    split = (
        single > SPIKE_SHARE * len(bought)
        and min(single, len(bought) - single) >= MIN_CUSTOMERS
        and most > 1
        and "purchase_days" not in settings.exclude_features
    )
    if not split:
        return [(ALL, total, most)]
    few = min(max(round(most * single / len(bought)), 1), most - 1)
    wanted = (None, None) if total is None else (few, most - few)
    return [(SINGLE, wanted[0], few), (REPEAT, wanted[1], most - few)]


def _fit(
    part: pd.DataFrame,
    customers: int,
    features: Sequence[Feature],
    settings: Settings,
    generator: np.random.Generator,
    name: str,
    wanted: int | None,
    limit: int,
) -> tuple[Stratum, dict[str, Any]]:
    """One stratum, its segments numbered from 0, and the record of its choices."""
    reasons = screen(part, features, settings.exclude_features)
    used = [feature for feature in features if not reasons[feature.name]]
    if not used:
        told = "; ".join(f"{feature}: {reason}" for feature, reason in reasons.items())
        raise DataQualityError(f"The fit found no feature that tells customers apart. {told}.")
    centers = share_centers(part, used)
    plain = smoothed(part, centers)
    encoder = Encoder.fit(plain, used)
    matrix = encoded(encoder, dequantised(plain, used, generator))
    far = far_rows(matrix)
    seed = int(generator.integers(2**31 - 1))
    mixture = _mixture(matrix[~far], wanted, seed)
    terms = mixture.log_terms(matrix[~far])
    share = len(part) / customers
    groups, merges = merge(
        terms,
        minimum=wanted or 1,
        maximum=limit,
        min_share=settings.min_segment_share / share,
        overlap=np.inf if len(part) < MERGE_ROWS or wanted else MERGE_OVERLAP,
        max_share=MAX_JOINED_SHARE / share,
    )
    segment_of = np.empty(mixture.n_components_, dtype=np.int64)
    for position, group in enumerate(groups):
        segment_of[list(group)] = position
    floor = _floor(mixture, terms, seed)
    record = {
        "stratum": name,
        "customers": len(part),
        "far_customers": int(far.sum()),
        "columns": {feature: reason or "used" for feature, reason in reasons.items()},
        "scan": mixture.scan_,
        "covariance_type": mixture.covariance_type_,
        "components": mixture.n_components_,
        "converged": mixture.converged_,
        "refused": mixture.collapsed(matrix),
        "merges": [asdict(step) for step in merges],
    }
    return Stratum(name, encoder, centers, mixture, segment_of, share, floor), record


def _mixture(matrix: np.ndarray, wanted: int | None, seed: int) -> SegmentMixture:
    """The mixture of the ordinary rows; with at least as many parts as segments are wanted."""
    least = wanted or 1
    mixture = SegmentMixture(
        min_components=least,
        max_components=max(least, MAX_COMPONENTS),
        min_share=MIN_COMPONENT_SHARE,
        random_state=seed,
    )
    return mixture.fit(matrix)


def _floor(mixture: SegmentMixture, terms: np.ndarray, seed: int) -> float:
    """Log density under which hardly an ordinary customer falls.

    The lower of what the model says (its own draws) and of what the rows of the fit say, so that
    a tail heavier than the model's does not turn customers into outliers.
    """
    copy = SegmentMixture.from_arrays(mixture.to_arrays(), random_state=seed)
    drawn = copy.score_samples(copy.sample(FLOOR_DRAWS)[0])
    seen = np.logaddexp.reduce(terms, axis=1)
    return float(min(np.quantile(drawn, FLOOR_SHARE), np.quantile(seen, FLOOR_SHARE)))


def _ordered(segmentation: Segmentation) -> Segmentation:
    """Positions renumbered over all strata: by falling share, then by stratum and component."""
    keys = []
    for number, stratum in enumerate(segmentation.strata):
        for position in np.unique(stratum.segment_of):
            weight = stratum.share * stratum.mixture.weights_[stratum.segment_of == position].sum()
            keys.append((-round(float(weight), 12), number, int(position)))
    rank = {(number, position): r for r, (_, number, position) in enumerate(sorted(keys))}
    strata = tuple(
        replace(
            stratum,
            segment_of=np.array([rank[number, int(p)] for p in stratum.segment_of], dtype=np.int64),
        )
        for number, stratum in enumerate(segmentation.strata)
    )
    return replace(segmentation, strata=strata)
