"""The fraud report: frames of alerts, scores and days become sections for `shared.reports`.

Frames and their columns are those of the result tables; every frame may be missing or empty, and
then a sentence says so. Nothing here reads a database or the clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from fraudwatch.evaluation import wilson
from fraudwatch.explanations import EVIDENCE, SLIGHT, as_expected
from shared import charts
from shared.reports import (
    DRIFT,
    MISSING,
    Bar,
    Card,
    Cards,
    Cell,
    Column,
    Fact,
    Facts,
    Figure,
    Note,
    Section,
    Shaded,
    Table,
    as_day,
    day_text,
    drift_section,
    frame_of,
    identity,
    is_missing,
    moments,
    money,
    number,
    percent,
    plural,
    settings_of,
    title_of,
)

MOST_CARDS = 30  # a day's reviews of one analyst; the rest is in the table
MOST_ROWS = 150
MOST_DAYS = 45  # of the coverage table
MOST_CHART_DAYS = 120
MOST_HISTORY = 30

_ALERTS = (
    "alert_id", "transaction_id", "case_id", "customer_id", "counterparty_id", "occurred_at",
    "amount", "currency", "anomaly_score", "p_value", "priority", "expected_loss", "origin",
    "summary", "status", "day", "q_value", "ranker_version_id", "verdict", "in_sample",
)  # fmt: skip
_REASONS = (
    "alert_id", "rank", "feature", "value", "expected", "share", "value_number", "expected_low",
    "expected_high",
)  # fmt: skip
_CLOSED = ("day", "scored", "cut", "false_discovery_rate", "promised", "reason")
_FALSE = ("false_positive", "genuine_unusual")
_COVERAGE = (
    "source_rows", "before_scope", "scored", "quarantined", "pending", "too_late",
    "gone_from_source",
)  # fmt: skip


@dataclass(frozen=True)
class _View:
    """What several sections look at.

    queued: one row per queued case, newest day first. closed: one row per closed day, newest first.
    """

    alerts: pd.DataFrame
    queued: pd.DataFrame
    days: pd.DataFrame
    closed: pd.DataFrame
    budget: float | None
    asked: float | None
    zone: str
    frames: Mapping[str, pd.DataFrame]


def sections(frames: Mapping[str, pd.DataFrame]) -> list[Section]:
    """The report's sections, the answer first.

    frames: alerts (fraud_alerts with status, verdict and in_sample), reasons
    (fraud_alert_reasons), queue (day, rank, case_id), history (transaction_id, occurred_at,
    amount), scores (low, high, count of anomaly_score), level (level), days (day, scored, alerts,
    cases), closed_days, drift (drift_metrics of one run), coverage, settings (key, value), model
    and run (one row each).
    """
    view = _view(frames)
    return [
        _headline(view),
        _newest_day(view),
        _earlier_days(view),
        _honesty(view),
        _scores(view),
        _causes(view),
        drift_section(
            "Whether the payments are still those of the training",
            frame_of(frames, "drift", DRIFT),
            lambda name: title_of(str(name)),
            "recalibrate, or fit again",
        ),
        _coverage(view),
        _guide(view),
        identity(frames),
    ]


def _view(frames: Mapping[str, pd.DataFrame]) -> _View:
    settings = settings_of(frames)
    alerts = frame_of(frames, "alerts", _ALERTS)
    alerts = alerts.assign(
        occurred_at=moments(alerts.occurred_at),
        amount=alerts.amount.astype(float),
        priority=alerts.priority.astype(float),
    )
    days = frame_of(frames, "days", ("day", "scored", "alerts", "cases")).dropna(subset=["day"])
    days = days.assign(day=[as_day(day) for day in days.day]).sort_values("day")
    closed = frame_of(frames, "closed_days", _CLOSED).dropna(subset=["day"])
    closed = closed.assign(day=[as_day(day) for day in closed.day])
    budget = settings.get("reviews_per_day")
    return _View(
        alerts=alerts,
        queued=_queued_cases(frame_of(frames, "queue", ("day", "rank", "case_id")), alerts),
        days=days.reset_index(drop=True),
        closed=closed.sort_values("day", ascending=False, ignore_index=True),
        budget=float(budget) if budget is not None else None,
        asked=_share_of(settings.get("false_discovery_rate")),
        zone=settings.get("timezone", "UTC"),
        frames=frames,
    )


def _share_of(text: str | None) -> float | None:
    """A setting that is a share; None where it is not set."""
    return None if text in (None, "", "None") else float(str(text))


def _queued_cases(queue: pd.DataFrame, alerts: pd.DataFrame) -> pd.DataFrame:
    """The leading alert of each queued case, with case_alerts and case_amount.

    The leading alert is the one of highest priority on the queue's day, else of the case.
    """
    queue = queue.assign(day=[as_day(day) for day in queue.day])
    own = alerts[alerts.case_id.isin(queue.case_id)].drop(columns="rank", errors="ignore")
    own = own.rename(columns={"day": "alert_day"}).assign(unsigned=own.amount.abs())
    totals = own.groupby("case_id").agg(
        case_alerts=("alert_id", "size"),
        case_amount=("unsigned", "sum"),
        case_currencies=("currency", "nunique"),
    )
    rows = queue.merge(own, on="case_id", how="inner").join(totals, on="case_id")
    alert_day = [None if is_missing(day) else as_day(day) for day in rows.alert_day]
    rows = rows.assign(elsewhere=rows.day != pd.Series(alert_day, index=rows.index, dtype=object))
    rows = rows.assign(key=rows.transaction_id.astype(str))
    order = ["day", "rank", "elsewhere", "priority", "key"]
    rows = rows.sort_values(order, ascending=[False, True, True, False, True], kind="stable")
    return rows.drop_duplicates(["day", "case_id"]).reset_index(drop=True)


def _headline(view: _View) -> Section:
    title = "The day against the budget"
    if view.days.empty and view.alerts.empty:
        return Section(title, "No transaction was scored in this window, so there is no alert.")
    facts = _today_facts(view) + _window_facts(view) + _promise_facts(view)
    return Section(title, _headline_lead(view), [Facts(facts, large=True)])


def _headline_lead(view: _View) -> str:
    if view.days.empty:
        return f"{plural(len(view.alerts), 'alert')} in the window; the days were not counted."
    today = view.days.iloc[-1]
    cases, budget = int(today.cases), view.budget
    if cases == 0:
        return f"No case came up on {today.day}: there is nothing to review for that day."
    came = f"{plural(cases, 'case')} came up on {today.day}"
    if budget is None:
        return f"{came}; no budget of reviews is recorded."
    if cases > budget:
        return f"{came}, more than the {number(budget)} reviews of a day: the first come first."
    return f"{came}, within the budget of {number(budget)} reviews a day."


def _today_facts(view: _View) -> list[Fact]:
    if view.days.empty:
        return []
    today = view.days.iloc[-1]
    queued = view.queued[view.queued.day == today.day]
    of_budget = f" of {number(view.budget)}" if view.budget is not None else ""
    over = view.budget is not None and today.cases > view.budget
    recent = view.days.tail(28)
    return [
        Fact(f"Cases on {today.day}", f"{int(today.cases):,}{of_budget}", "budgeted", over)
        if of_budget
        else Fact(f"Cases on {today.day}", f"{int(today.cases):,}"),
        Fact(
            "Value at stake that day",
            _sums(_alerts_of(view.alerts[view.alerts.day == today.day], queued)),
            f"its alerts in {plural(len(queued), 'queued case')}",
        ),
        Fact(
            "Usual number of cases",
            f"{number(float(recent.cases.median()))} a day",
            f"median of the last {plural(len(recent), 'day')}",
        ),
    ]


def _alerts_of(alerts: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    return alerts[alerts.case_id.isin(cases.case_id)]


def _sums(alerts: pd.DataFrame) -> str:
    """Sums of the unsigned amounts per currency, the three largest."""
    known = alerts.dropna(subset=["amount"])
    if known.empty:
        return MISSING
    sums = known.amount.abs().groupby(known.currency.fillna("").astype(str)).sum()
    shown = [money(float(value), code) for code, value in sums.nlargest(3).items()]
    return " + ".join(shown) + (" + others" if len(sums) > 3 else "")


def _window_facts(view: _View) -> list[Fact]:
    alerts = view.alerts
    unsettled = int((alerts.status != "closed").sum())
    window = "no day scored"
    if not view.days.empty:
        window = f"{view.days.day.iloc[0]} to {view.days.day.iloc[-1]}"
    facts = [
        Fact("Alerts in the window", f"{len(alerts):,}", window),
        Fact("Waiting for a verdict", f"{unsettled:,}", "alerts open or in review"),
        Fact("Transactions scored", number(float(view.days.scored.sum())), window),
    ]
    loss = alerts.expected_loss.astype(float)
    if loss.notna().any():
        facts.append(Fact("Expected loss", money(float(loss.sum())), "of all alerts that have one"))
    return facts


def _newest_day(view: _View) -> Section:
    if view.queued.empty:
        return Section("Cases to review", _empty_queue_text(view))
    day = view.queued.day.iloc[0]
    cases = view.queued[view.queued.day == day]
    shown = cases.head(MOST_CARDS)
    reasons, history = _reasons_by_alert(view, shown), _history_by_transaction(view, shown)
    cards = [
        _card(row, reasons.get(str(row.alert_id)), history.get(str(row.transaction_id)), view.zone)
        for row in shown.itertuples()
    ]
    left = len(cases) - len(shown)
    note = f"{plural(left, 'further case')} of this day left out here: see alert_queue."
    cases_text = plural(len(cases), "case")
    lead = f"{cases_text} of {day}, the most urgent first. Times are in {view.zone}."
    return Section(f"Cases to review, {day}", lead, [Cards(cards, note if left else "")])


def _empty_queue_text(view: _View) -> str:
    if view.alerts.empty:
        return "The queue is empty: no alert was raised in this window."
    raised = f"{plural(len(view.alerts), 'alert')} raised in this window"
    return f"The queue is empty: of {raised}, none is in a queued case."


def _reasons_by_alert(view: _View, cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
    reasons = _telling(view, cases.alert_id)
    return {str(key): rows for key, rows in reasons.groupby("alert_id")}


def _telling(view: _View, alerts: pd.Series) -> pd.DataFrame:
    """The reasons of these alerts by rank: what has a share and is not as expected.

    An alert of which no reason is such has its first one.
    """
    reasons = frame_of(view.frames, "reasons", _REASONS)
    reasons = reasons[reasons.alert_id.isin(alerts)].sort_values(["alert_id", "rank"])
    columns = ("value", "expected", "value_number", "expected_low", "expected_high")
    values = zip(*(reasons[column] for column in columns), strict=True)
    usual = np.array([as_expected(*each) for each in values], bool)
    odd = reasons[~usual & (reasons.share.astype(float) >= SLIGHT)]
    alone = reasons[(reasons["rank"] == 1) & ~reasons.alert_id.isin(odd.alert_id)]
    return pd.concat([odd, alone]).sort_values(["alert_id", "rank"])


def _history_by_transaction(view: _View, cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
    history = frame_of(view.frames, "history", ("transaction_id", "occurred_at", "amount"))
    history = history[history.transaction_id.isin(cases.transaction_id)].dropna(subset=["amount"])
    history = history.assign(
        occurred_at=moments(history.occurred_at), amount=history.amount.astype(float)
    )
    history = history.sort_values("occurred_at", kind="stable")
    return {str(key): rows for key, rows in history.groupby("transaction_id")}


def _card(
    alert: Any, reasons: pd.DataFrame | None, history: pd.DataFrame | None, zone: str
) -> Card:
    meta = [_when(alert.occurred_at, zone), *_parties(alert), chance(alert.p_value)]
    meta += _worth(alert)
    if alert.case_alerts > 1:
        together = money(alert.case_amount, alert.currency) if alert.case_currencies <= 1 else ""
        together = f", {together} together" if together else ""
        meta.append(f"{alert.case_alerts:,} alerts in this case{together}")
    figure, caption = _recent_amounts(alert, history)
    return Card(
        badge=str(int(alert.rank)),
        title=money(alert.amount, alert.currency),
        meta=meta,
        text=_text(alert.summary),
        bars=_reason_bars(reasons),
        bars_title="What is unusual, and its share of the surprise",
        figure=figure,
        figure_caption=caption,
        tags=_tags(alert),
        colour=charts.BLUE if alert.status == "closed" else "#a84800",
    )


def _worth(alert: Any) -> list[str]:
    """What the ranker and the close of the day say of an alert, where they do."""
    found = []
    if not is_missing(alert.q_value):
        found.append(f"q-value {percent(alert.q_value)}")
    if not is_missing(alert.ranker_version_id):
        found.append(f"priority {number(alert.priority)}, by the ranker")
    if not is_missing(alert.expected_loss):
        found.append(f"expected loss {money(alert.expected_loss, alert.currency)}")
    return found


def _text(value: object, otherwise: str = "") -> str:
    return otherwise if is_missing(value) else str(value)


def _tags(alert: Any) -> list[str]:
    origins = {"exploration": "drawn at random", "reported": "reported, no alert raised it"}
    tags = [_text(alert.status).replace("_", " "), origins.get(_text(alert.origin), "")]
    return [tag for tag in tags if tag]


def _parties(alert: Any) -> list[str]:
    customer = _text(alert.customer_id)
    counterparty = _text(alert.counterparty_id)
    return [
        f"customer {customer}" if customer else "customer unknown",
        *([f"to {counterparty}"] if counterparty else []),
        f"transaction {_text(alert.transaction_id)}",
    ]


def _when(moment: pd.Timestamp, zone: str) -> str:
    if is_missing(moment):
        return "no valid time"
    return f"{moment.tz_convert(zone):%a %Y-%m-%d %H:%M}"


def chance(p_value: float | None) -> str:
    """A p-value in words, to two significant digits.

    >>> chance(1 / 12_000)
    'about 1 in 12,000 normal payments is as unusual'
    """
    if is_missing(p_value) or not 0 < float(p_value) <= 1:  # type: ignore[arg-type]
        return "how rare this is was not computed"
    payments = 1 / float(p_value)  # type: ignore[arg-type]
    if payments < 2:
        return "most normal payments are as unusual"
    rounded = round(payments, 1 - math.floor(math.log10(payments)))
    return f"about 1 in {rounded:,.0f} normal payments is as unusual"


def _reason_bars(reasons: pd.DataFrame | None) -> list[Bar]:
    """The first three reasons, and after them what else was known of the keys."""
    if reasons is None:
        return []
    known = reasons.feature.astype(str).str.startswith(EVIDENCE)
    shown = reasons[known | (np.arange(len(reasons)) < 3)]
    return [_bar(reason) for reason in shown.itertuples()]


def _bar(reason: Any) -> Bar:
    expected = _text(reason.expected)
    return Bar(
        label=_reason_title(reason.feature),
        value=_text(reason.value, MISSING),
        compared=f"expected {expected}" if expected else "",
        length=0.0 if is_missing(reason.share) else float(reason.share),
        remark=percent(reason.share),
    )


_TITLES = {  # of features whose names say too little
    "amount_ratio": "Amount, beside the customer's own",
    "amount_relative": "Amount, beside customers like this one",
    "count_1h": "Payments in the hour before",
}


def _reason_title(feature: object) -> str:
    """A feature as a title; a line of evidence is about the kind of key that it names."""
    name = str(feature)
    if name in _TITLES:
        return _TITLES[name]
    if name.startswith(EVIDENCE):
        return f"Known of the {title_of(name.removeprefix(EVIDENCE)).lower()}"
    return title_of(name)


def _recent_amounts(alert: Any, history: pd.DataFrame | None) -> tuple[Markup | None, str]:
    """The sparkline of earlier amounts with this one last, and its caption."""
    if history is None or is_missing(alert.amount):
        return None, ""
    earlier = history[history.occurred_at < alert.occurred_at].amount.tail(MOST_HISTORY).tolist()
    if not earlier:
        return None, ""
    values = [*earlier, float(alert.amount)]
    svg = charts.sparkline(
        values,
        len(values) - 1,
        title="Recent amounts of the customer, the alerted one last",
        texts=(f"highest {money(max(values))}", "this payment"),
    )
    median = money(float(np.median(earlier)), alert.currency)
    count = plural(len(earlier), "payment")
    return svg, f"{count} of this customer before this one, median {median}."


def _earlier_days(view: _View) -> Section:
    title = "Earlier days"
    newest = None if view.queued.empty else view.queued.day.iloc[0]
    earlier = view.queued[view.queued.day != newest]
    if earlier.empty:
        return Section(title, "No case of an earlier day is in the queue of this window.")
    shown = earlier.head(MOST_ROWS)
    reasons = _reasons_by_alert(view, shown)
    rows = [
        _earlier_row(row, reasons.get(str(row.alert_id)), view.zone) for row in shown.itertuples()
    ]
    columns = [
        Column("Day"), Column("Rank", numeric=True), Column("Amount", numeric=True),
        Column("When"), Column("Customer"), Column("One in", numeric=True, unit="normal payments"),
        Column("Leading reason"), Column("Status"),
    ]  # fmt: skip
    left = len(earlier) - len(shown)
    note = f"{plural(left, 'older case')} left out here: see alert_queue." if left else ""
    lead = (
        f"{plural(len(earlier), 'queued case')} of {plural(earlier.day.nunique(), 'earlier day')}."
    )
    return Section(title, lead, [Table(columns, rows, note=note)])


def _earlier_row(alert: Any, reasons: pd.DataFrame | None, zone: str) -> list[Cell]:
    leading = MISSING
    if reasons is not None:
        first = reasons.iloc[0]
        leading = f"{_reason_title(first.feature)}: {_text(first.value, MISSING)}"
    rarity = MISSING
    if not is_missing(alert.p_value) and 0 < alert.p_value <= 1:
        rarity = f"{float(f'{1 / alert.p_value:.2g}'):,.0f}"
    return [
        str(alert.day),
        int(alert.rank),
        money(alert.amount, alert.currency),
        MISSING if is_missing(alert.occurred_at) else f"{alert.occurred_at.tz_convert(zone):%H:%M}",
        _text(alert.customer_id, "unknown"),
        rarity,
        leading,
        _text(alert.status).replace("_", " "),
    ]


def _honesty(view: _View) -> Section:
    """Whether a rate of false alerts is promised, day by day, and what the verdicts say of it."""
    blocks: list[Table | Note] = []
    if not view.closed.empty:
        blocks.append(_closed_table(view))
    blocks.append(_verdict_table(view))
    return Section("How many alerts are false", _promise(view), blocks)


def _promise_facts(view: _View) -> list[Fact]:
    """The newest closed day's promise as a tile, where a rate is asked."""
    if view.closed.empty or is_missing(view.closed.false_discovery_rate.iloc[0]):
        return []
    newest = view.closed.iloc[0]
    rate = percent(newest.false_discovery_rate)
    if newest.promised:
        return [Fact(f"False alerts of {newest.day}", f"at most {rate}", "promised on average")]
    return [Fact(f"False alerts of {newest.day}", "no promise", f"{rate} was asked", alarm=True)]


