"""The front door: the command `peerwatch`.

Nothing heavy is imported until a command needs it: the domains' jobs are found by entry point and
loaded when one is asked for. A person sees one clear message; `--debug` shows the traceback.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial, wraps
from importlib.metadata import entry_points, version
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo

import click

from shared.errors import ConfigurationError, PeerwatchError
from shared.masking import guarded, guarded_data

if TYPE_CHECKING:
    from shared.config import Configuration
    from shared.jobs import Outcome, Request
    from shared.scheduling import Scheduler

# One thread unless the user says otherwise: on a busy machine small nets on several threads were
# measured 7 to 500 times slower. It is said before numpy is first imported.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
DOMAINS = ("segmenter", "fraudwatch")
STOP_SECONDS = 8  # a job ends itself before the scheduler kills it (9), or a service manager (10)


@dataclass
class Front:
    """What every command shares: the options that stand anywhere on the line."""

    config_path: Path
    as_json: bool = False
    dry_run: bool = False
    quiet: bool = False
    debug: bool = False
    trigger: str = "manual"
    slot: datetime | None = None  # of the schedule

    def config(self) -> Configuration:
        from shared import config

        return config.load(self.config_path, os.environ)

    def say(
        self, message: str, data: Mapping[str, Any] | None = None, *, verbatim: bool = False
    ) -> None:
        """The result on standard output: text, or with --json nothing but data.

        verbatim: statements to be run, whose names must stay as they are.
        """
        if self.as_json:
            shown = json.loads(json.dumps(data or {}, default=_plain))
            shown = shown if verbatim else guarded_data(shown)
            click.echo(json.dumps(shown, allow_nan=False, sort_keys=True))
        elif not self.quiet:
            click.echo(message if verbatim else guarded(message))

    def note(self, message: str) -> None:
        """A remark on standard error."""
        if not self.quiet:
            click.echo(guarded(message), err=True)


def _plain(value: Any) -> Any:
    """What JSON does not know, as text or a plain number."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else str(value)


def _finite(value: Any) -> Any:
    """NaN and infinities as null, which JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not isfinite(value) else value


class MomentType(click.ParamType):
    """ISO-8601, a date or a moment; what is naive is in `[source] timezone`, known later."""

    name = "T"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(
                f"{value!r} is no ISO-8601 date or moment, e.g. 2026-03-01 or 2026-03-01T12:00Z."
            )


MOMENT = MomentType()


def _in_zone(moment: datetime | None, zone: str) -> datetime | None:
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


OPTIONS = (  # that stand anywhere on the line
    click.option("--config", "config_path", metavar="FILE", help="Configuration file."),
    click.option("--json", "as_json", is_flag=True, help="Only data on standard output."),
    click.option("--dry-run", is_flag=True, help="Compute and count, write nothing."),
    click.option("--quiet", is_flag=True, help="Say nothing but errors."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def everywhere(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command takes."""

    @wraps(command)
    def kept(
        config_path: str | None, as_json: bool, dry_run: bool, quiet: bool, debug: bool, **rest: Any
    ) -> Any:
        front = click.get_current_context().find_object(Front)
        assert front is not None  # noqa: S101 - made by the root group
        if config_path:
            front.config_path = Path(config_path)
        front.as_json |= as_json
        front.dry_run |= dry_run
        front.quiet |= quiet
        front.debug |= debug
        return command(front, **rest)

    return _with_options(kept)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("peerwatch"), prog_name="peerwatch")
@_with_options
@click.pass_context
def cli(context: click.Context, config_path: str | None, **flags: Any) -> None:
    """Segment labels and fraud alerts, written back to your own SQL database."""
    path = config_path or os.environ.get("PEERWATCH_CONFIG") or "peerwatch.toml"
    trigger = os.environ.get("PEERWATCH_TRIGGER", "manual")
    slot = os.environ.get("PEERWATCH_SLOT")
    moment = datetime.fromisoformat(slot) if slot else None
    context.obj = Front(Path(path), trigger=trigger, slot=moment, **flags)


