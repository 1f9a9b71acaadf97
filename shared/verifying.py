"""`verify`: the promises as questions to the live tables; each answer should be no rows."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import accounts, frames, registry, runs
from shared.config import Configuration
from shared.errors import PeerwatchError
from shared.runs import Results
from shared.source import Source
from shared.tables import Tables


def verify(settings: Configuration, now: datetime) -> list[dict[str, Any]]:
    """Each promise with the number of rows that break it."""
    results = runs.open_results(settings)
    with results.transaction() as connection:
        found = [
            {"text": text, "rows": int(connection.execute(select).scalar_one())}
            for text, select in _questions(results.tables)
        ]
        found.append(
            {
                "text": "every stored model is the one fitted",
                "rows": _broken_models(connection, results),
            }
        )
    with Source(settings.source, "peerwatch/verify") as source:
        found.extend(_books(source, results, frames.micros(now)))
    return found


def _questions(t: Tables) -> list[tuple[str, Any]]:
    scores, alerts, reasons = t.transaction_scores, t.fraud_alerts, t.fraud_alert_reasons
    segments, models = t.customer_segments, t.model_versions
    published = scores.c.role == "published"
    scored = _exists(scores, scores.c.transaction_id == alerts.c.transaction_id, published)
    explained = _exists(reasons, reasons.c.alert_id == alerts.c.alert_id)
    raised = _exists(alerts, alerts.c.alert_id == reasons.c.alert_id)
    stored = _exists(models, models.c.model_version_id == scores.c.model_version_id)
    assigned, given = segments.c.state == "assigned", segments.c.segment_id.is_not(None)
    return [
        (
            "a transaction has at most one published score",
            _repeated(scores.c.transaction_id, published),
        ),
        (
            "a transaction has at most one alert",
            _repeated(alerts.c.transaction_id, sa.true()),
        ),
        (
            "every raised alert has its published score",
            _count(alerts, alerts.c.origin != "reported", ~scored),
        ),
        ("every alert has its reasons", _count(alerts, ~explained)),
        ("every reason has its alert", _count(reasons, ~raised)),
        (
            "p-values are above 0 and at most 1",
            _count(scores, sa.or_(scores.c.p_value <= 0, scores.c.p_value > 1)),
        ),
        ("every score names a stored model", _count(scores, ~stored)),
        ("every run left as many scores as its ledger says", _short_runs(t)),
        (
            "a kind has at most one champion",
            _repeated(models.c.kind, models.c.status == "champion"),
        ),
        ("every customer has exactly one current segment row", _not_one_current(segments)),
        ("a customer's periods have no gap and no overlap", _seams(segments)),
        (
            "a segment is given exactly where the state is assigned",
            _count(segments, assigned != given),
        ),
        *_lineage_questions(t),
        *_day_questions(t),
    ]


def _lineage_questions(t: Tables) -> list[tuple[str, Any]]:
    """What must be true of the links between the segments of two models."""
    links = t.segment_lineage
    same = links.c.from_segment_id == links.c.to_segment_id
    ends = [
        (links.c.from_segment_id, links.c.from_model_version_id, "new"),
        (links.c.to_segment_id, links.c.to_model_version_id, "retired"),
    ]
    astray = [_ends_astray(t.segments, links, *end) for end in ends]
    left = [_unlinked(t.segments, links, segment, model) for segment, model, _ in ends]
    return [
        (
            "a link joins segments of its two models, or none where one is new or retired",
            _sum(astray),
        ),
        ("every segment of a model and of the champion before it has its link", _sum(left)),
        (
            "a segment is kept exactly where its id is",
            _count(links, (links.c.kind == "kept") != sa.func.coalesce(same, sa.false())),
        ),
        ("an id that is new in a model was never used before", _used_again(t)),
    ]


def _sum(counts: list[Any]) -> Any:
    return sa.select(sum((count.scalar_subquery() for count in counts), sa.literal(0)))


def _ends_astray(segments: sa.Table, links: sa.Table, end: Any, model: Any, without: str) -> Any:
    """Links whose end is null but where it may be, or is no segment of its model."""
    there = _exists(segments, segments.c.segment_id == end, segments.c.model_version_id == model)
    given = end.is_not(None)
    wrong = sa.or_((links.c.kind == without) == given, sa.and_(given, ~there))
    return _count(links, wrong)


def _unlinked(segments: sa.Table, links: sa.Table, end: Any, model: Any) -> Any:
    """Segments of a linked model, on that side, without a link to the other model."""
    pairs = sa.select(links.c.from_model_version_id, links.c.to_model_version_id).distinct()
    pair = pairs.subquery()
    linked = _exists(
        links,
        links.c.from_model_version_id == pair.c.from_model_version_id,
        links.c.to_model_version_id == pair.c.to_model_version_id,
        end == segments.c.segment_id,
    )
    joined = segments.join(pair, segments.c.model_version_id == pair.c[model.name])
    return sa.select(sa.func.count()).select_from(joined).where(~linked)


def _used_again(t: Tables) -> Any:
    """Segments that no kept link leads to, whose id an earlier model has."""
    links, segments, models = t.segment_lineage, t.segments, t.model_versions
    into = sa.select(links.c.to_model_version_id, links.c.to_segment_id).distinct().subquery()
    earlier, own = models.alias("earlier"), models.alias("own")
    goes_on = _exists(
        links,
        links.c.kind == "kept",
        links.c.to_model_version_id == into.c.to_model_version_id,
        links.c.to_segment_id == into.c.to_segment_id,
    )
    used = sa.exists(
        sa.select(sa.literal(1))
        .select_from(segments)
        .join(earlier, earlier.c.model_version_id == segments.c.model_version_id)
        .where(
            segments.c.segment_id == into.c.to_segment_id,
            earlier.c.created_at < own.c.created_at,
        )
    )
    joined = into.join(own, own.c.model_version_id == into.c.to_model_version_id)
    return sa.select(sa.func.count()).select_from(joined).where(~goes_on, used)


def _day_questions(t: Tables) -> list[tuple[str, Any]]:
    """What must be true of days that are closed, and of those that are not."""
    alerts, days = t.fraud_alerts, t.closed_days
    closed = _exists(days, days.c.day == alerts.c.day)
    judged = alerts.c.q_value.is_not(None)
    promised_for = sa.and_(days.c.false_discovery_rate.is_not(None), days.c.reason.is_(None))
    return [
        (
            "every alert of a closed day has its q-value",
            _count(alerts, alerts.c.p_value.is_not(None), closed, ~judged),
        ),
        ("no alert of an open day has a q-value", _count(alerts, ~closed, judged)),
        ("q-values rise with the p-values of their day, from them up to 1", _disordered(alerts)),
        ("a closed day has all the scores it was closed with", _lost_scores(t)),
        (
            "a rate is promised exactly where one is asked and nothing speaks against it",
            _count(days, days.c.promised != promised_for),
        ),
    ]


def _disordered(alerts: sa.Table) -> Any:
    """Alerts whose q-value is below their p-value, above 1, or below that of a smaller p-value."""
    before = sa.func.max(alerts.c.q_value).over(
        partition_by=alerts.c.day, order_by=alerts.c.p_value, range_=(None, 0)
    )
    ordered = sa.select(alerts.c.p_value, alerts.c.q_value, before.label("before")).where(
        alerts.c.q_value.is_not(None)
    )
    q = ordered.subquery()
    wrong = sa.or_(q.c.q_value < q.c.before, q.c.q_value < q.c.p_value, q.c.q_value > 1)
    return sa.select(sa.func.count()).select_from(q).where(wrong)


def _lost_scores(t: Tables) -> Any:
    """Closed days with fewer published scores than stood there at the close; late ones are more."""
    scores, days = t.transaction_scores, t.closed_days
    left = (
        sa.select(scores.c.day, sa.func.count().label("rows"))
        .where(scores.c.role == "published")
        .group_by(scores.c.day)
        .subquery()
    )
    both = days.outerjoin(left, left.c.day == days.c.day)
    fewer = days.c.scored > sa.func.coalesce(left.c.rows, 0)
    return sa.select(sa.func.count()).select_from(both).where(fewer)


def _count(table: sa.Table, *where: Any) -> Any:
    return sa.select(sa.func.count()).select_from(table).where(*where)


def _exists(table: sa.Table, *where: Any) -> Any:
    return sa.exists(sa.select(sa.literal(1)).select_from(table).where(*where))


def _repeated(column: sa.Column[Any], where: Any) -> Any:
    repeated = sa.select(column).where(where).group_by(column).having(sa.func.count() > 1)
    return sa.select(sa.func.count()).select_from(repeated.subquery())


def _short_runs(t: Tables) -> Any:
    """Runs that scored, whose batches wrote another number of rows than there are of them."""
    runs_, batches, scores = t.pipeline_runs, t.run_batches, t.transaction_scores
    said = (
        sa.select(batches.c.run_id, sa.func.sum(batches.c.rows_written).label("rows"))
        .join(runs_, runs_.c.run_id == batches.c.run_id)
        .where(runs_.c.job.in_(("fraudwatch.score", "backfill.fraudwatch")))
        .group_by(batches.c.run_id)
        .subquery()
    )
    left = (
        sa.select(scores.c.run_id, sa.func.count().label("rows")).group_by(scores.c.run_id)
    ).subquery()
    both = said.outerjoin(left, left.c.run_id == said.c.run_id)
    wrong = said.c.rows != sa.func.coalesce(left.c.rows, 0)
    return sa.select(sa.func.count()).select_from(both).where(wrong)


def _not_one_current(segments: sa.Table) -> Any:
    current = sa.func.sum(sa.case((segments.c.valid_to.is_(None), 1), else_=0))
    wrong = sa.select(segments.c.customer_id).group_by(segments.c.customer_id).having(current != 1)
    return sa.select(sa.func.count()).select_from(wrong.subquery())


def _seams(segments: sa.Table) -> Any:
    """Periods whose end is not the start of the customer's next one."""
    following = sa.func.lead(segments.c.valid_from).over(
        partition_by=segments.c.customer_id, order_by=segments.c.valid_from
    )
    steps = sa.select(segments.c.valid_to, following.label("following")).subquery()
    ends = sa.and_(steps.c.valid_to.is_(None), steps.c.following.is_not(None))
    apart = sa.and_(steps.c.valid_to.is_not(None), steps.c.valid_to != steps.c.following)
    lost = sa.and_(steps.c.valid_to.is_not(None), steps.c.following.is_(None))
    return sa.select(sa.func.count()).select_from(steps).where(sa.or_(ends, apart, lost))