def _promise(view: _View) -> str:
    if view.closed.empty:
        why = "no day is closed yet" if view.asked is not None else "none is asked for"
        return f"No false-discovery rate is promised: {why}."
    newest = view.closed.iloc[0]
    if newest.promised and not is_missing(newest.false_discovery_rate):
        rate = percent(newest.false_discovery_rate)
        return (
            f"For {newest.day} a false-discovery rate of {rate} is promised: of the alerts under "
            f"the day's cut, at most {rate} are false, on average over days."
        )
    asked = is_missing(newest.false_discovery_rate)
    why = _text(newest.reason, "none is asked for" if asked else "no reason is recorded")
    return f"For {newest.day} no false-discovery rate is promised: {why.removesuffix('.')}."


def _closed_table(view: _View) -> Table:
    raised = view.alerts[view.alerts.origin == "threshold"].dropna(subset=["day"])
    by_day = dict(list(raised.groupby(raised.day.map(as_day))))
    shown = view.closed.head(MOST_DAYS)
    rows = [_closed_row(day, by_day.get(day.day, raised.iloc[:0])) for day in shown.itertuples()]
    columns = [
        Column("Closed day"), Column("Scored", numeric=True), Column("Alerts", numeric=True),
        Column("Under the cut", numeric=True, unit="alerts"),
        Column("Cut", numeric=True, unit="one in … normal payments"),
        Column("Rate asked", numeric=True), Column("Promised"), Column("Why not"),
    ]  # fmt: skip
    left = len(view.closed) - len(rows)
    note = f"{plural(left, 'older day')} left out here: see closed_days." if left else ""
    return Table(columns, rows, "At the close of a day its alerts get q-values", note=note)


