"""What may be shown: card and account numbers masked, invisible characters gone.

Thirteen digits or more, also in groups, keep the first six and the last four (PCI DSS 4.0.1,
3.4.1). `masked` is for a text of a report, `guarded` for a message on a terminal or in a log. Keys
in the result tables stay as they are: they are there to be joined on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

TEXT_LENGTH = 600  # characters of one sentence or note
LONGEST_CARD = 19  # digits (ISO/IEC 7812)

# Our own ids, full UUIDs and digests (32, 40, 64 hex digits) may hold long runs of digits by
# chance; anything else with 13 or more digits reads as a card or account number.
_DIGIT_GAP = r"[\s\-‐-―_]?"
_ACCOUNT_LIKE = re.compile(
    r"(?P<ours>\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|\b(?:alert|case|verdict)-(?=[0-9a-f]*[a-f])[0-9a-f]{20}\b"
    r"|\b(?=[0-9a-f]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32})\b)"
    rf"|(?<!\d)\d(?:{_DIGIT_GAP}\d){{12,}}(?!\d)"
)
_INVISIBLE = frozenset({"Cc", "Cf", "Cs"})  # controls, directional marks, lone surrogates


def masked(text: object, limit: int = TEXT_LENGTH) -> str:
    """`text` fit to be shown on one line, cut to `limit` characters.

    >>> masked("card 4111 1111 1111 1111, till 7")
    'card 411111******1111, till 7'
    """
    # Before masking: an invisible character must not split a number, nor a cut shorten one.
    shown = _ACCOUNT_LIKE.sub(_mask_digits, _on_one_line(str(text)))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def guarded(message: str) -> str:
    """A message as it may be said: its lines stay; figures are no account numbers.

    >>> guarded("4111111111111111 refused\\x1b[2J: 0.1234567890123456 nats")
    '411111******1111 refused[2J: 0.1234567890123456 nats'
    """
    lines = (_on_one_line(line) for line in message.split("\n"))
    return "\n".join(_ACCOUNT_LIKE.sub(_mask_said, line) for line in lines)


def guarded_data(value: Any) -> Any:
    """Data for programs with its texts guarded, and whole numbers that are card numbers masked."""
    if isinstance(value, Mapping):
        return {guarded(str(key)): guarded_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [guarded_data(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and _is_card(str(value)):
        return guarded(str(value))
    return guarded(value) if isinstance(value, str) else value


def _on_one_line(raw: str) -> str:
    return raw if raw.isprintable() else "".join(map(_visible, raw))


def _visible(character: str) -> str:
    if character in "\t\n\r":
        return " "
    return "" if unicodedata.category(character) in _INVISIBLE else character


def _mask_digits(match: re.Match[str]) -> str:
    if match["ours"]:
        return match[0]
    digits = [character for character in match[0] if character.isdigit()]
    return "".join(digits[:6]) + "*" * (len(digits) - 10) + "".join(digits[-4:])


def _mask_said(match: re.Match[str]) -> str:
    """Of digits in groups only those of a card are masked: dates and counts stand side by side."""
    fraction = re.search(r"\d\.$", match.string[: match.start()])
    grouped = not match[0].isdigit()
    if fraction or (grouped and not _is_card(re.sub(r"\D", "", match[0]))):
        return match[0]
    return _mask_digits(match)


def _is_card(digits: str) -> bool:
    """Whether the check digit is right (Luhn) and the length that of a card's number."""
    if not digits.isdecimal() or not 13 <= len(digits) <= LONGEST_CARD:
        return False
    doubled = [int(d) * (1 + place % 2) for place, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
