"""Why a transaction is surprising: its surprise in nats by feature, in real units and plain words.

The contribution of a feature is the posterior-weighted -log p(x_j | z, c), see
`TransactionVAE.parts`; the line of no feature holds the rest of the bound, KL divergence and the
entropy of the weights. These lines sum to -log_likelihood. Lines that begin with `evidence.` and
`ranker.` stand outside the sum: what is known of the keys moves the score, the ranker the priority.

Reasons rank by what a line has above its median over the calibration rows, and evidence among
them by its nats. The line of no feature comes after them: the density tells an extreme value by an
extreme z, so it leads most of the alerts of any kind, and tells nobody what to look at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fraudwatch.features import FLOOR, NO, YES, Reference
from shared.encoding import CATEGORY, Feature

QUANTILES = (0.05, 0.95)  # of what is expected: nine in ten payments like it lie between
EXPECTED = QUANTILES[1] - QUANTILES[0]  # of the levels: the likeliest that hold as many together
TELLING = 0.15  # share of the surprise from which a reason enters the summary
SUSPECT = 0.05  # probability that a key is compromised from which the summary tells it
SLIGHT = 0.01  # share of the surprise below which a reason is not shown beside it
SUMMARY_REASONS = 3
COMMON = 0.2  # a level with this probability is named as expected
MISSING = "missing"  # how an empty level is told
LATENT_TEXT = "the combination of these values is unusual"
EVIDENCE, RANKER = "evidence.", "ranker."  # how the lines outside the sum begin
USUAL = math.log(2)  # nats: the calibrated surprise that half of the normal rows reach
RANKER_LINES = 3
LEAST_SHARE = 1e-7  # of the amount: after nothing at all the first in the search for a harmless one
COARSE = 16  # cells of its grid, of even ratios
ROUNDS, CUTS = 4, 7  # then one of them is cut, and one of its parts, and so on
AT_ONCE = 20_000  # changed rows: those of a slice whose every row is raised would fill memory


@dataclass(frozen=True)
class Surprise:
    """What the detector says of n rows, ready to be put into words.

    parts: (n, len(names)) nats. expected: (n, focal, 2) quantiles in real units, NaN for
    categories. levels: per category feature the (n, L) probabilities.
    """

    names: Sequence[str]
    focal: Sequence[Feature]
    parts: np.ndarray
    baseline: Mapping[str, float]
    expected: np.ndarray
    levels: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Suspicion:
    """What was known of n rows' keys of one kind, before each row; NaN where a row has no key.

    kind: customer, counterparty or the name of an entity. nats: what it adds to the score.
    posterior: probability that the key is compromised. confirmed, unusual: frauds known and
    unusual payments at the key, in the last `days`.
    """

    kind: str
    nats: np.ndarray
    posterior: np.ndarray
    confirmed: np.ndarray
    unusual: np.ndarray
    days: int


@dataclass(frozen=True)
class Beside:
    """What stands outside the sum, of n rows.

    density: (n,) the calibrated surprise of the density alone, in the nats of the suspicions.
    ranker: (n, k) contributions to the log odds of fraud by feature, without the constant.
    """

    density: np.ndarray
    suspicions: Sequence[Suspicion] = ()
    ranker: pd.DataFrame | None = None


@dataclass(frozen=True)
class _Scene:
    """What the lines of n rows are made of. scale, weights: see `_amount_scale`, `_weights`."""

    rows: pd.DataFrame
    frame: pd.DataFrame
    surprise: Surprise
    scale: np.ndarray
    weights: np.ndarray
    beside: Beside | None


@dataclass(frozen=True)
class _Words:
    """One reason of one row in words and real units."""

    value: str
    expected: str
    text: str
    unit: str
    value_number: float | None = None
    expected_low: float | None = None
    expected_high: float | None = None


@dataclass(frozen=True)
class _Line:
    """One reason of one row before it has a rank; weight: the nats by which it is ranked."""

    feature: str
    contribution: float
    baseline: float
    weight: float
    words: _Words


def explain(
    rows: pd.DataFrame,
    frame: pd.DataFrame,
    surprise: Surprise,
    reference: Reference,
    beside: Beside | None = None,
    turning: np.ndarray | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """(reasons, one summary sentence per row).

    rows: amount and currency where mapped; frame: features; both in the order of
    `surprise.parts`. turning: as `turning_point` gives it. Reasons have the columns of
    `fraud_alert_reasons`, with `row` (the position) in the place of the alert's id.
    """
    scale = _amount_scale(rows, reference)
    scene = _Scene(rows, frame, surprise, scale, _weights(frame, surprise, beside), beside)
    found, summaries = [], []
    for row, harmless in enumerate(_harmless(rows, turning)):
        lines = _ranked([*_of_features(scene, row), *_of_keys(scene, row)])
        shares = _shares(lines)
        summaries.append(_summary(lines, shares, harmless))
        lines = [*_told_once(lines, harmless), _of_latent(scene, row), *_of_ranker(scene, row)]
        shares += [0.0] * (len(lines) - len(shares))
        found += _records(row, lines, shares)
    return pd.DataFrame(found), summaries


def _records(row: int, lines: Sequence[_Line], shares: Sequence[float]) -> list[dict[str, object]]:
    """The rows of `fraud_alert_reasons`."""
    return [
        {
            "row": row,
            "rank": rank,
            "feature": line.feature,
            "contribution": line.contribution,
            "baseline": line.baseline,
            "share": share,
            **vars(line.words),
        }
        for rank, (line, share) in enumerate(zip(lines, shares, strict=True), start=1)
    ]


def _weights(frame: pd.DataFrame, surprise: Surprise, beside: Beside | None) -> np.ndarray:
    """(n, focal) nats by which the features are ranked: what each has above its median.

    A missing value has no part in the sum, so it speaks neither for an alert nor against. Beside
    evidence they are brought to its scale: together they are then worth the calibrated surprise
    of the density above its median, in which the line of no feature is contained.
    """
    medians = np.array([surprise.baseline[feature.name] for feature in surprise.focal])
    there = np.column_stack([frame[feature.name].notna() for feature in surprise.focal])
    excess = np.where(there, surprise.parts[:, : len(surprise.focal)] - medians, 0.0)
    if beside is None or not beside.suspicions:
        return excess
    above = np.maximum(excess, 0).sum(1)
    worth = np.maximum(beside.density - USUAL, 0)
    return excess * np.where(above > 0, worth / np.maximum(above, 1e-12), 1.0)[:, None]


def _ranked(lines: Sequence[_Line]) -> list[_Line]:
    """By weight; of equal weights by what is above the median."""
    return sorted(lines, key=lambda line: (-line.weight, line.baseline - line.contribution))


def _shares(lines: Sequence[_Line]) -> list[float]:
    """Of what speaks for an alert."""
    total = sum(max(line.weight, 0.0) for line in lines)
    return [max(line.weight, 0.0) / max(total, 1e-12) for line in lines]


# --- the amount that would have been harmless -----------------------------------------------------


def turning_point(
    frame: pd.DataFrame,
    score: Callable[[pd.DataFrame, np.ndarray], np.ndarray],
    level: float,
) -> np.ndarray:
    """(n, 2) shares of its amount between which a row would stay under the level.

    frame: features, those of the amount in proportion to it. score: the anomaly scores of changed
    rows, and which of these rows each of them is, all else as it is. The second share is where the
    row begins to be raised, the first the least of a grid from which on all up to it are under the
    level: 0 where every smaller amount is. NaN where the row is under the level as it is, or no
    share is.
    """

    def calm_at(shares: np.ndarray) -> np.ndarray:
        """(n, s) whether each row stays under the level at each of its shares (n, s)."""
        places = np.repeat(np.arange(len(frame)), shares.shape[1])
        found = []
        for start in range(0, max(len(places), 1), AT_ONCE):
            block = slice(start, start + AT_ONCE)
            same = frame.iloc[places[block]].reset_index(drop=True)
            found.append(score(_scaled(same, shares.ravel()[block]), places[block]))
        return (np.concatenate(found) < level).reshape(shares.shape)

    grid = np.append(0.0, np.geomspace(LEAST_SHARE, 1.0, COARSE + 1))
    calm = calm_at(np.tile(grid, (len(frame), 1)))
    there = calm.any(1) & ~calm[:, -1]
    at = np.arange(len(grid))
    top = np.where(there, np.where(calm, at, 0).max(1), 0)  # the last calm one
    least = np.where(~calm & (at < top[:, None]), at, -1).max(1) + 1
    ends = np.column_stack([grid[top], grid[np.minimum(top + 1, len(grid) - 1)]])
    for _ in range(ROUNDS):
        cuts = np.geomspace(np.maximum(ends[:, 0], LEAST_SHARE / 10), ends[:, 1], CUTS + 2, axis=1)
        bounds = np.column_stack([ends[:, :1], cuts[:, 1:-1], ends[:, 1:]])
        first = np.argmin(np.pad(calm_at(bounds[:, 1:-1]), ((0, 0), (0, 1))), axis=1)  # raised
        ends = np.take_along_axis(bounds, np.column_stack([first, first + 1]), axis=1)
    return np.where(there[:, None], np.column_stack([grid[least], ends[:, 0]]), np.nan)


def _scaled(frame: pd.DataFrame, share: np.ndarray) -> pd.DataFrame:
    """The features with this share of each row's amount."""
    return frame.assign(**{name: frame[name] * share for name in _AMOUNTS if name in frame})


