"""The model that assigns: as it is stored, as it is read back, and who is champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from segmenter import decisions
from segmenter.population import Population
from shared import frames, registry
from shared.errors import ConfigurationError, OvertakenError
from shared.runs import Run

if TYPE_CHECKING:
    from segmenter.training import Scores, Segmentation

KIND = "segmenter"
IDS = "segment_ids"  # among a model's metrics: the ids of its segments, by position


@dataclass(frozen=True)
class Model:
    """A fitted segmentation with the ids of its segments, `ids[position]`.

    lookback: microseconds of history that its features see.
    """

    name: str
    segmentation: Segmentation
    ids: tuple[int, ...]
    lookback: int
    stored: registry.Stored

    @property
    def question(self) -> Any:
        """What its fit was asked, see `refitting.Task`."""
        return self.stored.header["question"]

    @property
    def base(self) -> str | None:
        """The model that its fit began from; None where it began from nothing."""
        name: str | None = self.stored.header["base"]
        return name

    @property
    def footing(self) -> Mapping[str, Any]:
        """How the customers of its fit are spread, as `drift.footing` makes it."""
        return dict(self.stored.header["footing"])

    @property
    def columns(self) -> list[str]:
        """The features that form its segments."""
        return self.segmentation.columns

    def frame(self, population: Population, as_of: int) -> pd.DataFrame:
        """The features of the population as this model sees them."""
        return population.frame(as_of - self.lookback, as_of, self.segmentation.levels)

    def lacks(self, frame: pd.DataFrame) -> list[str]:
        """Features of the model that the mapping no longer gives."""
        return [name for name in self.columns if name not in frame]


def read_back(stored: registry.Stored) -> Model:
    """The model whose header, arrays and ids these are."""
    from segmenter.training import Segmentation

    header = dict(stored.header)
    segmentation = Segmentation.from_arrays(dict(stored.arrays), header)
    ids = tuple(int(i) for i in stored.metrics[IDS])
    return Model(stored.model_version_id, segmentation, ids, int(header["lookback"]), stored)


def base_of(run: Run, champion: Model | None, until: datetime) -> Model | None:
    """The model that a fit up to `until` begins from: the champion, else the last of those that
    it began from itself that knows nothing of what the fit is to learn. The same fit twice
    therefore begins where it began, and is one model."""
    base = champion
    with run.results.transaction() as connection:
        while base is not None and base.stored.trained_to >= until:
            name = base.base
            stored = None if name is None else registry.load(connection, run.tables, name)
            base = None if stored is None else read_back(stored)
    return base


def champion_of(run: Run) -> Model | None:
    with run.results.transaction() as connection:
        stored = registry.champion(connection, run.tables, KIND)
    return None if stored is None else read_back(stored)


def require_champion(run: Run, as_of: int) -> Model:
    champion = champion_of(run)
    if champion is None:
        raise ConfigurationError(
            f"{run.command} found no champion as of {frames.moment(as_of):%Y-%m-%d}. "
            "Fit one first: peerwatch segmenter fit"
        )
    return champion


def require_same_champion(connection: Any, run: Run, name: str | None) -> None:
    """A promotion in the middle of a run ends it: the next run goes on with the new champion."""
    now = registry.champion_id(connection, run.tables, KIND)
    if now != name:
        raise OvertakenError(
            f"{run.command} was overtaken: {now} became champion. Nothing was written; run it "
            "again."
        )


def require_columns(model: Model, frame: pd.DataFrame) -> None:
    """A mapping that no longer gives what the model was fitted on cannot be scored."""
    lacking = model.lacks(frame)
    if lacking:
        raise ConfigurationError(
            f"The champion {model.name} needs the features {', '.join(lacking)}, which the mapping "
            "no longer gives. Map their columns again, or fit and promote another: peerwatch "
            "segmenter fit; peerwatch models promote ID --by NAME"
        )


def assigned(
    segmentation: Segmentation,
    ids: Sequence[int],
    frame: pd.DataFrame,
    seen_before: pd.Series,
    current: pd.Series | None = None,
) -> tuple[pd.DataFrame, Scores]:
    """(one row per customer with state and segment_id, the scores behind it); the rows of the
    frame come first, in their order. current: see `decisions.decide`."""
    scores = segmentation.score(frame)
    return decisions.decide(scores, ids, seen_before, current), scores
