"""What each part of `SegmentMixture` does: the estimator as it is, and without one part each.

The table says what a part is worth in agreement with the true groups, and what it costs. Some make
no difference on these sets: shapes, prior and starts by k-means stay for what is asked of the
estimator elsewhere (mclust's families, no collapse, many rows).

Run: python -m pytest tests/quality/test_mixture_parts.py -s
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest

from segmenter import model, selection
from segmenter.families import FAMILIES
from segmenter.merging import group_terms, merge
from segmenter.model import SegmentMixture
from tests.quality import clustering, commands, datasets
from tests.quality.clustering import Grouped

SEEDS = range(2)
LARGEST = 12  # groups that are looked for
LEVEL = 0.02  # of the mean adjusted Rand index, below which two variants are level


@dataclass(frozen=True)
class Variant:
    """The estimator's own settings, what stands for a name of a module, and whether parts that
    overlap are joined in its answer."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    patched: Mapping[tuple[Any, str], Any] = field(default_factory=dict)
    joined: bool = False


WHOLE = "as it is"
VARIANTS: Mapping[str, Variant] = {
    WHOLE: Variant(),
    "Gaussian tails alone": Variant({"tails": "gaussian"}),
    "t tails alone": Variant({"tails": "t"}),
    "by BIC": Variant({"criterion": "bic"}),
    "by ICL": Variant({"criterion": "icl"}),
    "scikit-learn's four families": Variant(
        patched={(model, "FAMILIES"): ("VII", "VVI", "EEE", "VVV")}
    ),
    "without EVE and VVE": Variant(
        patched={(model, "FAMILIES"): tuple(f for f in FAMILIES if f not in ("EVE", "VVE"))}
    ),
    "without the prior": Variant(patched={(selection, "PRIOR_STRENGTH"): 1e-9}),
    "starts by k-means alone": Variant(
        {"n_init": 5},
        {(selection, "fcluster"): lambda tree, *_, **__: np.ones(len(tree) + 1, dtype=int)},
    ),
    "starts by Ward alone": Variant({"n_init": 0}),
    "with parts joined": Variant(joined=True),
}


def sets(seed: int) -> Iterator[tuple[str, str, Grouped]]:
    """Kind, name and rows of every set; those that are read are the same with any seed."""
    for kind, names in (("classics", clustering.CLASSICS), ("untouched", clustering.UNTOUCHED)):
        for name in names:
            made = clustering.classic(name)
            if len(made.rows) < 1_000:
                yield kind, name, made
    for kind in clustering.KINDS:
        yield "five segments", kind, clustering.five_segments(kind, 2_000, seed)


def answered(variant: Variant, rows: np.ndarray, seed: int) -> np.ndarray:
    """(n,) the groups that a variant finds."""
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), value in variant.patched.items():
            patch.setattr(module, name, value)
        fitted = SegmentMixture(max_components=LARGEST, random_state=seed, **variant.settings)
        terms = fitted.fit(rows).log_terms(rows)
    if variant.joined:
        terms = group_terms(terms, merge(terms)[0])
    return np.asarray(terms.argmax(axis=1))


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    """Adjusted Rand index and CPU seconds by variant, kind of set, set and seed."""
    lines = []
    try:
        for seed in SEEDS:
            for kind, name, made in sets(seed):
                for variant, asked in VARIANTS.items():
                    begun = time.process_time()
                    labels = answered(asked, made.rows, seed)
                    cpu = time.process_time() - begun
                    figures = clustering.figures(made.truth, labels)
                    lines.append((variant, kind, name, seed, figures["ARI"], cpu))
    except datasets.DataAbsent as absent:
        pytest.skip(str(absent))
    columns = ["variant", "kind", "set", "seed", "ARI", "CPU s"]
    table = pd.DataFrame(lines, columns=columns)
    means = table.groupby(["variant", "kind"], sort=False)["ARI"].mean().unstack()
    shown = means.assign(mean=means.mean(axis=1), cpu=table.groupby("variant")["CPU s"].sum())
    print(commands.markdown(shown.round(3).reset_index().to_dict("records"), "Without one part"))
    return table


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != WHOLE])
def test_no_variant_is_better_than_the_whole(found: pd.DataFrame, variant: str) -> None:
    kinds = found.groupby(["variant", "kind"])["ARI"].mean().unstack().mean(axis=1)

    assert kinds[WHOLE] >= kinds[variant] - LEVEL
