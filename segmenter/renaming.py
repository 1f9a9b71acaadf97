"""A person's name for a segment: it wins over the model's and stays with the segment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segmenter import store
from segmenter.champions import KIND, Model, require_champion
from shared import frames, runs
from shared.errors import ConfigurationError
from shared.jobs import Outcome, Request
from shared.runs import Run

LONGEST = 60  # signs; a longer name has no room beside others in a report


def rename(run: Run, request: Request) -> Outcome:
    """Gives a published segment of the champion the name; the configuration's names stand."""
    segment_id = int(request.options["segment_id"])
    name, by = str(request.options["name"]).strip(), str(request.options["by"]).strip()
    champion = require_champion(run, frames.micros(run.clock))

    def work(connection: Any) -> str:
        known = store.segments(connection, run.tables, champion.name)
        published = {int(i): str(n) for i, n in zip(known.segment_id, known.name, strict=True)}
        _require(run, champion, published, segment_id, name, by)
        if not request.dry_run:
            store.rename_segment(connection, run.tables, segment_id, name, by)
        return published[segment_id]

    before = runs.unit(run, KIND, work)
    verb = "would have renamed" if request.dry_run else "renamed"
    return Outcome(
        f'{verb} segment {segment_id} from "{before}" to "{name}"; refits keep the name',
        {"segment_id": segment_id, "name": name, "named_by": by, "before": before},
        rows_written=int(not request.dry_run),
        model_version_id=champion.name,
    )


def _require(
    run: Run, champion: Model, published: Mapping[int, str], segment_id: int, name: str, by: str
) -> None:
    """Everything that forbids the name, told at once."""
    configured: Mapping[int, str] = run.settings(KIND).names
    faults = [*_faults_of_text(name, by)]
    if segment_id not in published:
        listed = ", ".join(f"{i} ({n})" for i, n in sorted(published.items()))
        faults.append(f"{champion.name} has no segment {segment_id}; it has {listed}.")
    if segment_id in configured:
        faults.append(
            f'Segment {segment_id} is named "{configured[segment_id]}" by {run.config.path}, which '
            f"wins. Change it there, or take it out: [segmenter] names."
        )
    others: dict[int, Any] = {**published, **configured}
    taken = [i for i, n in others.items() if i != segment_id and n.casefold() == name.casefold()]
    if name and taken:
        faults.append(f'"{name}" is the name of segment {taken[0]} already; choose another.')
    if faults:
        raise ConfigurationError(faults)


def _faults_of_text(name: str, by: str) -> list[str]:
    faults = []
    if not name or not name.isprintable() or len(name) > LONGEST:
        faults.append(
            f"A name is one line of 1 to {LONGEST} printable signs; found {name!r} "
            f"({len(name)} signs)."
        )
    if not by or by.casefold() in (store.MODEL, store.CONFIGURATION):
        faults.append(f'A name has an author: say who gives it, --by NAME; found "{by}".')
    return faults