def _closed_row(day: Any, alerts: pd.DataFrame) -> list[Cell]:
    cut = math.nan if is_missing(day.cut) else float(day.cut)
    return [
        str(day.day),
        number(day.scored),
        len(alerts),
        int((alerts.p_value.astype(float) <= cut).sum()),
        f"{float(f'{1 / cut:.2g}'):,.0f}" if cut > 0 else MISSING,
        percent(day.false_discovery_rate),
        "yes" if day.promised else Shaded("no", 0.4),
        "" if day.promised else _text(day.reason),
    ]


def _verdict_table(view: _View) -> Table | Note:
    """Verdicts by the origin of the alert; scores in sample are no measure."""
    alerts = view.alerts[~view.alerts.in_sample.fillna(False).astype(bool)]
    if not alerts.verdict.isin(["confirmed_fraud", *_FALSE]).any():
        return Note("No alert of this window has a verdict, so no share of false ones is known.")
    groups = {
        "raised by their score": alerts.origin == "threshold",
        "of these under the cut of a day with a promise": _under_a_promise(view, alerts),
        "drawn at random, apart from all rates": alerts.origin == "exploration",
        "reported, no alert raised them": alerts.origin == "reported",
    }
    rows = [_verdict_row(name, alerts[kept]) for name, kept in groups.items() if kept.any()]
    columns = [
        Column("Alerts"), Column("Number", numeric=True), Column("With a verdict", numeric=True),
        Column("Fraud", numeric=True), Column("False", numeric=True), Column("Share false"),
        Column("Interval of 95 %"), Column("Value of the frauds", numeric=True),
    ]  # fmt: skip
    return Table(columns, rows, "What the verdicts say; inconclusive ones count in neither")


