"""A fitted detector: what is typical, the encoding, the density, the evidence and its calibration.

It has no twin: the segmenter's counterpart is its `Segmentation`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from fraudwatch.decisions import (
    Aspect,
    Calibration,
    Footing,
    SurpriseScale,
    mixed,
    statistic_of,
)
from fraudwatch.evidence import Evidence
from fraudwatch.features import AMOUNTS, TIMES, Reference
from fraudwatch.model import TransactionVAE, train
from shared.encoding import CATEGORY, Column, Encoder, Feature
from shared.errors import ConfigurationError, DataQualityError

LATENT = "latent"  # the part of the surprise that is no single column's
MOST_TRAINING_ROWS = 200_000  # the steps below see each about ten times
BETA = 1.0  # the bound itself: of columns of several kinds a smaller weight ranks worse
BATCH_ROWS, PASSES, STEPS = 512, 40, (250, 2500)  # where more steps found no more
LEAST_ROWS = 50  # of training and of calibration; fewer say nothing about a tail
DENSITY, ASPECT = "density.", "aspect."
# Of the aspect for amounts that the latent does not explain: few, but they show nowhere else.
# Their tail is no exponential: a genuine one may lie far out, and counts as one in a million.
MISFIT_WEIGHT, MISFIT_MOST = 0.02, float(np.log(1e6))


@dataclass(frozen=True)
class Scored:
    """What the density says of n rows. surprise: (n, focal + 1), nats, the last part `LATENT`."""

    log_likelihood: np.ndarray
    surprise: np.ndarray

    def part(self, rows: np.ndarray) -> Scored:
        """Some of the rows, by position."""
        return Scored(self.log_likelihood[rows], self.surprise[rows])


@dataclass(frozen=True)
class Detector:
    """Frames of features → log likelihoods, in nats of the features' own units."""

    focal: tuple[Feature, ...]
    context: tuple[Feature, ...]
    reference: Reference
    encoder: Encoder
    density: TransactionVAE
    baseline: Mapping[str, float]  # calibration median of each part of the surprise
    aspects: tuple[Aspect, ...]
    scale: SurpriseScale
    evidence: Evidence
    calibration: Calibration
    footing: Footing | None = None  # of a promised rate; None before the evidence is calibrated
    segmenter: str | None = None  # the version whose segments are context; None where none are

    @property
    def names(self) -> list[str]:
        """The parts of a surprise, in order."""
        return [*(feature.name for feature in self.focal), LATENT]

    @cached_property
    def _log_scale(self) -> np.ndarray:
        """(focal,) log of the encoder's scales: the Jacobian from encoded to real units."""
        columns = self.encoder.columns[: len(self.focal)]
        return np.array([0.0 if c.kind == CATEGORY else np.log(c.scale) for c in columns])

    @property
    def learnt(self) -> bool:
        """Whether labels taught the evidence, so that its probabilities are more than assumed."""
        return self.evidence != Evidence.assumed([key.kind for key in self.evidence.keys])

    @cached_property
    def density_id(self) -> str:
        """What the density is, whatever it is calibrated by."""
        digest = hashlib.sha256(json.dumps(self.encoder.to_json(), sort_keys=True).encode())
        for name, value in sorted(self.density.to_arrays().items()):
            digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:16]

    def score(self, frame: pd.DataFrame) -> Scored:
        """The log likelihood of each row and its parts; a missing cell has no part in it."""
        matrix = self.encoder.transform(frame)
        parts = self.density.parts(matrix)
        there = ~np.isnan(matrix[:, : len(self.focal)])
        jacobian = np.where(there, self._log_scale, 0.0)
        surprise = np.column_stack([parts.surprise + jacobian, parts.latent])
        return Scored(parts.log_likelihood - jacobian.sum(1), surprise)

    def surprise(self, scored: Scored) -> np.ndarray:
        """(n,) nats, calibrated: minus the log share of normal rows as surprising."""
        return self.scale.nats(mixed(scored.surprise, self.aspects))

    def expected(self, frame: pd.DataFrame, quantiles: Sequence[float]) -> np.ndarray:
        """(n, focal, quantiles) of each numeric column given the context, in real units."""
        context = self.encoder.transform(frame)[:, len(self.focal) :]
        encoded = self.density.expected(context, quantiles)
        columns = self.encoder.columns
        for at, feature in enumerate(self.focal):
            if feature.kind != CATEGORY:
                flat = columns[at].decode(encoded[:, at].ravel()).to_numpy()
                encoded[:, at] = flat.reshape(encoded[:, at].shape)
        return encoded

    def levels(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Per category feature, the probability of each level given the context."""
        context = self.encoder.transform(frame)[:, len(self.focal) :]
        tables = self.density.level_probabilities(context)
        return {
            self.focal[at].name: pd.DataFrame(table, columns=list(self.encoder.columns[at].levels))
            for at, table in tables.items()
        }

    def sample(self, size: int, seed: int) -> pd.DataFrame:
        """Synthetic transactions: focal features drawn from the density.

        Context columns are standardised, so each is drawn from a standard normal: histories that
        are like the training rows one by one, and nobody's.
        """
        contexts = np.random.default_rng(seed).standard_normal((size, len(self.context)))
        drawn = self.density.sample(1, context=contexts, random_state=seed)
        columns = self.encoder.columns[: len(self.focal)]
        return pd.DataFrame({c.name: c.decode(drawn[:, at]) for at, c in enumerate(columns)})

    # --- at rest ------------------------------------------------------------------------------

    def header(self) -> dict[str, Any]:
        return {
            "focal": [asdict(feature) for feature in self.focal],
            "context": [asdict(feature) for feature in self.context],
            "reference": self.reference.to_json(),
            "density_id": self.density_id,
            "segmenter": self.segmenter,
            "encoder": self.encoder.to_json(),
            "baseline": dict(self.baseline),
            "aspects": [
                {
                    "name": aspect.name,
                    "at": list(aspect.at),
                    "weight": aspect.weight,
                    "most": aspect.most,
                }
                for aspect in self.aspects
            ],
            "evidence": self.evidence.to_json(),
            "calibration": self.calibration.header(),
            "footing": None if self.footing is None else self.footing.to_json(),
        }

    def to_arrays(self) -> dict[str, np.ndarray]:
        density = {f"{DENSITY}{name}": value for name, value in self.density.to_arrays().items()}
        return {
            **density,
            **{f"{ASPECT}{aspect.name}": aspect.scale.values for aspect in self.aspects},
            "scale": self.scale.values,
            "calibration.scores": self.calibration.scores,
            "calibration.frauds": self.calibration.frauds,
        }

    @staticmethod
    def readable(header: Mapping[str, Any]) -> bool:
        """Whether this release wrote the model; older ones lack what judges a row now."""
        return "aspects" in header and all("most" in aspect for aspect in header["aspects"])

    @classmethod
    def from_arrays(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Detector:
        """The detector as it was stored; the same scores to the last bit."""
        if not cls.readable(header):
            raise ConfigurationError(
                "The model was fitted by an older release, whose judgement this one cannot "
                "repeat. Fit anew: peerwatch fraudwatch fit"
            )
        density = {
            name.removeprefix(DENSITY): value
            for name, value in arrays.items()
            if name.startswith(DENSITY)
        }
        return cls(
            tuple(Feature(**item) for item in header["focal"]),
            tuple(Feature(**item) for item in header["context"]),
            Reference.from_json(header["reference"]),
            Encoder.from_json(header["encoder"]),
            TransactionVAE.from_arrays(density),
            header["baseline"],
            tuple(
                Aspect(
                    item["name"],
                    tuple(item["at"]),
                    item["weight"],
                    SurpriseScale(arrays[f"{ASPECT}{item['name']}"]),
                    item["most"],
                )
                for item in header["aspects"]
            ),
            SurpriseScale(arrays["scale"]),
            Evidence.from_json(header["evidence"]),
            Calibration(
                arrays["calibration.scores"], arrays["calibration.frauds"], **header["calibration"]
            ),
            None if header["footing"] is None else Footing.from_json(header["footing"]),
            header["segmenter"],
        )


def fit(
    frame: pd.DataFrame,
    held_out: pd.DataFrame,
    features: Sequence[Feature],
    reference: Reference,
    window: tuple[int, int, int],
    generator: np.random.Generator,
) -> tuple[Detector, dict[str, Any]]:
    """Trains the density on `frame` and calibrates it on `held_out`; both hold `features`.

    window: since and until of the calibration rows (microseconds), and the days in it. A focal
    feature that says nothing (one value) is left out, with the reason in the diagnostics. The
    detector has no evidence yet: its scores are the calibrated surprises alone.
    """
    _require_enough(frame, held_out)
    dropped = {f.name: _useless(frame[f.name]) for f in features if f.role != "evidence"}
    kept = [f for f in features if f.role != "evidence" and dropped[f.name] is None]
    focal = tuple(f for f in kept if f.role == "focal")
    context = tuple(f for f in kept if f.role == "context")
    if not focal:
        raise DataQualityError(
            "fraudwatch fit found no column that varies: every amount, category and number mapped "
            "has one value only. Map a column that differs between transactions."
        )
    encoder = _encoder(frame, focal, context)
    matrix = encoder.transform(_sampled(frame, generator))
    kinds = _kinds(encoder, len(focal))
    settings = {"beta": BETA, "batch_size": BATCH_ROWS, "steps": _steps(len(matrix))}
    density, diagnostics = train(matrix, kinds, len(context), settings, generator)
    nothing = SurpriseScale(np.zeros(1))
    bare = Calibration(np.zeros(1), np.empty(0), *window)
    detector = Detector(
        focal, context, reference, encoder, density, {}, (), nothing, Evidence(()), bare
    )
    left_out = {name: reason for name, reason in dropped.items() if reason is not None}
    return _scaled(detector, held_out), {**diagnostics, "left_out": left_out}


def _scaled(detector: Detector, held_out: pd.DataFrame) -> Detector:
    """The detector with what its surprises look like on rows that it never saw."""
    parts = detector.score(held_out).surprise
    medians = np.median(parts, axis=0)
    baseline = {name: float(value) for name, value in zip(detector.names, medians, strict=True)}
    aspects = _aspects(detector.focal, parts)
    statistic = mixed(parts, aspects)
    scale = SurpriseScale.of(statistic)
    calibration = replace(detector.calibration, scores=np.sort(scale.nats(statistic)))
    return replace(
        detector, baseline=baseline, aspects=aspects, scale=scale, calibration=calibration
    )


def _aspects(focal: Sequence[Feature], parts: np.ndarray) -> tuple[Aspect, ...]:
    """The amount, the time, and what else there is, scaled by parts of calibration rows.

    Each has the part of no column too, and the same weight. Without it the amount is looked at
    once more, as the misfit: what the latent leaves unexplained of it.
    """
    named, latent = {"amount": AMOUNTS, "time": TIMES}, len(focal)
    members: dict[str, list[int]] = {}
    for at, feature in enumerate(focal):
        name = next((n for n, names in named.items() if feature.name in names), "other")
        members.setdefault(name, []).append(at)

    def aspect(name: str, at: list[int], weight: float, most: float | None = None) -> Aspect:
        return Aspect(name, tuple(at), weight, SurpriseScale.of(statistic_of(parts, at)), most)

    amounts = members.get("amount")
    weight = (1 - MISFIT_WEIGHT if amounts else 1.0) / len(members)
    aspects = [aspect(name, [*at, latent], weight) for name, at in members.items()]
    if amounts:
        aspects.append(aspect("misfit", amounts, MISFIT_WEIGHT, MISFIT_MOST))
    return tuple(aspects)


def _require_enough(frame: pd.DataFrame, held_out: pd.DataFrame) -> None:
    if len(frame) < LEAST_ROWS or len(held_out) < LEAST_ROWS:
        raise DataQualityError(
            f"fraudwatch fit found {len(frame)} valid transactions to train on and "
            f"{len(held_out)} to calibrate on; it needs at least {LEAST_ROWS} of each. Train on "
            "a longer window (--from, --until, [fraudwatch] training_days) or shorten "
            "calibration_days."
        )


def _useless(values: pd.Series) -> str | None:
    """Why a column says nothing; None where it varies."""
    there = values[values != ""] if values.dtype.kind not in "fiu" else values.dropna()
    if there.empty:
        return "has no values"
    return "has one value only" if there.nunique() == 1 else None


def _encoder(frame: pd.DataFrame, focal: Sequence[Feature], context: Sequence[Feature]) -> Encoder:
    """Fitted on the training rows; a focal count stays the count that its likelihood is about."""
    fitted = Encoder.fit(frame, [*focal, *context])
    columns = [
        _plain(column) if column.kind == "count" and at < len(focal) else column
        for at, column in enumerate(fitted.columns)
    ]
    return Encoder(tuple(columns))


def _plain(column: Column) -> Column:
    return replace(column, transform="none", center=0.0, scale=1.0, clip=1e6)


def _kinds(encoder: Encoder, focal: int) -> list[str]:
    """The likelihood of each focal column; of a context column it only says how it is seen."""
    names = {"continuous": "gaussian", "share": "gaussian", "count": "count"}
    return [
        f"categorical:{len(column.levels)}"
        if column.kind == CATEGORY
        else (names[column.kind] if at < focal else "gaussian")
        for at, column in enumerate(encoder.columns)
    ]


def _steps(rows: int) -> int:
    """Steps of training: so many passes over the rows, within bounds."""
    return int(np.clip(PASSES * rows // BATCH_ROWS, *STEPS))


def _sampled(frame: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    if len(frame) <= MOST_TRAINING_ROWS:
        return frame
    return frame.iloc[np.sort(generator.choice(len(frame), MOST_TRAINING_ROWS, replace=False))]