def _broken_models(connection: Connection, results: Results) -> int:
    table = results.tables.model_versions
    broken = 0
    columns = (table.c.model_version_id, table.c.artifact, table.c.sha256)
    for row in connection.execute(sa.select(*columns)):
        try:
            registry.unpacked(row)
        except PeerwatchError:
            broken += 1
    return broken


def _books(source: Source, results: Results, clock: int) -> list[dict[str, Any]]:
    """The source counted anew against the books; what has arrived since waits for the next run."""
    counts, undated = source.counted(clock)
    with results.transaction() as connection:
        known = runs.setting(connection, results.tables, "score_from")
        if known is None:
            return [{"text": "no scoring run yet: there are no books to check", "rows": 0}]
        table = results.tables.source_days
        then = {row.day: row.source_rows for row in connection.execute(sa.select(table))}
        pending, late = accounts.waiting(connection, results.tables)
        view = results.tables.view("coverage")
        gone = sa.column("gone_from_source", sa.BigInteger)
        select = sa.select(sa.column("day", sa.Date), gone).select_from(view).where(gone > 0)
        lacking = connection.execute(select).all()
    days = counts.index.to_numpy().astype("datetime64[D]").astype(object)
    now = {day: int(rows) for day, rows in zip(days, counts, strict=True)}
    now |= {None: undated} if undated else {}
    scope = date.fromisoformat(known)
    arrived = sum(
        max(rows - then.get(day, 0), 0) for day, rows in now.items() if day is None or day >= scope
    )
    fewer = sum(now.get(day, 0) < rows for day, rows in then.items())
    # A run that was killed may have scored rows that came after the books were closed.
    missed = sum(
        max(int(rows) - max(now.get(day, 0) - then.get(day, 0), 0), 0) for day, rows in lacking
    )
    return [
        {
            "text": "no day of the source has fewer rows than were counted "
            f"({_waiting(pending + arrived, late)})",
            "rows": fewer,
        },
        {"text": "no scored row has gone from the source", "rows": missed},
    ]


def _waiting(pending: int, late: int) -> str:
    """What waits: rows since the last run, and rows that came too late for it."""
    return f"{pending:,} rows pending, {late:,} of them too late: peerwatch backfill"