def _harmless(rows: pd.DataFrame, turning: np.ndarray | None) -> list[str]:
    """Per row "below 310 EUR", "below 310 EUR, down to 0.50" where less would have been raised too.

    Of a negative amount "above -310 EUR"; empty where there is none.
    """
    if turning is None or "amount" not in rows:
        return [""] * len(rows)
    least, most = (turning * rows.amount.abs().to_numpy(np.float64)[:, None]).T
    told = zip(least, most, rows.amount < 0, rows.currency, strict=True)
    return [
        _span(low, high, out, currency) if high >= 0.01 else "" for low, high, out, currency in told
    ]


def _span(least: float, most: float, out: bool, currency: str) -> str:
    """The harmless amounts in words; out: they are negative."""
    least, most = _rounded(least, math.ceil), _rounded(most, math.floor)
    side, end, sign = ("above", "up", -1.0) if out else ("below", "down", 1.0)
    told = f"{side} {about(sign * most)} {currency}".strip()
    return f"{told}, {end} to {about(sign * least)}" if least else told


def _rounded(value: float, rounding: Callable[[float], int]) -> float:
    """To what is said of it: three figures, whole from ten on, cents below."""
    if value <= 0:
        return 0.0
    step = 10.0 ** max(math.floor(math.log10(value)) - 2, 0 if value >= 10 else -2)
    return rounding(value / step) * step


