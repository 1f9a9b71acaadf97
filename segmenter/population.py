"""The customers as of a moment: their rows, read in slices, and who was ever seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from segmenter import features
from shared import accounts, frames, history
from shared.accounts import Inspection
from shared.errors import ConfigurationError
from shared.runs import Run
from shared.source import Batch

COLUMNS = ("occurred_at", "customer_id", "order_id", "amount", "currency")


@dataclass(frozen=True)
class Population:
    """Rows of customers in a window, and what is known beside them.

    people: the rows of the customers' own table, of all times where it keeps its history.
    earlier: customers with a row before the window. passed: ids of rows that are valid now but
    were refused before. unnamed: rows without a customer; they are counted, not segmented.
    """

    rows: pd.DataFrame
    people: pd.DataFrame | None
    earlier: pd.Series
    inspection: Inspection
    passed: pd.Series
    unnamed: int
    timezone: str

    def within(self, since: int, as_of: int) -> pd.DataFrame:
        """The rows with since <= occurred_at < as_of."""
        moments = self.rows.occurred_at.to_numpy()
        return self.rows[(moments >= since) & (moments < as_of)]

    def frame(
        self, since: int, as_of: int, levels: Mapping[str, Sequence[str]] | None = None
    ) -> pd.DataFrame:
        """The feature frame as of the moment, seen through the window that begins at `since`."""
        rows = self.within(since, as_of)
        return features.build(rows, as_of, self.timezone, self.customers(as_of), levels)

    def customers(self, as_of: int) -> pd.DataFrame | None:
        """The mapped columns of each customer as they were at the moment; as they are now where
        the customers' table keeps no history."""
        return None if self.people is None else history.valid_at(self.people, as_of)

    def seen_before(self, as_of: int) -> pd.Series:
        """The customers with any transaction before the moment, each once."""
        here = self.rows.customer_id[self.rows.occurred_at.to_numpy() < as_of]
        return pd.concat([self.earlier, here]).drop_duplicates()


def require_customer(run: Run) -> None:
    """Without a customer there is nobody to group."""
    if run.source.mapping.customer is None:
        raise ConfigurationError(
            f"{run.command} groups customers, but no column of {run.source.mapping.table} is "
            f"mapped as customer. Name it in {run.config.path}: [source.transactions] customer."
        )


def read(run: Run, since: int, as_of: int) -> Population:
    """Reads the window once, keeping of each slice what the features need."""
    require_customer(run)
    clock = frames.micros(run.clock)
    with run.results.transaction() as connection:
        refused_before = accounts.open_refusals(connection, run)
    kept: list[pd.DataFrame] = []
    passed: list[pd.Series] = []
    unnamed = 0

    def keep(batch: Batch) -> None:
        nonlocal unnamed
        named = batch.rows.customer_id.notna()
        unnamed += int((~named).sum())
        kept.append(_needed(batch.rows[named]))
        if refused_before:
            ids = batch.rows.transaction_id
            passed.append(ids[ids.astype("str").isin(refused_before)])
        run.progress(batch.rows_read)

    inspection = accounts.inspect(run, since, as_of, keep)
    if not kept:
        keep(run.source.read(since, since, clock))
    return Population(
        rows=pd.concat(kept, ignore_index=True),
        people=run.source.customers(),
        earlier=run.source.customers_before(since, clock),
        inspection=inspection,
        passed=pd.concat(passed) if passed else pd.Series(dtype="object"),
        unnamed=unnamed,
        timezone=run.source.settings.timezone,
    )


def quarantined(connection: Any, run: Run, people: Population, window: tuple[int, int]) -> int:
    """Brings the quarantine to what was found in the window that was read; how many rows are new.

    window: microseconds.
    """
    inspection = people.inspection
    refused = frames.gather([inspection.refused, inspection.undated])
    refused = accounts.less_published(connection, run, refused)
    return accounts.quarantine(connection, run, refused, people.passed, window, undated=True)


def _needed(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of the features; those that are not mapped are missing throughout."""
    absent = {"order_id": pd.NA, "amount": np.nan, "currency": ""}
    lacking = {name: value for name, value in absent.items() if name not in rows}
    categories = [name for name in rows.columns if name.startswith("category.")]
    return rows.assign(**lacking)[[*COLUMNS, *categories]]
