"""What the benchmark is run on, part by part: test weeks, splits in time, planted worlds.

* handbook: the seven test weeks (`weeks`).
* ulb: half of a subset of real card payments, split at 50, 60 and 70 % of its time; frauds are
  denser than in truth, so average precision stands also with every genuine row weighed.
* demo: planted worlds of four seeds; the last five weeks are scored, the budget is 20 a day.
* anz: has no labels; it shows what training and scoring cost.
* adbench-normals, adbench-everything: 22 classical sets in two protocols (`adbench`), whose rows
  are drawn anew for each seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from fraudwatch.evaluation import auc, average_precision, card_precision, per_kind, value_found
from fraudwatch.features import build, declared, reference
from shared import demo, synthetic
from shared.windows import DAY
from tests.quality import adbench, datasets
from tests.quality.peers import Split
from tests.quality.views import Payments
from tests.quality.weeks import STARTS, Figures, Week

GENUINE_WEIGHT = 14.44  # genuine payments in the whole set for each one here
REVIEWS = 20  # a day, in the demo
HERE = Path(__file__).parent
PARTS: Mapping[str, tuple[str, ...]] = {
    "handbook": tuple(str(np.datetime64("2018-04-01") + start) for start in STARTS),
    "ulb": ("50 %", "60 %", "70 %"),
    "demo": ("seed 0", "seed 1", "seed 2", "seed 3"),
    "anz": ("2018-10",),
    **{f"adbench-{protocol}": adbench.SETS for protocol in adbench.PROTOCOLS},
}
DRAWN = tuple(name for name in PARTS if name.startswith("adbench-"))  # another seed, other rows
FEATURES = HERE.parents[1] / "fraudwatch" / "features.py"
CODE: Mapping[str, tuple[Path, ...]] = {
    "handbook": (HERE / "weeks.py", HERE / "views.py"),
    "ulb": (HERE / "cases.py",),
    "demo": (HERE / "cases.py", FEATURES),
    "anz": (HERE / "cases.py", FEATURES),
    **dict.fromkeys(DRAWN, (HERE / "adbench.py",)),
}
AMOUNT = {"ulb": "Amount", "demo": "amount_relative"}


class Case(Protocol):
    def split(self, view: str, days: int, *, labels: bool) -> Split:
        """Rows to train on and to score; a table without windows trains on all before."""

    def figures(self, scores: np.ndarray) -> dict[str, Figures]:
        """Table name to figures; "main" is the one that is ranked by."""


@dataclass(frozen=True)
class Table:
    """Columns without missing values, the labels of the rows, and which are trained on.

    rows: the payments behind the columns, as peerwatch reads them, in order of time.
    """

    columns: pd.DataFrame
    fraud: np.ndarray
    training: np.ndarray  # (n,) bool
    judge: Callable[[np.ndarray, np.ndarray], Figures]  # frauds and scores of the test rows
    rows: pd.DataFrame | None = None

    def split(self, view: str, days: int, *, labels: bool) -> Split:
        values = self.columns.to_numpy(np.float64)
        return Split(values[self.training], self.fraud[self.training], values[~self.training])

    def column(self, name: str) -> np.ndarray:
        return self.columns.loc[~self.training, name].to_numpy(np.float64)

    def figures(self, scores: np.ndarray) -> dict[str, Figures]:
        return {"main": self.judge(self.fraud[~self.training], scores)}


@dataclass(frozen=True)
class Drawn:
    """Rows of a set as drawn for a seed; no label is seen in training."""

    drawn: adbench.Split

    def split(self, view: str, days: int, *, labels: bool) -> Split:
        unseen = np.zeros(len(self.drawn.train), dtype=np.int64)
        return Split(self.drawn.train, unseen, self.drawn.test)

    def figures(self, scores: np.ndarray) -> dict[str, Figures]:
        anomaly = self.drawn.anomaly
        return {"main": {"AUC": auc(anomaly, scores), "AP": average_precision(anomaly, scores)}}


def case(dataset: str, part: str, folder: Path, seed: int) -> Case:
    """A part of a data set; columns that take long are kept in the folder."""
    if dataset in DRAWN:
        return Drawn(adbench.split(part, dataset.removeprefix("adbench-"), seed))
    number = PARTS[dataset].index(part)
    if dataset == "handbook":
        return Week(_payments(folder), STARTS[number])
    return {"ulb": _ulb, "demo": _demo, "anz": _anz}[dataset](number)


@cache
def _payments(folder: Path) -> Payments:
    return Payments.read(folder / "columns")


@cache
def _ulb(number: int) -> Table:
    rows = datasets.frame("ulb_subset/first_half.parquet")
    time = rows["Time"].to_numpy()
    span = time.max() - time.min()
    return Table(
        rows.drop(columns=["Time", "Class"]),
        rows["Class"].to_numpy(),
        time < time.min() + (0.5 + 0.1 * number) * span,
        _weighed,
    )


def _weighed(fraud: np.ndarray, scores: np.ndarray) -> Figures:
    weight = np.where(fraud == 1, 1.0, GENUINE_WEIGHT)
    return {
        "AUC": auc(fraud, scores),
        "AP": average_precision(fraud, scores),
        "weighted AP": float(average_precision_score(fraud, scores, sample_weight=weight)),
    }


@cache
def _demo(seed: int) -> Table:
    world = synthetic.world(seed)
    rows = _clean(world.transactions)
    kind = rows["transaction_id"].map(world.truth_frauds.set_index("tx_id")["kind"]).fillna("")
    last = rows["occurred_at"].max() // DAY
    training = (rows["occurred_at"] // DAY <= last - demo.SCORED_DAYS).to_numpy()
    tested = rows[~training]
    day, customer, money = (
        (tested["occurred_at"] // DAY).to_numpy(),
        tested["customer_id"].to_numpy(),
        tested["amount"].to_numpy(),
    )
    kinds = kind[~training].to_numpy()

    def judge(fraud: np.ndarray, scores: np.ndarray) -> Figures:
        figures = {
            "AUC": auc(fraud, scores),
            "AP": average_precision(fraud, scores),
            f"CP@{REVIEWS}": card_precision(day, customer, scores, fraud, REVIEWS),
            f"value@{REVIEWS}": value_found(day, money, scores, fraud, REVIEWS),
        }
        table = per_kind(fraud, kinds, scores)
        return figures | dict(zip("AP " + table["kind"], table["average_precision"], strict=True))

    fraud = (kind != "").to_numpy(np.int64)
    return Table(_columns(rows, training), fraud, training, judge, rows)


def _clean(raw: pd.DataFrame) -> pd.DataFrame:
    """The world's payments in peerwatch's words, without the planted defects."""
    moments = pd.to_datetime(raw["booked_at"], errors="coerce", format="mixed")
    amounts = pd.to_numeric(raw["amount"], errors="coerce")
    good = moments.notna() & amounts.notna() & raw["client_id"].notna()
    good &= ~raw["tx_id"].duplicated(keep=False)
    rows = pd.DataFrame(
        {
            "transaction_id": raw["tx_id"],
            "occurred_at": moments.astype("datetime64[us]").astype("int64"),
            "customer_id": raw["client_id"].astype("Int64"),
            "counterparty_id": raw["merchant_id"],
            "amount": amounts,
            "currency": raw["currency"],
            **{f"category.{name}": raw[name] for name in ("channel", "country", "category")},
        }
    )
    return rows[good].sort_values("occurred_at", kind="stable", ignore_index=True)


def _columns(rows: pd.DataFrame, training: np.ndarray) -> pd.DataFrame:
    """peerwatch's own columns as numbers: a level is a column of its own, what is missing is 0."""
    frame = build(rows, np.arange(len(rows)), reference(rows[training]), "UTC")
    levels = [feature.name for feature in declared(rows.columns) if feature.kind == "category"]
    return pd.get_dummies(frame, columns=levels, dtype=np.float64).fillna(0.0)


@cache
def _anz(number: int) -> Table:
    raw = datasets.frame("anz/anz_transactions.parquet")
    rows = pd.DataFrame(
        {
            "occurred_at": raw["extraction"].astype("datetime64[us]").astype("int64"),
            "customer_id": raw["customer_id"],
            "counterparty_id": raw["merchant_id"],
            "amount": raw["amount"],
            "currency": raw["currency"],
            "category.description": raw["txn_description"],
        }
    ).sort_values("occurred_at", kind="stable", ignore_index=True)
    rows["transaction_id"] = np.arange(len(rows))
    first = np.datetime64(PARTS["anz"][number], "us").astype(np.int64)
    training = (rows["occurred_at"] < first).to_numpy()
    unknown = np.zeros(len(rows), dtype=np.int64)
    return Table(_columns(rows, training), unknown, training, lambda fraud, scores: {}, rows)
