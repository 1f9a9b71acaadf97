"""Drift: the population stability index and the likelihood against the fit's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from segmenter import drift
from shared.cli import cli
from shared.reports import DRIFT
from shared.synthetic import START
from tests.segmenter.test_jobs import END, Bank

pytestmark = pytest.mark.usefixtures("few_fits")


def customers(n: int, seed: int, shift: float = 0.0) -> tuple[pd.DataFrame, np.ndarray]:
    """n customers with a Gaussian, a lattice full of zeros and a category; and their log density
    under the Gaussian of shift 0."""
    generator = np.random.default_rng(seed)
    amount = generator.normal(shift, 1.0, n)
    returns = np.where(generator.random(n) < 0.6, 0.0, generator.random(n).round(1))
    product = np.where(generator.random(n) < 0.3, "gold", "plain")
    frame = pd.DataFrame({"amount": amount, "returns": returns, "product": product})
    return frame, -0.5 * amount**2 - 0.5 * np.log(2 * np.pi)


COLUMNS = ["amount", "returns", "product"]


def test_the_same_customers_have_not_drifted_at_all():
    frame, density = customers(500, 0)

    found = drift.measured(drift.footing(frame, COLUMNS, density), frame, density)

    assert found.feature.tolist() == [*COLUMNS, "log_likelihood"]
    np.testing.assert_allclose(found.value.astype(float), 0.0, atol=1e-12)
    assert drift.drifted(found) == [] and drift.said(found) == ""


def test_the_index_is_the_sum_over_tenths_of_the_fit():
    before, density = customers(40_000, 1)
    now, later = customers(40_000, 2, shift=0.8)

    found = drift.measured(drift.footing(before, ["amount"], density), now, later)

    edges = np.quantile(before.amount, np.linspace(0, 1, 11))[1:-1]
    cells = [
        np.bincount(np.digitize(f.amount, edges), minlength=10) / len(f) for f in (before, now)
    ]
    expected = ((cells[1] - cells[0]) * np.log(cells[1] / cells[0])).sum()
    assert found.value[0] == pytest.approx(expected, rel=1e-3)
    assert found.value[0] == pytest.approx(0.8**2, rel=0.1)  # Jeffreys divergence of two Gaussians


def test_the_fall_of_the_likelihood_is_half_the_squared_shift():
    before, density = customers(40_000, 3)
    now, later = customers(40_000, 4, shift=1.2)

    found = drift.measured(drift.footing(before, ["amount"], density), now, later)
    fall = found.set_index("feature").value["log_likelihood"]

    low = np.quantile(density, 0.01)  # a few strays do not speak for all
    expected = np.maximum(density, low).mean() - np.maximum(later, low).mean()
    assert fall == pytest.approx(expected)
    assert 0.4 < fall < 0.5 * 1.2**2


def test_a_shift_of_a_deviation_is_named_and_a_tenth_of_one_is_not():
    fitted = drift.footing(*_fit(2000, 5))

    far = drift.measured(fitted, *customers(2000, 6, shift=1.0))
    near = drift.measured(fitted, *customers(2000, 6, shift=0.1))

    assert drift.drifted(far)[0] == "amount"
    assert drift.said(far).startswith("; drifted since the fit: amount")
    assert drift.drifted(near) == []


def test_few_customers_of_a_steady_population_hardly_ever_drift():
    named = [
        drift.drifted(drift.measured(drift.footing(*_fit(60, seed)), *customers(40, seed + 10_000)))
        for seed in range(300)
    ]

    assert sum(bool(names) for names in named) <= 0.03 * len(named)


def test_a_feature_that_falls_silent_drifts():
    frame, density = customers(1000, 7)
    fitted = drift.footing(frame, COLUMNS, density)

    silent = frame.assign(amount=np.where(np.arange(1000) % 2 == 0, np.nan, frame.amount))

    assert drift.drifted(drift.measured(fitted, silent, density)) == ["amount"]


def test_a_new_level_and_many_returns_drift():
    frame, density = customers(1000, 8)
    fitted = drift.footing(frame, COLUMNS, density)

    other = frame.assign(
        product=np.where(np.arange(1000) % 3 == 0, "silver", frame["product"]), returns=0.05
    )

    assert set(drift.drifted(drift.measured(fitted, other, density))) == {"returns", "product"}


def test_one_great_stray_does_not_move_the_likelihood():
    frame, density = customers(1000, 9)
    fitted = drift.footing(frame, COLUMNS, density)

    strays = np.where(np.arange(1000) < 3, -1e6, density)

    assert drift.drifted(drift.measured(fitted, frame, strays)) == []


def test_customers_without_a_purchase_do_not_count():
    frame, density = customers(800, 10)
    gone = pd.DataFrame({"amount": [np.nan] * 500, "returns": np.nan, "product": "plain"})
    fitted = drift.footing(frame, COLUMNS, density)

    with_gone = drift.measured(
        fitted, pd.concat([frame, gone]), np.append(density, np.full(500, np.nan))
    )

    pd.testing.assert_frame_equal(with_gone, drift.measured(fitted, frame, density))


def test_a_model_without_a_footing_and_a_scoring_without_purchases_say_nothing():
    frame, density = customers(50, 11)

    for fitted, seen in (({}, density), (drift.footing(frame, COLUMNS, density), density * np.nan)):
        found = drift.measured(fitted, frame, seen)
        assert list(found) == list(DRIFT) and found.empty
        assert drift.drifted(found) == [] and drift.said(found) == ""
    assert drift.footing(frame, COLUMNS, density * np.nan) == {}


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_a_footing_is_json_and_every_figure_finite(n: int, m: int, seed: int):
    frame, density = customers(n, seed)
    now, later = customers(m, seed + 1)
    empty = frame.assign(nothing=np.nan)

    fitted = json.loads(json.dumps(drift.footing(empty, [*COLUMNS, "nothing"], density)))
    found = drift.measured(fitted, now.assign(nothing=np.nan), later)

    assert np.isfinite(found[["value", "threshold"]].to_numpy(dtype=float)).all()
    assert (found.value[found.feature != "log_likelihood"] >= 0).all()


def test_a_lasting_drift_starts_a_fit_a_month():
    fitted = datetime(2026, 3, 1, tzinfo=UTC)

    due = [drift.challenger_due(fitted, fitted + timedelta(days=d)) for d in (0, 27, 28, 60)]

    assert due == [False, False, True, True]


def _fit(n: int, seed: int) -> tuple[pd.DataFrame, list[str], np.ndarray]:
    frame, density = customers(n, seed)
    return frame, COLUMNS, density


@pytest.mark.parametrize("refit", ["true", "false"])
def test_a_score_that_drifted_is_followed_by_a_fit_where_that_is_configured(
    sqlite_url: str, tmp_path: Path, refit: str
) -> None:
    """The world is younger than the window, so that purchase days grow."""
    bank = Bank(sqlite_url, tmp_path).build()
    file = bank.file(refit_on_drift=refit)
    fitted = (START + pd.Timedelta(days=25)).date().isoformat()

    for words in (f"fit --until {fitted}", f"score --as-of {END.date()}"):
        done = CliRunner().invoke(cli, ["--config", str(file), "segmenter", *words.split()])
        assert done.exit_code == 0, done.output

    assert "drifted since the fit: " in done.stdout and "purchase_days" in done.stdout
    assert bank.ask("SELECT count(*) FROM #drift_metrics WHERE drifted")[0][0] > 0
    runs = [job for (job,) in bank.ask("SELECT job FROM #pipeline_runs ORDER BY started_at")]
    followed = ["segmenter.fit"] if refit == "true" else []
    assert runs == ["segmenter.fit", "segmenter.score", *followed]
    (until,) = bank.ask("SELECT max(trained_to) FROM #model_versions")[0]
    assert str(until).startswith(str(END.date()) if followed else fitted)