# --- making and looking -------------------------------------------------------------------------


@cli.command()
@click.option("--url", required=True, help="SQLAlchemy URL of your database.")
@click.option("--no-create", is_flag=True, help="Print the SQL of the result tables, run none.")
@everywhere
def init(front: Front, url: str, no_create: bool) -> None:
    """Look at the database, propose the mapping, make the result tables."""
    from shared import setup

    made = setup.init(
        url,
        front.config_path,
        dry_run=front.dry_run,
        environment=os.environ,
        create=not no_create,
    )
    for line in made.notes:
        front.note(line)
    front.say(made.message, made.data, verbatim=no_create)


@cli.command()
@click.option("--sql", is_flag=True, help="Print the statements of the jobs, run none.")
@everywhere
def doctor(front: Front, sql: bool) -> None:
    """Check the environment, the mapping and the data; all faults at once."""
    from shared import setup

    if sql:
        found = setup.reads(front.config(), datetime.now(UTC))
        front.say("\n\n".join(item["text"] for item in found), {"statements": found})
        return
    checks = setup.doctor(front.config(), datetime.now(UTC))
    lines = [f"{'ok   ' if check['ok'] else 'FAULT'} {check['text']}" for check in checks]
    front.say("\n".join(lines), {"checks": checks})
    if not all(check["ok"] for check in checks):
        raise click.exceptions.Exit(2)


@cli.command()
@click.option("--sql", is_flag=True, help="Print the statements, run none.")
@everywhere
def migrate(front: Front, sql: bool) -> None:
    """Bring the result tables to the newest version."""
    from shared import migrating, runs, setup

    if sql:
        printed = setup.statements(front.config())
        said = printed or "-- the result tables are at the newest version"
        front.say(said, {"sql": printed}, verbatim=True)
        return
    results = runs.results_of(front.config())
    with results.transaction() as connection:
        before = migrating.current(connection, results.target)
        if before is None:
            migrating.require_newest(connection, results.target)
        if not front.dry_run:
            migrating.upgrade(connection, results.target)
    after = before if front.dry_run else migrating.head()
    front.say(f"result tables: version {before} before, {after} now", {"from": before, "to": after})


@cli.command("grants")
@click.option("--reader", metavar="NAME", help="Who reads the source.")
@click.option("--writer", metavar="NAME", help="Who runs the jobs.")
@click.option("--analyst", metavar="NAME", help="Who reads results and gives verdicts.")
@click.option("--migrator", metavar="NAME", help="Who owns the result tables.")
@everywhere
def print_grants(front: Front, **names: str | None) -> None:
    """Print the statements that give each role its rights; run none."""
    from shared import grants

    given = {role: name for role, name in names.items() if name is not None}
    found = grants.statements(front.config(), given)
    lines = [line for where, items in found.items() for line in (f"-- in {where}", *items)]
    front.say("\n".join(lines), {"statements": found}, verbatim=True)


