"""What people say of transactions: one verdict, or a whole sheet; insert only."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from fraudwatch import store
from fraudwatch.decisions import natural_id
from fraudwatch.labels import SAYS, UNKNOWN
from fraudwatch.scope import KIND, transaction_key
from shared import frames, runs
from shared.errors import ConfigurationError, PeerwatchError
from shared.jobs import Outcome, Request
from shared.reports import plural
from shared.runs import Run

VERDICTS = (
    "in_review", "confirmed_fraud", "false_positive", "genuine_unusual", "inconclusive", "reopened",
)  # fmt: skip
SHEET = (
    "alert_id", "transaction_id", "verdict", "fraud_type", "duplicate_of", "note", "decided_at",
)  # fmt: skip


def record(run: Run, request: Request) -> Outcome:
    """Records verdicts; all faults of a sheet are told at once and then nothing is recorded."""
    if not str(request.options["by"]).strip():
        raise ConfigurationError("A verdict has a name: say who decided, --by NAME.")
    said = _said(request.options)
    faults: list[str] = []
    rows = [_row(run, request.options, line, faults) for line in said]
    faults += _at_odds(rows, said)
    if faults:
        raise ConfigurationError(faults)
    frame = pd.DataFrame([row for row in rows if row is not None])
    written = 0
    if not request.dry_run:
        written = runs.unit(run, KIND, lambda c: store.write_verdicts(c, run, frame))
    told = f"recorded {plural(written, 'verdict')}"
    if request.dry_run:
        told = f"would have recorded {plural(len(frame), 'verdict')}"
    elif written < len(frame):
        told += f"; {len(frame) - written} were known already"
    return Outcome(
        told,
        {"recorded": written, "verdict_ids": frame.verdict_id.tolist()},
        rows_read=len(frame),
        rows_written=written,
    )


def _said(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The verdicts as given: one from the command line, or the lines of a CSV file."""
    sheet, transaction = options.get("sheet"), options.get("transaction")
    words = [word for word in (options.get("alert_id"), options.get("verdict")) if word]
    if sheet is not None:
        if words or transaction:
            raise ConfigurationError("Give either --csv, or --transaction, or an alert's id.")
        return _sheet(Path(sheet))
    wanted = 1 if transaction else 2
    if len(words) != wanted:
        raise ConfigurationError(
            "Say which alert and what: peerwatch fraudwatch verdict ALERT_ID VERDICT --by NAME, "
            "or --transaction ID VERDICT, or --csv FILE."
        )
    return [
        {
            "line": "",
            "alert_id": None if transaction else words[0],
            "transaction_id": transaction,
            "verdict": words[-1],
            "fraud_type": options.get("fraud_type"),
            "note": options.get("note"),
            "source": "cli",
        }
    ]