def _under_a_promise(view: _View, alerts: pd.DataFrame) -> pd.Series:
    """Which alerts were raised by their score, and lie under the cut of a day with a promise."""
    promised = view.closed[view.closed.promised.fillna(False).astype(bool)]
    cuts = dict(zip(promised.day, promised.cut.astype(float), strict=True))
    of_day = [
        math.nan if is_missing(day) else cuts.get(as_day(day), math.nan) for day in alerts.day
    ]
    return (alerts.origin == "threshold") & (
        alerts.p_value.astype(float) <= np.array(of_day, float)
    )


def _verdict_row(name: str, alerts: pd.DataFrame) -> list[Cell]:
    frauds, false = (
        alerts[alerts.verdict == "confirmed_fraud"],
        int(alerts.verdict.isin(_FALSE).sum()),
    )
    said = len(frauds) + false
    low, high = wilson(false, said)
    return [
        name,
        len(alerts),
        said,
        len(frauds),
        false,
        percent(false / said) if said else MISSING,
        f"{percent(round(low, 3))} to {percent(round(high, 3))}" if said else MISSING,
        _sums(frauds),
    ]


def _scores(view: _View) -> Section:
    level_frame = frame_of(view.frames, "level", ("level",)).dropna()
    level = None if level_frame.empty else float(level_frame.level.iloc[0])
    blocks = [_score_figure(view, level), _day_figure(view)]
    entry = "no entry level is recorded"
    if level is not None:
        entry = f"an alert is raised from an anomaly score of {number(level)} nats on"
    return Section("Scores and alerts", f"{entry[:1].upper()}{entry[1:]}.", blocks)


