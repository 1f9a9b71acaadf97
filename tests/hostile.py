"""A bank whose every name and text means harm, and card numbers where keys should be."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from shared.cli import main
from tests.builders import ask, make_table, run_sql
from tests.small_bank import transactions

CANARY = "c4n4ry-s3cret"
TABLE = 'pay"ments; DROP TABLE bystander; --'
NAMES = {
    "id": "select",
    "time": "when '; --",
    "customer": "o'wner",
    "amount": "a mount %s :x",
    "currency": "währung\u202e",
    "counterparty": "from",
    "category": "chan/*nel*/",
    "number": "k\\m $1 ?",
    "label": "Fraud",
}
TYPES = dict.fromkeys(NAMES, "TEXT") | {
    "time": "TIMESTAMP",
    "amount": "NUMERIC(14, 2)",
    "number": "DOUBLE PRECISION",
    "label": "INTEGER",
}
TEXTS = (
    "'); DROP TABLE bystander; --",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '=HYPERLINK("http://evil.example";"x")',
    "+1-1",
    "@SUM(A1)",
    "a\r\nBcc: all@example.com",
    "line\n2026-01-01 00:00:00 fraudwatch.score succeeded",
    "\x1b[2J\x1b[31mred",
    "\u202egnp.exe",
    "zero\u200bwidth\ufeff",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "%s %(x)s :name $1 ?",
    "ｆｕｌｌ　ｗｉｄｔｈ",
    "x" * 20_000,
)
CONTROLS = frozenset({chr(code) for code in (*range(32), 127)} - {"\n"} | set("\u202e\u200b\ufeff"))


def card_number(place: int) -> str:
    """A number of sixteen digits whose check digit is right (Luhn)."""
    digits = f"411111{place:09}"
    doubled = (int(d) * (2 - i % 2) for i, d in enumerate(digits))
    return f"{digits}{-sum(d - 9 if d > 9 else d for d in doubled) % 10}"


def rows() -> Iterator[dict[str, Any]]:
    """The small bank's payments; planted frauds have card numbers as ids and hostile merchants."""
    for place, row in enumerate(transactions()):
        planted, cust = row["fraud"], row["cust"]
        shop = TEXTS[place % len(TEXTS)] if planted or place % 5 == 0 else f"shop {place % 9}"
        owner = f"c{cust}" if cust and cust > 30 else card_number(10**6 + (cust or 0))
        yield {
            NAMES["id"]: card_number(place) if planted else f"t{place}",
            NAMES["time"]: row["ts"],
            NAMES["customer"]: owner if cust else None,
            NAMES["amount"]: row["amt"],
            NAMES["currency"]: "EUR",
            NAMES["counterparty"]: card_number(2 * 10**6) if place % 7 == 0 else shop,
            NAMES["category"]: TEXTS[1] if row["channel"] == "web" else TEXTS[3],
            NAMES["number"]: row["km"],
            NAMES["label"]: row["fraud"],
        }


CARDS = {
    str(value)
    for row in rows()
    for value in row.values()
    if isinstance(value, str) and value.startswith("411111")
}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


@dataclass
class World:
    """A folder with a configuration, and what each command said in it."""

    url: str
    folder: Path
    said: dict[str, Said] = field(default_factory=dict)
    dialled: list[str] = field(default_factory=list)  # connections that were tried

    def type(self, *words: str) -> Said:
        """A command, as a person types it in the folder; what it said is kept."""
        self.said[" ".join(words)] = self.attempt(*words)
        return self.said[" ".join(words)]

    def attempt(self, *words: str) -> Said:
        """A command whose words are kept nowhere."""
        out, err = StringIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch, chdir(self.folder):
            patch.setattr(sys, "argv", ["peerwatch", *words])
            patch.delenv("PEERWATCH_CONFIG", raising=False)
            with redirect_stdout(out), redirect_stderr(err):
                code = main()
        return Said(code, out.getvalue(), err.getvalue())

    def ask(self, statement: str) -> list[tuple]:
        """The answer of our tables; `#` stands before their names."""
        return ask(self.url, statement.replace("#", "" if "sqlite" in self.url else "peerwatch."))


def configuration(url: str) -> str:
    mapped = {
        "table": TABLE,
        **{k: NAMES[k] for k in ("id", "time", "customer", "amount", "currency", "counterparty")},
        "categories": [NAMES["category"]],
        "numbers": [NAMES["number"]],
        "label": NAMES["label"],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in mapped.items()]
    return "\n".join(
        [
            "[source]",
            f"url = {json.dumps(url)}",
            "[source.transactions]",
            *lines,
            "[fraudwatch]",
            "calibration_days = 14",
            "reviews_per_day = 2",
            "label_delay_days = 0",
            "[schedule]",
            '"fraudwatch.score" = "every 15 minutes"',
            "",
        ]
    )


def a_hostile_bank(url: str, folder: Path) -> World:
    """The bank, its configuration and a table that harm would drop."""
    types = {NAMES[key]: kind for key, kind in TYPES.items()}
    make_table(url, TABLE, types, rows())
    run_sql(url, "CREATE TABLE bystander (x INTEGER)")
    (folder / "peerwatch.toml").write_text(configuration(url), encoding="utf-8")
    return World(url, folder)