@cli.command()
@click.argument("directory", default="peerwatch_demo", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Another seed, another world.")
@everywhere
def demo(front: Front, directory: Path, seed: int) -> None:
    """A small world with planted segments and planted fraud, from init to reports."""
    from shared import demo as demonstration

    shown = demonstration.run(directory, seed, front.note)
    front.say(shown["text"], shown["data"])


# --- jobs ---------------------------------------------------------------------------------------


def _job(name: str) -> Any:
    for point in entry_points(group="peerwatch.jobs"):
        if point.name in name.split("."):
            return point.load()[name]
    raise ConfigurationError(f"There is no job {name}.")


@contextmanager
def _bar(front: Front, job: str) -> Iterator[Callable[[int], None]]:
    """Rows done so far, on a terminal's standard error only."""
    if front.quiet or not sys.stderr.isatty():
        yield lambda _rows: None
        return
    done = 0

    def progress(rows: int) -> None:
        nonlocal done
        done += rows
        click.echo(f"\r{job}: {done:,} rows", err=True, nl=False)

    yield progress
    click.echo("\r\033[K", err=True, nl=False)


def _run_job(front: Front, name: str, /, **request: Any) -> Outcome:
    """Runs a job of a domain in this process, its record kept."""
    from shared import runs
    from shared.jobs import Request

    config = front.config()
    zone = config.source.timezone
    made: Request = Request(
        since=_in_zone(request.pop("since", None), zone),
        until=_in_zone(request.pop("until", None), zone),
        options=request,
        dry_run=front.dry_run,
    )
    job = _job(name)
    kept = front.trigger if job.writes and not front.dry_run else None
    with (
        _stopped_politely(),
        _bar(front, name) as progress,
        runs.opened(config, name, datetime.now(UTC), progress, kept, front.slot) as run,
    ):
        return runs.execute(run, job, made, front.trigger, front.slot)


@contextmanager
def _stopped_politely() -> Iterator[None]:
    """SIGTERM undoes the unit of work in hand, records the run as abandoned, and ends with 143.

    What cannot be interrupted, such as a long read, is cut off after `STOP_SECONDS`: a killed run
    leaves nothing half-written either.
    """

    def stop(_signal: int, _frame: Any) -> None:
        if hasattr(signal, "alarm"):
            signal.alarm(STOP_SECONDS)
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _do(front: Front, name: str, /, **request: Any) -> None:
    outcome = _run_job(front, name, **request)
    front.say(outcome.message, _finite(outcome.data))
    front.slot = None  # what follows is none of the schedule's
    for following in outcome.then:
        front.note(_run_job(front, following, until=outcome.window_to).message)


@cli.group()
def segmenter() -> None:
    """Customers: fit, score, report, evaluate, sample, rename."""


@cli.group()
def fraudwatch() -> None:
    """Transactions: fit, score, report, evaluate, explain, verdict, sample."""


SINCE = click.option("--from", "since", type=MOMENT, help="Start of the window.")
UNTIL = click.option("--until", "until", type=MOMENT, help="End of the window, itself not in it.")


def _in_a_folder(_context: click.Context, _option: click.Parameter, file: str | None) -> str | None:
    """Refuses a file in a folder that is not there, before the work rather than after it."""
    if file is not None and not Path(file).parent.is_dir():
        raise click.BadParameter(f"There is no folder {Path(file).parent}.")
    return file


OUT = click.option("--out", metavar="FILE", callback=_in_a_folder, help="Where to write.")


@segmenter.command("fit")
@SINCE
@UNTIL
@everywhere
def segmenter_fit(front: Front, **request: Any) -> None:
    """Refit the segments; the first fit is champion, later ones by their gate."""
    _do(front, "segmenter.fit", **request)


@segmenter.command("score")
@click.option("--as-of", "until", type=MOMENT, help="Assign customers as of this moment.")
@everywhere
def segmenter_score(front: Front, until: datetime | None) -> None:
    """Assign every customer to a segment or a state."""
    _do(front, "segmenter.score", until=until)


@segmenter.command("report")
@OUT
@everywhere
def segmenter_report(front: Front, **request: Any) -> None:
    """Write the HTML report of the segments."""
    _do(front, "segmenter.report", **request)


@segmenter.command("evaluate")
@UNTIL
@everywhere
def segmenter_evaluate(front: Front, **request: Any) -> None:
    """How well the segments hold: likelihood, stability, certainty."""
    _do(front, "segmenter.evaluate", **request)


def _sample_options(command: Callable[..., Any]) -> Callable[..., Any]:
    size = click.IntRange(min=1)
    command = click.option("--size", type=size, default=1000, show_default=True, help="Rows.")(
        command
    )
    command = click.option("--seed", default=0, show_default=True)(command)
    return OUT(command)


@segmenter.command("sample")
@_sample_options
@everywhere
def segmenter_sample(front: Front, **request: Any) -> None:
    """Synthetic customers from the champion, as CSV."""
    _do(front, "segmenter.sample", **request)


@segmenter.command("rename")
@click.argument("segment_id", type=int)
@click.argument("name")
@click.option("--by", required=True, metavar="NAME", help="Who gives the name.")
@everywhere
def segmenter_rename(front: Front, **request: Any) -> None:
    """A person's name for a segment: it wins over the model's and stays across refits."""
    _do(front, "segmenter.rename", **request)


@fraudwatch.command("fit")
@SINCE
@UNTIL
@everywhere
def fraudwatch_fit(front: Front, **request: Any) -> None:
    """Train and calibrate; the first fit is champion, later ones by their gate."""
    _do(front, "fraudwatch.fit", **request)


@fraudwatch.command("recalibrate")
@UNTIL
@everywhere
def fraudwatch_recalibrate(front: Front, **request: Any) -> None:
    """Calibrate the champion anew on the newest days; its density stays as it is."""
    _do(front, "fraudwatch.recalibrate", **request)


WORKERS = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the work.",
)