def _score_figure(view: _View, level: float | None) -> Figure | Note:
    bins = frame_of(view.frames, "scores", ("low", "high", "count")).dropna()
    if bins.empty or bins["count"].sum() == 0:
        return Note("No scores are stored for this window.", "Scores", half=True)
    svg = charts.histogram(
        bins.low.astype(float),
        bins.high.astype(float),
        bins["count"].astype(float),
        level,
        title="Anomaly scores of the window",
        x_label="anomaly score (nats): the higher, the more unusual",
        log_counts=True,
    )
    caption = (
        f"{number(float(bins['count'].sum()))} scored transactions by anomaly score. "
        "Heights are logarithmic, so that the few on the right can be seen."
    )
    return Figure(svg, caption, half=True)


def _day_figure(view: _View) -> Figure | Note:
    days = view.days.tail(MOST_CHART_DAYS)
    if days.empty:
        return Note("No day was scored in this window.", "Alerts per day", half=True)
    svg = charts.daily_bars(
        days.day.tolist(),
        days.cases.astype(float).tolist(),
        days.alerts.astype(float).tolist(),
        view.budget,
        title="Cases and alerts per day",
        front_name="cases",
        back_name="alerts",
    )
    within = ""
    if view.budget is not None:
        over = int((days.cases > view.budget).sum())
        within = f"{plural(over, 'day')} of {len(days):,} had more cases than the budget. "
    left = len(view.days) - len(days)
    rest = f"{plural(left, 'older day')} left out." if left else ""
    text = f"{within}The budget counts cases: alerts of one customer close in time. {rest}"
    return Figure(svg, text.strip(), half=True)