def _told_once(lines: Sequence[_Line], harmless: str) -> list[_Line]:
    """The lines, of which the first of an amount says which amount would have been harmless."""
    first = next((at for at, line in enumerate(lines) if line.feature in _AMOUNTS), None)
    if first is None or not harmless:
        return list(lines)
    words = lines[first].words
    words = replace(words, text=f"{words.text}; it would not have been raised {harmless}")
    return [*lines[:first], replace(lines[first], words=words), *lines[first + 1 :]]


# --- lines ----------------------------------------------------------------------------------------


def _amount_scale(rows: pd.DataFrame, reference: Reference) -> np.ndarray:
    """(n,) the typical amount of each row's currency; 1 where no amount is mapped."""
    return reference.typical(rows.currency) if "currency" in rows else np.ones(len(rows))


def _of_features(scene: _Scene, row: int) -> list[_Line]:
    surprise = scene.surprise
    return [
        _Line(
            feature.name,
            float(surprise.parts[row, at]),
            float(surprise.baseline[feature.name]),
            float(scene.weights[row, at]),
            _words(scene, at, row),
        )
        for at, feature in enumerate(surprise.focal)
    ]


def _of_latent(scene: _Scene, row: int) -> _Line:
    """The line of no feature."""
    name = scene.surprise.names[-1]
    found, usual = float(scene.surprise.parts[row, -1]), float(scene.surprise.baseline[name])
    return _Line(name, found, usual, 0.0, _Words("", "", LATENT_TEXT, ""))


