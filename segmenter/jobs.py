"""The jobs of segmenter: each a few verbs from the database to the database."""

from __future__ import annotations

from segmenter import population, scoring
from segmenter.champions import KIND, require_champion
from segmenter.fitting import figures, registered, trained_on, training_window
from segmenter.population import require_customer
from segmenter.renaming import rename
from segmenter.reviewing import evaluate, sample, write_report
from shared import accounts
from shared.accounts import until_or_newest
from shared.jobs import Job, Outcome, Request
from shared.runs import Run


def fit(run: Run, request: Request) -> Outcome:
    """Groups the customers of the window, stores a candidate and asks the gate."""
    require_customer(run)
    window, champion = training_window(run, request)
    people = population.read(run, window.read_from, window.until)
    limit = run.settings("fraudwatch").quarantine_limit
    accounts.require_quality(people.inspection, limit, "segmenter fit")
    fitted, previous = trained_on(run, people, window, champion)
    outcome = Outcome(
        message=f"would have fitted {fitted.segmentation.n_segments} segments",
        data=figures(fitted.diagnostics),
        rows_read=people.inspection.rows_read,
        rows_quarantined=people.inspection.rows_refused,
        window_from=window.moments[0],
        window_to=window.moments[1],
    )
    if request.dry_run:
        return outcome
    return registered(run, people, window, champion, previous, fitted, outcome)


def score(run: Run, request: Request) -> Outcome:
    """Assigns every customer to a segment or a state as of the moment."""
    require_customer(run)
    as_of = until_or_newest(run, request.until)
    champion = require_champion(run, as_of)
    scoring.refuse_earlier(run, as_of)
    people = scoring.read(run, champion, as_of, as_of)
    looked = scoring.look(champion, people, as_of)
    if request.dry_run:
        return scoring.counted(run, champion, people, looked)
    return scoring.written(run, champion, people, looked)


def backfill(run: Run, request: Request) -> Outcome:
    """Rebuilds segment history, month by month, before each customer's first period."""
    require_customer(run)
    moments = scoring.month_starts(run, request)
    champion = require_champion(run, moments[-1])
    return scoring.rebuilt(run, request, champion, moments)


JOBS = {
    job.name: job
    for job in (
        Job(f"{KIND}.fit", fit),
        Job(f"{KIND}.score", score),
        Job(f"backfill.{KIND}", backfill),
        Job(f"{KIND}.report", write_report),
        Job(f"{KIND}.evaluate", evaluate, writes=False),
        Job(f"{KIND}.sample", sample, writes=False),
        Job(f"{KIND}.rename", rename),
    )
}
