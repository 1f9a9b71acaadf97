"""What a fit tells its gate."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fraudwatch import fitting
from fraudwatch.config import Settings
from fraudwatch.detector import Scored
from fraudwatch.judging import Journal
from fraudwatch.learning import Window
from shared.errors import OvertakenError
from tests.small_bank import FITTED, Bank, copies, few_steps

NO_VERDICTS = pd.DataFrame(
    {"transaction_id": [], "verdict": [], "decided_at": np.empty(0, np.int64)}
)


def figures(log_likelihood: np.ndarray, moments: np.ndarray, days: int) -> dict:
    """The gate's figures of calibration rows with these likelihoods, after as many to train on."""
    trained, calibrated = np.full(len(moments), -1), np.asarray(moments, np.int64)
    rows = pd.DataFrame({"occurred_at": np.concatenate([trained, calibrated])})
    journal = Journal(rows, NO_VERDICTS, 0, np.full(len(rows), np.nan))
    likelihood = np.concatenate([np.full(len(moments), 99.0), log_likelihood])
    scored = Scored(likelihood, -likelihood[:, None])
    learned = SimpleNamespace(journal=journal, scored=scored, at=np.arange(len(rows)))
    window = Window(-1, 0, int(calibrated.max()) + 1, days)
    return fitting._gate_figures(learned, window, Settings(reviews_per_day=2))


def test_the_newest_quarter_is_held_against_the_older_days():
    likelihood = np.random.default_rng(0).normal(size=4000)
    likelihood[3000:] -= 10  # the newest rows are all surprising

    drifted = figures(likelihood, np.arange(4000), days=40)

    assert drifted["expected_share"] == pytest.approx(1.5 * 2 * 40 / 4000)
    assert drifted["held_out_share"] == pytest.approx(1.0, abs=0.01)


def test_rows_of_one_moment_are_held_against_themselves():
    likelihood = np.random.default_rng(0).normal(size=1000)

    alike = figures(likelihood, np.zeros(1000, np.int64), days=10)

    assert alike["held_out_rows"] == 1000
    assert alike["held_out_share"] == pytest.approx(alike["expected_share"], abs=0.002)


def test_a_score_that_is_no_number_is_told_to_the_gate():
    likelihood = np.append(np.zeros(99), np.nan)

    assert not figures(likelihood, np.arange(100), days=1)["finite"]


@pytest.mark.parametrize(
    ("job", "led"),
    [("fraudwatch.fit", True), ("fraudwatch.fit", False), ("fraudwatch.recalibrate", True)],
)
def test_a_promotion_in_the_middle_ends_the_run_that_compared_with_another(
    fitted_sqlite, job, led, monkeypatch
):
    """Also a first fit, which would have led without a gate."""
    measured = fitting._gate_figures

    def meanwhile(learned, window, settings):
        names = [name for name in bank.columns("model_versions") if name != "status"]
        others = ", ".join(name for name in names if name != "model_version_id")
        bank.say(
            "UPDATE #model_versions SET status = 'retired' WHERE status = 'champion'",
            f"INSERT INTO #model_versions (model_version_id, status, {others}) "
            f"SELECT 'of a person', 'champion', {others} FROM #model_versions",
        )
        return measured(learned, window, settings)

    monkeypatch.setattr(fitting, "_gate_figures", meanwhile)
    with copies(fitted_sqlite) as url, few_steps():
        bank = Bank(url)
        if not led:
            bank.say("UPDATE #model_versions SET status = 'candidate'")
        with pytest.raises(OvertakenError, match="of a person became champion"):
            bank.do(job, until=FITTED)

        leading = bank.ask("SELECT model_version_id FROM #model_versions WHERE status = 'champion'")
        assert leading == [("of a person",)] and bank.count("model_versions") == 2
