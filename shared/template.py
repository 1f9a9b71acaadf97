"""The configuration file that `peerwatch init` writes: the mapping, its reasons as comments."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import make_url

from shared.config import Customers, Transactions, domain_settings
from shared.errors import ConfigurationError
from shared.mapping import Guess, Proposal

if TYPE_CHECKING:
    pass

PASSWORD_VARIABLE = "DATABASE_PASSWORD"  # noqa: S105 - the name of an environment variable


SCHEDULE = {
    "segmenter.fit": "0 1 1 * *",
    "segmenter.score": "0 2 * * *",
    "fraudwatch.fit": "0 3 * * sun",
    "fraudwatch.score": "every 15 minutes",
    "fraudwatch.report": "0 6 * * *",
}


def without_password(url: str) -> tuple[str, bool]:
    """The URL as it may be written to a file, and whether a password was taken out of it.

    A password is replaced by ${DATABASE_PASSWORD}; what already is such a name is kept.
    """
    parsed = make_url(url)
    stand_in, hidden = "PEERWATCH0STAND0IN", False
    if parsed.password and not re.fullmatch(r"\$\{\w+\}", str(parsed.password)):
        parsed, hidden = parsed.set(password=stand_in), True
    for key, value in parsed.query.items():
        if "password" in key.lower() and not re.fullmatch(r"\$\{\w+\}", str(value)):
            parsed, hidden = parsed.update_query_dict({key: stand_in}), True
    if not hidden:
        return url, False
    shown = parsed.render_as_string(hide_password=False)
    return shown.replace(stand_in, f"${{{PASSWORD_VARIABLE}}}"), True


def to_toml(
    proposal: Proposal,
    url: str,
    *,
    timezone: str = "UTC",
    domains: Mapping[str, type] | None = None,
) -> str:
    """The whole peerwatch.toml; raises the proposal's refusals where it has any."""
    if proposal.refusals or proposal.transactions is None:
        raise ConfigurationError(proposal.refusals)
    lines = [
        "# The mapping that peerwatch init proposes. Each guess stands with its reason; correct",
        "# what is wrong. Lines behind # are defaults.",
        "",
        *_source(url, timezone),
        *_section(proposal, "source.transactions", proposal.transactions),
    ]
    if proposal.customers is not None:
        lines += _section(proposal, "source.customers", proposal.customers)
    lines += [
        "[results]  # the tables of peerwatch",
        '# url = ""  # of another database; beside the source unless said otherwise',
        '# schema = "peerwatch"  # where the database has schemas',
        '# prefix = ""  # of table names where it has none',
        "",
    ]
    for name, settings in (domain_settings() if domains is None else domains).items():
        lines += [f"[{name}]", *_defaults(settings), ""]
    lines += _schedule(proposal)
    return "\n".join(lines) + "\n"


def _source(url: str, timezone: str) -> list[str]:
    shown, hidden = without_password(url)
    said = [
        f"# The password is not written here: set the environment variable {PASSWORD_VARIABLE},",
        "# written as in a URL (@ as %40, / as %2F).",
    ]
    return [
        "[source]",
        *(said if hidden else []),
        f"url = {quoted(shown)}",
        f"timezone = {quoted(timezone)}  # zone of naive times, and of the calendar day",
        "",
    ]


def _section(proposal: Proposal, name: str, mapped: Transactions | Customers) -> list[str]:
    """One table of the mapping, each line after its reason."""
    guesses = [guess for guess in proposal.guesses if guess.key.rpartition(".")[0] == name]
    by_line = {(guess.key.rpartition(".")[2], guess.column): guess for guess in guesses}
    lines, missing = [f"[{name}]"], []
    for key in dataclasses.fields(mapped):
        value = getattr(mapped, key.name)
        if not value:
            missing.append(key.name)
        elif isinstance(value, tuple):
            notes = [_beside(by_line.get((key.name, item))) for item in value]
            items = [f"    {quoted(v)},{note}" for v, note in zip(value, notes, strict=True)]
            lines += [f"{key.name} = [", *items, "]"]
        else:
            lines += [
                *_above(by_line.get((key.name, value))),
                f"{key.name} = {quoted(value)}",
            ]
    lines += [f"# not found: {', '.join(missing)}"] if missing else []
    left = [item for item in proposal.left_out if item.table == mapped.table]
    lines += ["# left out:"] if left else []
    lines += [f"#   {_comment(item.column)}: {_comment(item.reason)}" for item in left]
    if isinstance(mapped, Transactions):
        chosen = {guess.choice for guess in proposal.guesses}
        remarks = [note for note in proposal.notes if note not in chosen]
        lines += [f"# note: {_comment(note)}" for note in remarks]
    return [*lines, ""]


def _above(guess: Guess | None) -> list[str]:
    if guess is None:
        return []
    lines = [f"# {_comment(guess.reason)}{_sampled(guess)}"]
    if guess.alternatives:
        others = ", ".join(_comment(name) for name in guess.alternatives)
        lines.append(f"# also possible, written here instead: {others}")
    return lines


def _beside(guess: Guess | None) -> str:
    return f"  # {_comment(guess.reason)}{_sampled(guess)}" if guess else ""


def _sampled(guess: Guess) -> str:
    shown = " | ".join(_comment(value) for value in guess.sample)
    return f"; e.g. {shown}" if shown else ""


def _comment(text: str) -> str:
    """The text as a comment may hold it: on one line, without control characters."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _defaults(settings: type) -> Iterable[str]:
    """A domain's settings behind #, so that a later default applies."""
    for setting in dataclasses.fields(settings):
        default = setting.default
        if setting.default_factory is not dataclasses.MISSING:
            default = setting.default_factory()
        shown = _shown_default(default)
        yield f"# {setting.name} = {shown}" if shown else f"# {setting.name} is not set"


def _shown_default(value: Any) -> str:
    if value is None or value is dataclasses.MISSING:
        return ""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown_default(item) for item in value) + "]"
    return "{}" if isinstance(value, dict) else str(value)


def _schedule(proposal: Proposal) -> list[str]:
    """Rules are no defaults: without them nothing runs. A segment needs a customer."""
    mapped = proposal.transactions
    lines = ['[schedule]  # UTC; five cron fields with weekday names, or "every 15 minutes"']
    for job, rule in SCHEDULE.items():
        idle = job.startswith("segmenter") and (mapped is None or mapped.customer is None)
        lines.append(f"{'# ' if idle else ''}{quoted(job)} = {quoted(rule)}")
    return lines


def quoted(text: str) -> str:
    """The text as a TOML basic string; JSON's differs only by DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