@fraudwatch.command("score")
@UNTIL
@WORKERS
@click.option(
    "--allow-scan", is_flag=True, help="Read a large table without an index all the same."
)
@everywhere
def fraudwatch_score(front: Front, **request: Any) -> None:
    """Score what is in scope and unscored, and raise alerts."""
    _do(front, "fraudwatch.score", scheduled=front.trigger == "schedule", **request)


@fraudwatch.command("report")
@OUT
@everywhere
def fraudwatch_report(front: Front, **request: Any) -> None:
    """Write the HTML report of the alerts."""
    _do(front, "fraudwatch.report", **request)


@fraudwatch.command("evaluate")
@SINCE
@click.option("--to", "until", type=MOMENT, help="End of the window, itself not in it.")
@click.option("--label", help="Column of the labels; else the mapped one.")
@everywhere
def fraudwatch_evaluate(front: Front, **request: Any) -> None:
    """Quality against labels, beside what you have and one-line rules, at equal reviews."""
    _do(front, "fraudwatch.evaluate", **request)


@fraudwatch.command("explain")
@click.argument("transaction_id")
@everywhere
def fraudwatch_explain(front: Front, transaction_id: str) -> None:
    """The likelihood of one transaction, its parts and the reasons."""
    _do(front, "fraudwatch.explain", transaction_id=transaction_id)


@fraudwatch.command("sample")
@_sample_options
@everywhere
def fraudwatch_sample(front: Front, **request: Any) -> None:
    """Synthetic transactions from the champion, as CSV."""
    _do(front, "fraudwatch.sample", **request)


@fraudwatch.command("verdict")
@click.argument("alert_id", required=False)
@click.argument("verdict", required=False)
@click.option("--transaction", help="A transaction's id, also of one that raised no alert.")
@click.option("--csv", "sheet", type=click.Path(path_type=Path), help="A sheet of verdicts.")
@click.option("--by", required=True, metavar="NAME", help="Who says so.")
@click.option("--type", "fraud_type", help="What kind of fraud.")
@click.option("--note", help="Anything worth keeping.")
@everywhere
def fraudwatch_verdict(front: Front, **said: Any) -> None:
    """Record verdicts: in_review, confirmed_fraud, false_positive, genuine_unusual,
    inconclusive, reopened."""
    _do(front, "fraudwatch.verdict", **said)


@cli.command()
@click.argument("kind", type=click.Choice(DOMAINS))
@click.option("--from", "since", type=MOMENT, required=True, help="Start of the range.")
@click.option("--to", "until", type=MOMENT, required=True, help="End of the range, not in it.")
@click.option("--model", help="fraudwatch: this model's scores, beside the published ones.")
@click.option("--raise", "raises", is_flag=True, help="fraudwatch: raise alerts as well.")
@click.option("--every", type=click.Choice(["month"]), help="segmenter: one as-of per month.")
@WORKERS
@everywhere
def backfill(front: Front, kind: str, raises: bool, **request: Any) -> None:
    """Fill a past range: scores for what has none, or segment history."""
    _do(front, f"backfill.{kind}", **request, **{"raise": raises})