def _sheet(path: Path) -> list[dict[str, Any]]:
    """The lines of a sheet, each with the number of the line on which it begins."""
    header, lines = _read(path)
    unknown = sorted(set(header) - set(SHEET))
    once = len(set(header)) == len(header)
    if unknown or not once or "verdict" not in header or not {*SHEET[:2]} & {*header}:
        raise ConfigurationError(
            f"{path} has the columns {', '.join(header)}; expected, separated by commas and each "
            f"once, verdict, alert_id or transaction_id, and of {', '.join(SHEET[3:])} what "
            "there is."
        )
    if not lines:
        raise ConfigurationError(f"{path} has no verdicts: no line stands below its header.")
    torn = [(at, len(row)) for at, row in lines if len(row) != len(header)]
    if torn:
        raise ConfigurationError(
            [
                f"{path.name}, line {at}: {plural(found, 'field')}, expected {len(header)} as in "
                "the header; a text with a comma stands in double quotes."
                for at, found in torn
            ]
        )
    return [
        {"line": f"{path.name}, line {at}: ", "source": "csv"}
        | dict.fromkeys(SHEET)
        | {name: value or None for name, value in zip(header, row, strict=True)}
        for at, row in lines
    ]


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(header, lines that are not blank, each with the number of its first line) of a CSV file."""
    if not path.is_file():
        raise ConfigurationError(f"There is no file {path}.")
    found, begins = [], 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                found += [(begins, row)] if row else []
                begins = reader.line_num + 1
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} is no CSV file in UTF-8, from line {begins} on: {type(error).__name__}"
        ) from error
    if not found:
        raise ConfigurationError(f"{path} is empty.")
    return found[0][1], found[1:]


def _row(
    run: Run, options: Mapping[str, Any], said: Mapping[str, Any], faults: list[str]
) -> dict[str, Any] | None:
    """The row of `fraud_verdicts`, or None and a fault."""
    try:
        _require_known(said["verdict"])
        alert, transaction, amount = _about(run, said)
        decided = _decided_at(run, said.get("decided_at"))
    except PeerwatchError as error:
        faults.append(f"{said['line']}{error}")
        return None
    actor = str(options["by"])
    return {
        "verdict_id": natural_id(
            "verdict", transaction, said["verdict"], actor, decided.isoformat()
        ),
        "transaction_id": transaction,
        "alert_id": alert,
        "verdict": said["verdict"],
        "fraud_type": said["fraud_type"],
        "duplicate_of": said.get("duplicate_of"),
        "actor": actor,
        "note": said["note"],
        "amount": amount,
        "decided_at": pd.Timestamp(decided),
        "recorded_at": pd.Timestamp(run.clock),
        "source": said["source"],
    }


def _at_odds(rows: Sequence[dict[str, Any] | None], said: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines that call genuine what one before them calls fraud, or the other way round, at once."""
    first: dict[tuple[Any, Any], tuple[str, str]] = {}
    faults = []
    for row, line in zip(rows, said, strict=True):
        if row is None or SAYS[row["verdict"]] == UNKNOWN:
            continue
        verdict, where = first.setdefault(
            (row["transaction_id"], row["decided_at"]), (row["verdict"], line["line"])
        )
        if SAYS[verdict] != SAYS[row["verdict"]]:
            faults.append(
                f"{line['line']}{row['verdict']} for transaction {row['transaction_id']}, of which "
                f"{where}{verdict} is said of the same moment; leave one out, or give decided_at."
            )
    return faults


def _require_known(verdict: str | None) -> None:
    if not verdict:
        raise ConfigurationError(f"No verdict is given; expected {', '.join(VERDICTS)}.")
    if verdict not in VERDICTS:
        raise ConfigurationError(f'"{verdict}" is no verdict; expected {", ".join(VERDICTS)}.')


def _about(run: Run, said: Mapping[str, Any]) -> tuple[str | None, Any, float | None]:
    """(alert, transaction, amount) that the verdict is about; a fraud may have no alert."""
    with run.results.transaction() as connection:
        if said.get("alert_id"):
            alert = store.alert_of(connection, run.tables, alert_id=said["alert_id"])
            if str(said.get("transaction_id") or alert[1]) != str(alert[1]):
                raise ConfigurationError(
                    f"{alert[0]} is the alert of transaction {alert[1]}, not of "
                    f"{said['transaction_id']}."
                )
            return alert
        key = transaction_key(run, str(said.get("transaction_id") or ""))
        found = store.alert_of_transaction(connection, run.tables, key)
    if found is not None:
        return found
    clock = frames.micros(run.clock)
    when = run.source.moment_of(key, clock)
    rows = run.source.read(when, when + 1, clock).rows
    row = rows[rows.transaction_id == key]
    return None, key, float(row.amount.iloc[0]) if "amount" in row else None


def _decided_at(run: Run, text: str | None) -> datetime:
    """The moment of a verdict: now, or what is given, from 1970 up to now."""
    if not text:
        return run.clock
    zone = ZoneInfo(run.source.settings.timezone)
    try:
        moment = datetime.fromisoformat(text)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f'decided_at "{text}" is no ISO-8601 moment.') from error
    if not datetime.fromtimestamp(0, UTC) <= moment <= run.clock:
        raise ConfigurationError(
            f'decided_at "{text}" is not between 1970 and now; leave it empty for now.'
        )
    return moment