def _causes(view: _View) -> Section:
    title = "What raised the alerts"
    leading = _telling(view, view.alerts.alert_id).drop_duplicates("alert_id")
    if leading.empty:
        return Section(title, "No reasons are stored for the alerts of this window.")
    counts = leading.feature.astype(str).value_counts().reset_index(name="alerts")
    counts = counts.sort_values(["alerts", "feature"], ascending=[False, True])
    shown = counts.head(10)
    svg = charts.horizontal_bars(
        [_reason_title(name) for name in shown.feature],
        shown.alerts.astype(float).tolist(),
        [f"{count:,} ({percent(count / len(leading))})" for count in shown.alerts],
        title="Alerts by their leading reason",
    )
    left = len(counts) - len(shown)
    caption = "Each alert counts once, under the first of its reasons that is not as expected."
    if left:
        caption += f" {plural(left, 'rarer reason')} left out."
    share = percent(shown.alerts.iloc[0] / len(leading))
    lead = f"{_reason_title(shown.feature.iloc[0])} leads {share} of "
    return Section(title, f"{lead}{plural(len(leading), 'alert')}.", [Figure(svg, caption)])


def _coverage(view: _View) -> Section:
    title = "Every row accounted for"
    coverage = frame_of(view.frames, "coverage", ("day", *_COVERAGE))
    if coverage.empty:
        return Section(title, "The source has not been counted yet.")
    counts = coverage[list(_COVERAGE)].astype(float).fillna(0).astype(int)
    unexplained = _unexplained(counts)
    key = [day_text(day) for day in coverage.day]
    order = sorted(range(len(key)), key=lambda place: key[place], reverse=True)
    rows = [_coverage_row(key[i], counts.iloc[i], int(unexplained.iloc[i])) for i in order]
    wrong = int((unexplained != 0).sum())
    lead = (
        f"{plural(wrong, 'day')} of {len(counts):,} do not add up: see the last column."
        if wrong
        else "Rows before scope, scored, quarantined and pending add up to the source on every day."
    )
    columns = [Column("Day"), *(Column(title_of(n), numeric=True) for n in _COVERAGE)]
    columns.append(Column("Unexplained", numeric=True))
    left = len(rows) - MOST_DAYS
    note = (
        f"{plural(left, 'older day')} left out here, but counted in the total." if left > 0 else ""
    )
    total: list[Cell] = [
        "All days",
        *(int(counts[name].sum()) for name in _COVERAGE),
        int(unexplained.sum()),
    ]
    return Section(title, lead, [Table(columns, rows[:MOST_DAYS], total=total, note=note)])