def _of_keys(scene: _Scene, row: int) -> list[_Line]:
    """The lines of evidence: one per kind of key that the row has."""
    suspicions = () if scene.beside is None else scene.beside.suspicions
    lines = []
    for suspicion in suspicions:
        nats, posterior = float(suspicion.nats[row]), float(suspicion.posterior[row])
        if not math.isnan(nats):
            likely, seen = f"{chances(posterior)} likely", _seen(suspicion, row)
            who = suspicion.kind.replace("_", " ").removesuffix(" id")
            text = f"this {who} {f'had {seen} and ' if seen else ''}is {likely} to be compromised"
            value = f"{likely} compromised{f', {seen}' if seen else ''}"
            words = _Words(value, "", text, "probability", posterior)
            lines.append(_Line(f"{EVIDENCE}{suspicion.kind}", nats, 0.0, nats, words))
    return lines


def _seen(suspicion: Suspicion, row: int) -> str:
    """What was seen at the key; empty where nothing was."""
    counts = {
        "confirmed fraud": int(suspicion.confirmed[row]),
        "unusual payment": int(suspicion.unusual[row]),
    }
    told = [f"{n:,} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n > 0]
    return f"{' and '.join(told)} in {suspicion.days} days" if told else ""


def _of_ranker(scene: _Scene, row: int) -> list[_Line]:
    """What moved the priority most, whichever way."""
    if scene.beside is None or scene.beside.ranker is None:
        return []
    nats = scene.beside.ranker.iloc[row].astype(float)
    most = nats[nats.abs().sort_values(ascending=False, kind="stable").index[:RANKER_LINES]]
    return [
        _Line(f"{RANKER}{name}", value, 0.0, value, _Words("", "", _moved(str(name), value), ""))
        for name, value in most.items()
    ]


def _moved(name: str, nats: float) -> str:
    verb = "raises" if nats > 0 else "lowers"
    return f"{name.replace('_', ' ').replace('.', ' ')} {verb} the priority"


def _words(scene: _Scene, at: int, row: int) -> _Words:
    rows, frame, feature = scene.rows, scene.frame, scene.surprise.focal[at]
    if feature.kind == CATEGORY:
        return _category(feature, str(frame[feature.name].iloc[row]), scene.surprise, row)
    value = float(frame[feature.name].iloc[row])
    low, high = (float(edge) for edge in scene.surprise.expected[row, at])
    if math.isnan(value):
        return _Words("unknown", "", f"{feature.description} is not known", feature.unit)
    if feature.name in _AMOUNTS:
        typical = float(scene.scale[row]) * _AMOUNTS[feature.name](frame, row)
        amount, currency = float(rows.amount.iloc[row]), str(rows.currency.iloc[row])
        return _amount(feature, amount, low * typical, high * typical, currency)
    return _number(feature, value, low, high)


def _own_amount(frame: pd.DataFrame, row: int) -> float:
    """What `amount_ratio` is a multiple of, in typical amounts."""
    return float(frame["own_amount_median"].iloc[row]) / 100 + FLOOR


_AMOUNTS: dict[str, Callable[[pd.DataFrame, int], float]] = {
    "amount_ratio": _own_amount,
    "amount_relative": lambda _frame, _row: 1.0,
}


def _amount(feature: Feature, amount: float, low: float, high: float, currency: str) -> _Words:
    """The amount as the row has it; low and high are of its size, whatever its sign.

    A Gaussian's lower quantile may be negative, an amount's size is not.
    """
    low, high = max(low, 0.0), max(high, 0.0)
    own = feature.name == "amount_ratio"
    whom = "this customer spends" if own else "customers like this one spend"
    if amount < 0:  # money back in one source, money out in another
        low, high = 0.0 - high, 0.0 - low
        whom = "for this customer" if own else "for customers like this one"
    span = f"{about(low)} to {about(high)}"
    usual = f"{whom} {span}" if amount >= 0 else f"{span} is usual {whom}"
    text = f"{money(amount)} {currency}".strip() + f", where {usual}"
    return _Words(money(amount), span, text, currency, amount, low, high)


def _number(feature: Feature, value: float, low: float, high: float) -> _Words:
    span = plain(low) if plain(low) == plain(high) else f"{plain(low)} to {plain(high)}"
    text = f"{feature.description}: {plain(value)}, usually {span}"
    return _Words(plain(value), span, text, feature.unit, value, low, high)


def _category(feature: Feature, level: str, surprise: Surprise, row: int) -> _Words:
    """The common levels, and the row's own where the likelier ones hold less than nine in ten."""
    table = surprise.levels[feature.name]
    pairs = zip(table.columns, table.to_numpy()[row].tolist(), strict=True)
    chance = dict(sorted(pairs, key=lambda pair: -pair[1]))
    own = chance.get(level, 0.0)
    within = sum(p for p in chance.values() if p > own) < EXPECTED
    common = [name for name, p in chance.items() if p >= COMMON or (within and name == level)]
    named = dict.fromkeys([next(iter(chance)), *common])
    expected = ", ".join(f"{name or MISSING} ({chances(chance[name])})" for name in named)
    shown, rare = level or MISSING, f" ({chances(own)})" if level in chance and not within else ""
    return _Words(shown, expected, _category_text(feature, shown, rare, expected), "")


_NOVELTY = {
    YES: "a {} this customer has not used before",
    NO: "a {} this customer has used before",
}


def _category_text(feature: Feature, level: str, rare: str, expected: str) -> str:
    name = feature.name
    if feature.description.startswith("whether "):  # a novelty: yes, no, or nobody to compare with
        what = name.removeprefix("new_").rstrip("_").replace("_", " ")
        return _NOVELTY.get(level, "a {} of a customer who is not known").format(what)
    if name == "time_of_day":
        begin, end = level.split("-")
        return f"between {begin}:00 and {end}:00{rare}, expected {expected}"
    return f"{name.replace('_', ' ')} {level}{rare}, expected {expected}"


def _summary(lines: Sequence[_Line], shares: Sequence[float], harmless: str) -> str:
    """The most telling reasons as one sentence: at least one, and the amount only once.

    What lies within its expected range is no reason to a reader, unless there is no other. An
    amount outside of it is told, whatever its share: an extreme one pulls the expectation of the
    other features along and leaves them the blame.
    """
    odd = [(line, share) for line, share in zip(lines, shares, strict=True) if not _usual(line)]
    told: list[_Line] = []
    for line, share in odd or [(next(filter(_of_feature, lines), lines[0]), 1.0)]:
        again = line.feature in _AMOUNTS and any(one.feature in _AMOUNTS for one in told)
        if not told or (share >= TELLING and not again):
            told.append(line)
    told = told[:SUMMARY_REASONS]
    amounts = [line for line, _ in odd if line.feature in _AMOUNTS]
    if amounts and not any(line.feature in _AMOUNTS for line in told):
        told = [*told[: SUMMARY_REASONS - 1], amounts[0]]
    sentence = "; ".join(line.words.text for line in told)
    without = f" It would not have been raised {harmless}." if harmless else ""
    return f"{sentence[:1].upper()}{sentence[1:]}.{without}"


def _of_feature(line: _Line) -> bool:
    return not line.feature.startswith(EVIDENCE)


def _usual(line: _Line) -> bool:
    """Whether a reason is none to a reader: as expected, or a key that is hardly suspected."""
    words = line.words
    if not _of_feature(line):
        return words.value_number is not None and words.value_number < SUSPECT
    return as_expected(
        words.value, words.expected, words.value_number, words.expected_low, words.expected_high
    )


def as_expected(
    value: str, expected: str, number: float | None, low: float | None, high: float | None
) -> bool:
    """Whether a reason's value is what was expected: within the range, or a level named there."""
    if number is None or low is None or high is None or math.isnan(low + high):
        levels = [named.rpartition(" (")[0] for named in f"{expected}".split("%), ")]
        return bool(expected) and value in levels
    return low <= number <= high


def chances(probability: float) -> str:
    """A probability as people read it: never certain.

    >>> chances(0.824), chances(0.9999), chances(0.0)
    ('82%', 'over 99%', 'under 1%')
    """
    if probability < 0.005:
        return "under 1%"
    return "over 99%" if probability >= 0.995 else f"{probability:.0%}"


def about(value: float) -> str:
    """The edge of an expected range: whole from ten on, for it is an estimate."""
    return f"{value:,.0f}" if abs(value) >= 10 else f"{round(value, 2) + 0.0:,.2f}"


def money(value: float) -> str:
    """An amount as people read it: cents only below a thousand."""
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def plain(value: float) -> str:
    """A number as people read it: three significant figures, whole numbers whole."""
    if math.isfinite(value) and value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:,.3g}"
