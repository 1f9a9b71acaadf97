"""From a feature frame to a fitted segmentation, with a record of every choice on the way.

Where many customers bought on a single day (more than SPIKE_SHARE), frequency is a spike, the net
amount equals the basket and tenure equals recency: no Gaussian holds that together with regular
customers. The customers are then fitted as two strata, one-time and repeat, each with the
columns that mean something there; densities of the strata add up weighted by their shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from segmenter.agreement import Pairs, agreement, joined
from segmenter.columns import Columns
from segmenter.config import Settings
from segmenter.cuts import Cut
from segmenter.em import SingularFitError
from segmenter.merging import group_terms, posteriors
from segmenter.model import SegmentMixture
from segmenter.publishing import BASIS, CUT_SEGMENTS, Published, Task, part_terms, publish
from segmenter.screening import SPIKE_SHARE, Screened, far_rows, screen
from shared.encoding import Encoder, Feature
from shared.errors import DataQualityError

ALL, SINGLE, REPEAT = "all", "single", "repeat"
MIN_CUSTOMERS = 20  # fewer are looked at one by one, not grouped
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
    """The density of one part of the customers, and its segments.

    segment_of: positions of the segments, by cell of the cut, else by component of the mixture.
    """

    name: str
    columns: Columns
    mixture: SegmentMixture
    segment_of: np.ndarray
    share: float
    floor: float
    cut: Cut | None = None

    def members(self, frame: pd.DataFrame) -> np.ndarray:
        """Positions of the stratum's rows in a feature frame."""
        return np.flatnonzero(_members(frame, self.name))

    @property
    def encoder(self) -> Encoder:
        return self.columns.encoder

    def matrix(self, frame: pd.DataFrame) -> np.ndarray:
        return self.columns.matrix(frame)

    def posterior(self, matrix: np.ndarray, terms: np.ndarray) -> np.ndarray:
        """(n, own segments), by rising position; terms: of the mixture's components (n, K)."""
        if self.cut is None:
            return posteriors(group_terms(terms, self.groups()))
        cells = self.cut.posterior(matrix)
        return np.stack([cells[:, list(g)].sum(axis=1) for g in self.groups()], axis=1)

    def groups(self) -> list[tuple[int, ...]]:
        """Cells or components per segment, in the order of the segments' positions."""
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
    def columns(self) -> list[str]:
        """The features that form its segments."""
        return list(dict.fromkeys(n for stratum in self.strata for n in stratum.encoder.names))

    @property
    def n_segments(self) -> int:
        return 1 + max(int(stratum.segment_of.max()) for stratum in self.strata)

    def score(self, frame: pd.DataFrame) -> Scores:
        """Densities and posteriors of the customers of a feature frame."""
        n = len(frame)
        log_density, floor = np.full(n, np.nan), np.full(n, np.nan)
        posterior = np.zeros((n, self.n_segments))
        for stratum in self.strata:
            rows = stratum.members(frame)
            if len(rows) == 0:
                continue
            matrix = stratum.matrix(frame.iloc[rows])
            log_density[rows] = stratum.mixture.score_samples(matrix) + np.log(stratum.share)
            own = stratum.posterior(matrix, part_terms(stratum.mixture, matrix))
            posterior[np.ix_(rows, np.unique(stratum.segment_of))] = own
            floor[rows] = stratum.floor + np.log(stratum.share)
        return Scores(frame["customer_id"].reset_index(drop=True), log_density, posterior, floor)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All numbers, by "stratum.name"."""
        return {
            f"{stratum.name}.{key}": value
            for stratum in self.strata
            for key, value in {
                **stratum.mixture.to_arrays(),
                **({} if stratum.cut is None else stratum.cut.to_arrays()),
                "segment_of": stratum.segment_of,
                "share_and_floor": np.array([stratum.share, stratum.floor]),
            }.items()
        }

    def header(self) -> dict[str, Any]:
        """What is not an array, as JSON."""
        return {
            "levels": {name: list(levels) for name, levels in self.levels.items()},
            "strata": [
                {"name": stratum.name, **stratum.columns.to_json()} for stratum in self.strata
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
            frame = stratum.columns.inverse(matrix)
            if stratum.name == SINGLE:
                frame = frame.assign(purchase_days=1.0)
            if stratum.cut is not None:
                labels = stratum.cut.labels(matrix)
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
        Columns.from_json(document),
        SegmentMixture.from_arrays(own),
        own["segment_of"],
        share,
        floor,
        Cut.from_arrays(own),
    )


def train(
    frame: pd.DataFrame,
    features: Sequence[Feature],
    settings: Settings,
    generator: np.random.Generator,
    levels: Mapping[str, tuple[str, ...]] | None = None,
    start: Segmentation | None = None,
) -> tuple[Segmentation, dict[str, Any]]:
    """Fit a segmentation to a feature frame; customers without a purchase are left out.

    start: a segmentation to be warmed up: its strata, columns and grouping stay, position by
    position, and its mixtures are where the fit begins; nothing is scanned or merged.

    Segments are positions 0.. by falling share of the customers. The diagnostics say per stratum
    which columns were used and why the others were not, what was scanned, refused and merged.
    """
    bought = frame[frame["purchase_days"] > 0]
    if len(bought) < MIN_CUSTOMERS:
        raise DataQualityError(
            f"The fit found {len(bought)} customers with a purchase within "
            f"{settings.lookback_days} days; expected at least {MIN_CUSTOMERS}."
        )
    if start is not None:
        return _warmed(start, frame, bought, features, generator)
    strata, records, pairs = [], [], []
    for name, wanted, limit in _plan(bought, settings):
        part = bought[_members(bought, name)]
        stratum, record, halves = _fit(
            part, len(bought), features, settings, generator, name, wanted, limit
        )
        strata.append(stratum)
        records.append(record)
        pairs.append(halves)
    segmentation = _ordered(Segmentation(tuple(strata), levels or {}))
    told = _diagnostics(segmentation, frame, bought, records)
    return segmentation, told | {"agreement": agreement(joined(pairs))}


def _diagnostics(
    segmentation: Segmentation, frame: pd.DataFrame, bought: pd.DataFrame, records: list[Any]
) -> dict[str, Any]:
    return {
        "customers": len(frame),
        "without_purchase": len(frame) - len(bought),
        "segments": segmentation.n_segments,
        "strata": records,
    }


def _warmed(
    start: Segmentation,
    frame: pd.DataFrame,
    bought: pd.DataFrame,
    features: Sequence[Feature],
    generator: np.random.Generator,
) -> tuple[Segmentation, dict[str, Any]]:
    """The segmentation fitted on from where it is, stratum by stratum."""
    strata, records = [], []
    for stratum in start.strata:
        part = bought.iloc[stratum.members(bought)]
        if len(part) < MIN_CUSTOMERS:
            raise DataQualityError(
                f"The refit found {len(part)} customers of the stratum {stratum.name}; expected "
                f"at least {MIN_CUSTOMERS}."
            )
        rows = _Rows.drawn(part, stratum.columns, generator)
        mixture = rows.fitted(start=stratum.mixture)
        share, floor = len(part) / len(bought), _floor(mixture, rows)
        cut = stratum.cut and stratum.cut.moved(rows.plain)
        strata.append(replace(stratum, mixture=mixture, share=share, floor=floor, cut=cut))
        used = {f.name: "used" if f.name in rows.columns.names else "as before" for f in features}
        records.append(
            {**_record(stratum.name, rows, mixture), "columns": used, "scan": [], "merges": []}
        )
    segmentation = Segmentation(tuple(strata), start.levels)
    return segmentation, _diagnostics(segmentation, frame, bought, records)


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
    if total is not None:  # what somebody bought once tells little: one segment, as without n
        return [(SINGLE, 1, 1), (REPEAT, total - 1, total - 1)]
    few = min(max(round(most * single / len(bought)), 1), most - 1)
    return [(SINGLE, None, few), (REPEAT, None, most - few)]


def _fit(
    part: pd.DataFrame,
    customers: int,
    features: Sequence[Feature],
    settings: Settings,
    generator: np.random.Generator,
    name: str,
    wanted: int | None,
    limit: int,
) -> tuple[Stratum, dict[str, Any], Pairs]:
    """One stratum, its segments numbered from 0, the record of its choices, and its halves."""
    basis_first = sorted(features, key=lambda feature: feature.name not in BASIS)
    found = screen(part, basis_first, settings.exclude_features)
    columns = _columns(part, basis_first, found)
    rows = _Rows.drawn(part, columns, generator)
    mixture = rows.density(wanted or 1)
    share = len(part) / customers
    task = Task(
        wanted=wanted,
        limit=limit,
        least=max(settings.min_segment_share / share, MIN_CUSTOMERS / len(part)),
        cells={ALL: CUT_SEGMENTS, REPEAT: CUT_SEGMENTS - 1, SINGLE: 1}[name],
        share=share,
        columns=_cut_columns(columns),
        seed=rows.seed,
    )
    published = publish(mixture, rows.ordinary, rows.plain, task)
    stratum = Stratum(
        name, columns, mixture, _positions(published), share, _floor(mixture, rows), published.cut
    )
    record = {
        **_record(name, rows, mixture),
        "columns": {f.name: found.reasons[f.name] or "used" for f in features},
        "scan": mixture.scan_,
        "merges": [asdict(step) for step in published.merges],
        "published": published.record(),
    }
    return stratum, record, published.pairs


@dataclass(frozen=True)
class _Rows:
    """The customers of one stratum as its density sees them.

    matrix: (n, d), counts spread. far: (n,) those that are left out of the fit.
    """

    part: pd.DataFrame
    columns: Columns
    matrix: np.ndarray
    far: np.ndarray
    seed: int

    @classmethod
    def drawn(cls, part: pd.DataFrame, columns: Columns, generator: np.random.Generator) -> Self:
        matrix = columns.matrix(part, generator)
        far = far_rows(matrix[:, columns.gaussian])
        return cls(part, columns, matrix, far, int(generator.integers(2**31 - 1)))

    @property
    def ordinary(self) -> np.ndarray:
        """The rows of the fit."""
        return self.matrix[~self.far]

    @property
    def plain(self) -> np.ndarray:
        """The same rows, with counts as they are."""
        return self.columns.matrix(self.part)[~self.far]

    def density(self, least: int) -> SegmentMixture:
        """The mixture of least BIC, of at least as many parts; of fewer where rows are too few."""
        try:
            return self.fitted(
                min_components=least,
                max_components=max(least, MAX_COMPONENTS),
                criterion="bic",  # what overlaps is one segment, or part of a cut
            )
        except SingularFitError as error:
            if least > 1:
                return self.density(1)  # a cut makes the segments
            raise DataQualityError(
                f"The fit found no density of {len(self.part)} customers: {error}. Leave features "
                "out: exclude_features in [segmenter]."
            ) from error

    def fitted(self, **asked: Any) -> SegmentMixture:
        """The mixture of the ordinary rows."""
        mixture = SegmentMixture(
            min_share=MIN_COMPONENT_SHARE,
            random_state=self.seed,
            **self.columns.declaration,
            **asked,
        )
        return mixture.fit(self.ordinary)


def _record(name: str, rows: _Rows, mixture: SegmentMixture) -> dict[str, Any]:
    """What is told of any fit of a stratum."""
    return {
        "stratum": name,
        "customers": len(rows.part),
        "far_customers": int(rows.far.sum()),
        "kinds": dict(rows.columns.kinds),
        "covariance_type": mixture.covariance_type_,
        "tails": mixture.tails_,
        "components": mixture.n_components_,
        "converged": mixture.converged_,
        "refused": mixture.collapsed(rows.matrix),
    }


def _columns(part: pd.DataFrame, features: Sequence[Feature], found: Screened) -> Columns:
    """The columns of the features that the screen let through."""
    used = [feature for feature in features if not found.reasons[feature.name]]
    if not used:
        told = "; ".join(f"{feature}: {reason}" for feature, reason in found.reasons.items())
        raise DataQualityError(f"The fit found no feature that tells customers apart. {told}.")
    floors = {f.name: found.floors[f.name] for f in used if f.name in found.floors}
    return Columns.fit(part, used, found.kinds, floors)


def _positions(published: Published) -> np.ndarray:
    """The position of each cell, or else of each component."""
    if published.cut is not None:
        return np.arange(published.n_segments)
    segment_of = np.empty(sum(len(group) for group in published.groups), dtype=np.int64)
    for position, group in enumerate(published.groups):
        segment_of[list(group)] = position
    return segment_of


def _cut_columns(columns: Columns) -> list[int]:
    """The basis, or all continuous columns where not two of it are used."""
    basis = [i for i in columns.gaussian if columns.names[i] in BASIS]
    return basis if len(basis) > 1 else columns.gaussian


def _floor(mixture: SegmentMixture, rows: _Rows) -> float:
    """Log density under which hardly an ordinary customer falls.

    The lower of what the model says (its own draws) and of what the rows of the fit say, so that
    a tail heavier than the model's does not turn customers into outliers.
    """
    copy = SegmentMixture.from_arrays(mixture.to_arrays(), random_state=rows.seed)
    drawn = copy.score_samples(copy.sample(FLOOR_DRAWS)[0])
    seen = np.logaddexp.reduce(mixture.log_terms(rows.ordinary), axis=1)
    return float(min(np.quantile(drawn, FLOOR_SHARE), np.quantile(seen, FLOOR_SHARE)))


def _ordered(segmentation: Segmentation) -> Segmentation:
    """Positions renumbered over all strata: by falling share, then by stratum and component."""
    keys = []
    for number, stratum in enumerate(segmentation.strata):
        for position in np.unique(stratum.segment_of):
            sizes = stratum.mixture.weights_ if stratum.cut is None else stratum.cut.shares
            weight = stratum.share * sizes[stratum.segment_of == position].sum()
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
