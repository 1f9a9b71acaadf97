"""The jobs of fraudwatch: each a few verbs from the database to the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraudwatch.fitting import (
    learned_on,
    recalibrated,
    recalibration_window,
    registered,
    registered_as_child,
    said,
    training_window,
)
from fraudwatch.reviewing import evaluate, explain, sample, write_report
from fraudwatch.scope import KIND, Range, require_champion, scope_start, to_score
from fraudwatch.scoring import score_range
from fraudwatch.verdicts import record
from shared import accounts, frames, registry
from shared.accounts import until_or_newest
from shared.errors import ConfigurationError
from shared.jobs import Job, Outcome, Request
from shared.manners import require_index
from shared.runs import Run

if TYPE_CHECKING:
    from fraudwatch.learning import Window


def fit(run: Run, request: Request) -> Outcome:
    """Trains on the window, calibrates on its end, stores a candidate and asks the gate."""
    window = training_window(run, request)
    inspection = _inspected(run, window)
    learned = learned_on(run, window, inspection)
    outcome = _read(window, inspection)
    if request.dry_run:
        rows = len(learned.frame)
        told = f"would have fitted a model on {rows} transactions"
        return said(outcome, told, learned.diagnostics)
    return registered(run, window, inspection, learned, outcome)


def recalibrate(run: Run, request: Request) -> Outcome:
    """Calibrates the champion on the newest days, by what is known of them; a child of it."""
    champion = require_champion(run)
    window = recalibration_window(run, request, champion)
    inspection = _inspected(run, window)
    learned = recalibrated(run, window, inspection, champion)
    outcome = _read(window, inspection)
    if request.dry_run:
        return said(outcome, f"would have recalibrated {champion.model_version_id}", {})
    return registered_as_child(run, window, learned, champion, outcome)


def _inspected(run: Run, window: Window) -> accounts.Inspection:
    inspection = accounts.inspect(run, window.since, window.until)
    accounts.require_quality(inspection, run.settings(KIND).quarantine_limit, run.command)
    return inspection


def _read(window: Window, inspection: accounts.Inspection) -> Outcome:
    """What a run read, before it says what came of it."""
    return Outcome(
        message="",
        rows_read=inspection.rows_read,
        rows_quarantined=inspection.rows_refused,
        window_from=frames.moment(window.since),
        window_to=frames.moment(window.until),
    )


def score(run: Run, request: Request) -> Outcome:
    """Scores what is in scope, visible and unscored, and raises alerts."""
    champion = require_champion(run)
    if not request.options.get("allow_scan"):
        require_index(run.source, frames.micros(run.clock), run.command)
    window = to_score(run, request, until_or_newest(run, request.until))
    return score_range(run, request, champion, window, role="published")


def backfill(run: Run, request: Request) -> Outcome:
    """Scores a past range: published for what has no score, or a given model's beside them."""
    given = request.options.get("model")
    if request.since is None or request.until is None:
        raise ConfigurationError("backfill fraudwatch needs --from and --to.")
    since, until = frames.micros(request.since), until_or_newest(run, request.until)
    if since >= frames.micros(request.until):
        raise ConfigurationError(
            f"backfill fraudwatch goes from {request.since:%Y-%m-%dT%H:%M} to "
            f"{request.until:%Y-%m-%dT%H:%M}; --from should be before --to."
        )
    champion = require_champion(run)
    with run.results.transaction() as connection:
        scope = scope_start(connection, run)
        model = champion if given is None else registry.load(connection, run.tables, given)
    if model.kind != KIND:
        raise ConfigurationError(f"{model.model_version_id} is a {model.kind}, not a {KIND}.")
    window = Range(since, until, scope)
    return score_range(run, request, model, window, role="backfill" if given else "published")


JOBS = {
    job.name: job
    for job in (
        Job("fraudwatch.fit", fit),
        Job("fraudwatch.recalibrate", recalibrate),
        Job("fraudwatch.score", score),
        Job("backfill.fraudwatch", backfill),
        Job("fraudwatch.report", write_report),
        Job("fraudwatch.evaluate", evaluate, writes=False),
        Job("fraudwatch.explain", explain, writes=False),
        Job("fraudwatch.verdict", record, writes=False),
        Job("fraudwatch.sample", sample, writes=False),
    )
}