# --- registry, runs, schedule ---------------------------------------------------------------------


@cli.group()
def models() -> None:
    """The registry of fitted models."""


@models.command("list")
@everywhere
def models_list(front: Front) -> None:
    """All models, newest first."""
    from shared import registry, runs

    results = runs.open_results(front.config())
    with results.transaction() as connection:
        found = registry.listed(connection, results.tables)
    lines = [
        f"{item['status']:<10}{item['model_version_id']:<44}{item['created_at']:%Y-%m-%d %H:%M}  "
        f"{item['rows']:,} rows"
        for item in found
    ]
    front.say("\n".join(lines) or "no models yet", {"models": _finite(found)})


@models.command("show")
@click.argument("model_version_id")
@everywhere
def models_show(front: Front, model_version_id: str) -> None:
    """The model card."""
    from shared import registry, runs

    results = runs.open_results(front.config())
    with results.transaction() as connection:
        found = registry.card(connection, results.tables, model_version_id)
    front.say(json.dumps(found, indent=2, default=_plain, sort_keys=True), _finite(found))


@models.command("promote")
@click.argument("model_version_id")
@click.option("--by", required=True, metavar="NAME", help="Who decides.")
@everywhere
def models_promote(front: Front, model_version_id: str, by: str) -> None:
    """Make a model the champion of its kind."""
    from shared import registry, runs

    results = runs.open_results(front.config())
    with results.transaction() as connection:
        registry.card(connection, results.tables, model_version_id)
        if not front.dry_run:
            registry.promote(
                connection, results.tables, model_version_id, by=by, now=datetime.now(UTC)
            )
    _say_champion(front, model_version_id)


@models.command("rollback")
@click.argument("kind", type=click.Choice((*DOMAINS, "ranker")))
@click.option("--by", required=True, metavar="NAME", help="Who decides.")
@everywhere
def models_rollback(front: Front, kind: str, by: str) -> None:
    """Make the champion before the present one champion again."""
    from shared import registry, runs

    results = runs.open_results(front.config())
    with results.transaction() as connection:
        found = registry.earlier_champion(connection, results.tables, kind)
        if not front.dry_run:
            registry.promote(connection, results.tables, found, by=by, now=datetime.now(UTC))
    _say_champion(front, found, " again")


def _say_champion(front: Front, name: str, again: str = "") -> None:
    leads = "would be" if front.dry_run else "is"
    key = "would_be_champion" if front.dry_run else "champion"
    front.say(f"{name} {leads} champion{again}", {key: name})


@cli.command("runs")
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@everywhere
def show_runs(front: Front, last: int) -> None:
    """The last runs, newest first."""
    from shared import runs

    results = runs.open_results(front.config())
    with results.transaction() as connection:
        found = runs.listed(connection, results.tables, last)
    lines = [
        f"{item['started_at']:%Y-%m-%d %H:%M:%S}  {item['job']:<20}{item['status']:<11}"
        f"{_slot(item['slot_at']):<20}"
        f"read {item['rows_read']:>9,}  written {item['rows_written']:>9,}  "
        f"quarantined {item['rows_quarantined']:>5,}  "
        f"{'  '.join(filter(None, (item['error'], item['note'])))}".rstrip()
        for item in found
    ]
    front.say("\n".join(lines) or "no runs yet", {"runs": found})


def _slot(slot: datetime | None) -> str:
    """The slot of a run; nothing of one that was typed."""
    return "" if slot is None else f"@ {slot:%Y-%m-%d %H:%M}"


class SpanType(click.ParamType):
    """A span of time: 90s, 30m, 1h, 2d."""

    name = "SPAN"
    SECONDS: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        if isinstance(value, timedelta):
            return value
        number, unit = str(value)[:-1], str(value)[-1:]
        if unit not in self.SECONDS or not number.isdecimal() or len(number) > 6:
            self.fail(f"{value!r} is no span of time, e.g. 90s, 30m, 1h or 2d.")
        return timedelta(seconds=int(number) * self.SECONDS[unit])


