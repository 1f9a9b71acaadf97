"""The handbook's own protocol of its test weeks, where it goes beyond what `evaluate` prints."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


def known_compromised(
    day: ArrayLike, customer: ArrayLike, fraud: ArrayLike, *, since: int, delay_days: int
) -> np.ndarray:
    """(n,) whether a row's customer was known as defrauded on the row's day.

    Known are frauds from day `since` on that are more than `delay_days` whole days old. With the
    first training day and a delay of 7 this is the handbook's filter of its test days. `day` holds
    whole numbers.
    """
    rows = pd.DataFrame({"day": np.asarray(day, dtype=np.int64), "customer": np.asarray(customer)})
    frauds = rows[np.asarray(fraud, dtype=bool) & (rows["day"] >= since).to_numpy()]
    first = rows["customer"].map(frauds.groupby("customer")["day"].min())
    return (first + delay_days < rows["day"]).to_numpy(dtype=bool)