def _unexplained(counts: pd.DataFrame) -> pd.Series:
    """Rows by which a day's parts miss its source; rows gone from the source may still count."""
    parts = counts.before_scope + counts.scored + counts.quarantined + counts.pending
    missing = counts.source_rows - parts
    return missing.where(missing + counts.gone_from_source != 0, 0)


def _coverage_row(day: str, counts: pd.Series, unexplained: int) -> list[Cell]:
    last = Shaded(unexplained, 0.8) if unexplained else 0
    return [day, *(int(counts[name]) for name in _COVERAGE), last]


def _guide(view: _View) -> Section:
    budget = "the day's budget of reviews"
    if view.budget is not None:
        budget = f"the budget of {number(view.budget)} reviews a day"
    texts = [
        "A model of how each customer usually pays gives every payment a score: the anomaly "
        "score, in nats, which is higher the less the payment was to be expected.",
        "“About 1 in 12,000 normal payments” is the p-value: of the payments kept aside for "
        "calibration, that share looked at least as unusual. It is not the probability of fraud.",
        "A q-value is given at the close of a day: of the day's payments at least as unusual, "
        "about that share is expected to be normal. It is a promise only where the report says so.",
        f"Alerts of one customer close in time are one case, and {budget} counts cases. "
        "Cases are ranked by priority.",
        "A reason shows what the payment had, what was to be expected of this customer, and its "
        "share of the surprise. It tells why the model was surprised, not that the payment is bad.",
        "“It would not have been raised below” is the amount at which the score would have stayed "
        "under the level, everything else the same.",
        "Nothing was blocked. A person decides: peerwatch fraudwatch verdict records what it was.",
    ]
    return Section(
        "How to read this report", "Scores say unusual; only people say fraud.", [Note(texts)]
    )