@cli.command()
@click.option(
    "--max-lag",
    type=SpanType(),
    default="1h",
    show_default=True,
    help="How late a job may be: 30m, 1h, 2d.",
)
@click.option("--openmetrics", "metrics", is_flag=True, help="As OpenMetrics text.")
@everywhere
def health(front: Front, max_lag: timedelta, metrics: bool) -> None:
    """Whether what is scheduled is done, for monitors: exit 0 or 1."""
    from shared import health as checking

    found = checking.check(front.config(), datetime.now(UTC), max_lag)
    if metrics:
        click.echo(checking.openmetrics(found), nl=False)
    else:
        front.say("\n".join(found.lines()), found.data)
    if found.reasons:
        raise click.exceptions.Exit(1)


@cli.command()
@click.option("--once", is_flag=True, help="Run what is due and stop.")
@everywhere
def schedule(front: Front, once: bool) -> None:
    """Run the schedule in the foreground; each job is a process of its own."""
    from shared import rules, runs, scheduling, slots

    config, now = front.config(), datetime.now(UTC)
    if not config.schedule:
        raise ConfigurationError(f"{config.path} has no [schedule]; nothing to wait for.")
    if front.dry_run:
        found = slots.peek(runs.open_results(config), config.schedule, now)
        jobs = [due.job for due in found]
        front.say(f"due: {', '.join(jobs)}" if jobs else "nothing is due", {"jobs": jobs})
        return
    scheduler = scheduling.of(config, front.note, partial(click.echo, err=True), once=once)
    if not once:
        coming = {job: rules.next_slot(entry, now) for job, entry in config.schedule.items()}
        slots_told = ", ".join(f"{job} {slot:%Y-%m-%d %H:%M}" for job, slot in coming.items())
        front.note(f"next slots, UTC: {slots_told}")
    scheduler.run()
    if once:
        _say_what_ran(front, scheduler)


def _say_what_ran(front: Front, scheduler: Scheduler) -> None:
    done = {
        "jobs": scheduler.started,
        "failed": scheduler.failed,
        "done_by_another": scheduler.held,
    }
    names = {key: [due.job for due in found] for key, found in done.items()}
    text = f"ran: {', '.join(names['jobs'])}" if names["jobs"] else "nothing is due"
    front.say(text, names)
    if names["failed"]:
        failed = ", ".join(dict.fromkeys(names["failed"]))
        raise PeerwatchError(f"These jobs failed: {failed}. See: peerwatch runs")


@cli.command()
@everywhere
def verify(front: Front) -> None:
    """Check the promises on the live tables and name what is broken."""
    from shared import verifying

    broken = verifying.verify(front.config(), datetime.now(UTC))
    lines = [f"{'ok    ' if not item['rows'] else 'BROKEN'} {item['text']}" for item in broken]
    front.say("\n".join(lines), {"checks": broken})
    if any(item["rows"] for item in broken):
        raise click.exceptions.Exit(1)


def main() -> int:
    """Runs the command; returns the exit code and shows one message for what went wrong."""
    for name in THREADS:
        os.environ.setdefault(name, "1")
    debug = "--debug" in sys.argv
    try:
        code = cli.main(standalone_mode=False)
        return int(code) if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        with StringIO() as said:
            error.show(file=said)
            click.echo(guarded(said.getvalue()), err=True, nl=False)
        return 2
    except PeerwatchError as error:
        if debug:
            raise
        click.echo(guarded(f"peerwatch: {error}"), err=True)
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        if isinstance(error, PermissionError | IsADirectoryError) and error.filename:
            why = f"{error.filename}: {error.strerror}. Name another file, or see to its rights."
            click.echo(guarded(f"peerwatch: {why}"), err=True)
            return 2
        # The text of an unforeseen error may hold values of rows, so only its kind is shown.
        click.echo(
            f"peerwatch: an unforeseen {type(error).__name__} stopped the command. "
            "Run it again with --debug to see where.",
            err=True,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
