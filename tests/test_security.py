"""What a hostile bank, a hostile file and a careless secret cannot do."""

from __future__ import annotations

import csv
import json
import re
import socket
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from scipy.spatial import cKDTree
from sqlalchemy import event
from sqlalchemy.engine import Engine

from fraudwatch import features
from fraudwatch.model import TransactionVAE
from segmenter.model import SegmentMixture
from shared import artifacts, database, encoding, frames
from shared.encoding import Encoder, Feature
from tests.builders import a_transaction, ask, run_sql, toml
from tests.conftest import new_database
from tests.hostile import (
    CANARY,
    CARDS,
    CONTROLS,
    NAMES,
    TABLE,
    TEXTS,
    World,
    a_hostile_bank,
    card_number,
    configuration,
)
from tests.pages import Page, faults_of
from tests.small_bank import (
    END,
    FITTED,
    SCOPE,
    Bank,
    a_bank_of,
    few_fits,
    few_steps,
    moment_of,
    transactions,
)
from tests.test_bad_input import peerwatch, refused
from tests.test_documentation import COMMANDS

__all__ = ["peerwatch"]
REPORTS = ("fraudwatch_report.html", "segmenter_report.html")
FIRST_FRAUD = next(i for i, row in enumerate(transactions()) if row["fraud"])
LAST_FRAUD = max(i for i, row in enumerate(transactions()) if row["fraud"])


UNKNOWN = card_number(9 * 10**6)
RENAMED = f"<script>x</script> {card_number(8 * 10**6)}"
# Commands that are refused for what was typed, which is a card number or a trick.
REFUSED = (
    ("fraudwatch", "explain", UNKNOWN),
    ("fraudwatch", "explain", f"{UNKNOWN}\x1b[2J"),
    ("fraudwatch", "verdict", "--transaction", UNKNOWN, "confirmed_fraud", "--by", "ana"),
    ("fraudwatch", "verdict", "--csv", "unknown.csv", "--by", "ana"),
    ("fraudwatch", "verdict", UNKNOWN, "confirmed_fraud", "--by", "ana"),
    ("fraudwatch", "score", "--until", UNKNOWN),
    ("models", "show", UNKNOWN),
)
TYPED = {*CARDS, UNKNOWN, card_number(8 * 10**6)}


def everything(world: World) -> None:
    """Every command but the demo's, each of which must succeed; and some that must not."""
    (world.folder / "unknown.csv").write_text(f"transaction_id,verdict\n{UNKNOWN},in_review\n")
    world.type("init", "--url", world.url)
    world.type("doctor")
    world.type("migrate")
    world.type("migrate", "--sql")
    with few_steps(), few_fits():
        world.type("segmenter", "fit")
        world.type("fraudwatch", "fit", "--until", f"{FITTED:%Y-%m-%d}")
        world.type("fraudwatch", "score")
        world.type("fraudwatch", "evaluate")
        world.type("fraudwatch", "recalibrate", "--until", f"{END:%Y-%m-%d}")
    world.type("segmenter", "score")
    for domain in ("fraudwatch", "segmenter"):
        for command in ("report", "sample"):
            world.type(domain, command)
    world.type("segmenter", "evaluate")
    fraud = card_number(LAST_FRAUD)
    world.type("fraudwatch", "explain", fraud)
    alerts = world.ask("SELECT alert_id FROM #fraud_alerts ORDER BY alert_id")
    world.type("fraudwatch", "verdict", alerts[0][0], "false_positive", "--by", "ana")
    world.type("fraudwatch", "verdict", "--transaction", fraud, "confirmed_fraud", "--by", "ana",
               "--note", f"card {fraud}")  # fmt: skip
    (world.folder / "sheet.csv").write_text(f"transaction_id,verdict\n{fraud},in_review\n")
    world.type("fraudwatch", "verdict", "--csv", "sheet.csv", "--by", "ana")
    (segment,) = world.ask("SELECT min(segment_id) FROM #segments")[0]
    world.type("segmenter", "rename", str(segment), RENAMED, "--by", "ana")
    world.type("segmenter", "report")
    world.type("models", "list")
    for (model,) in world.ask("SELECT model_version_id FROM #model_versions ORDER BY created_at"):
        world.type("models", "show", model)
        world.type("models", "promote", model, "--by", "ana")
    world.type("models", "rollback", "fraudwatch", "--by", "ana")
    span = ("--from", "2026-02-01", "--to", "2026-03-01")
    world.type("backfill", "fraudwatch", *span)
    world.type("backfill", "segmenter", *span, "--every", "month")
    others = (("runs",), ("verify",), ("health",), ("schedule", "--once", "--dry-run"))
    for words in (*REFUSED, *others):
        world.type(*words)
    if "postgresql" in world.url:
        world.type("grants", "--reader", "eve", "--writer", "wim")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """The hostile bank after every command; nothing in it is changed by a test."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "bank.db").touch()
    url = f"sqlite:///{folder / 'bank.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_copy")
    made = a_hostile_bank(url, folder)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "sqlite":
            cut_off(patch, made.dialled)
        everything(made)
    yield made


def cut_off(patch: pytest.MonkeyPatch, dialled: list[str]) -> None:
    """No socket connects, and each that tries is noted."""

    def refuse(*arguments: object) -> None:
        dialled.append(str(arguments))
        raise OSError("there is no network")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        patch.setattr(socket.socket, name, refuse)
    patch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def postgresql_copy(postgresql_server: str) -> Iterator[str]:
    """A database of this file's own; the shared one is emptied by other tests."""
    with new_database(postgresql_server) as url:
        yield url


# --- hostile names and texts ----------------------------------------------------------------------


def test_every_command_works_on_hostile_names_and_texts(world):
    refused = {" ".join(words) for words in REFUSED}

    failed = {
        words: said
        for words, said in world.said.items()
        if said.code != 0 and words not in refused and words != "health"
    }

    assert failed == {}
    assert all("Traceback" not in said.all for said in world.said.values())


def test_every_command_of_the_program_was_typed(world):
    typed = {name for name in COMMANDS if any(f"{w} ".startswith(f"{name} ") for w in world.said)}

    missing = {"demo"} | ({"grants"} if "sqlite" in world.url else set())
    assert typed == set(COMMANDS) - missing


def test_no_name_and_no_text_was_ever_a_statement(world):
    scoped = sum(moment_of(row) >= SCOPE for row in transactions())
    (scored,) = world.ask("SELECT count(*) FROM #current_transaction_scores")[0]

    assert ask(world.url, "SELECT count(*) FROM bystander") == [(0,)]
    assert scored >= scoped
    assert world.ask("SELECT count(*) FROM #quarantined_rows") == [(0,)]
    kept = {row[0] for row in world.ask("SELECT counterparty_id FROM #fraud_alerts")}
    assert kept & set(TEXTS), "texts are stored as they are"


def test_reports_show_hostile_texts_and_run_none(world):
    shown = ""
    for name in REPORTS:
        html = (world.folder / name).read_text(encoding="utf-8")
        page = Page(html)
        policies = [
            attributes["content"]
            for _, attributes in page.elements
            if attributes.get("http-equiv") == "Content-Security-Policy"
        ]
        assert faults_of(html) == []
        assert len(policies) == 1 and policies[0].startswith("default-src 'none'; ")
        assert "script-src" not in policies[0] and "http" not in policies[0]
        assert len(html) < 2_000_000
        shown += page.text
    assert "<script>alert(1)</script>" in shown, "harmless as text"


def test_samples_hold_no_formula(world):
    found = []
    for name in ("fraudwatch_sample.csv", "segmenter_sample.csv"):
        with (world.folder / name).open(encoding="utf-8", newline="") as file:
            found += [cell for row in csv.reader(file) for cell in row]

    texts = [cell for cell in found if not re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", cell)]
    assert any(cell.startswith("'=HYPERLINK") for cell in texts), "drawn, and made harmless"
    assert not [cell for cell in texts if cell.startswith(tuple("=+-@\t\r\n"))]
    assert any(cell.startswith("-") for cell in found), "negative numbers stay numbers"


def test_only_known_tables_are_named_in_statements_and_each_is_one(world):
    """The parts of a name that look like SQL stay within its quotes."""
    seen: list[str] = []

    def watch(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", watch)
    try:
        assert world.attempt("fraudwatch", "score").code == 0
        assert world.attempt("doctor").code == 0
    finally:
        event.remove(Engine, "before_cursor_execute", watch)

    bare = [re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$", "", s) for s in seen]
    assert len(bare) > 20
    assert not [s for s in bare if ";" in s.rstrip("; \n") or "--" in s or "DROP TABLE by" in s]


# --- card numbers and control characters ----------------------------------------------------------


def test_no_card_number_is_said_by_any_command(world):
    leaked = {
        words: card
        for words, said in world.said.items()
        for card in TYPED
        if card in said.all.replace(" ", "")
    }

    assert leaked == {}
    told = [said.all for said in world.said.values() if f"411111******{UNKNOWN[-4:]}" in said.all]
    assert len(told) > 3, "said, and masked"


def test_what_is_refused_is_one_message(world):
    said = {words: world.said[" ".join(words)] for words in REFUSED}

    assert {words for words, one in said.items() if one.code not in (1, 2)} == set()
    assert not [one for one in said.values() if one.out or "unforeseen" in one.err]


def test_no_card_number_is_in_reports_errors_or_masked_values(world):
    texts = [(world.folder / name).read_text(encoding="utf-8") for name in REPORTS]
    texts += [str(row) for row in world.ask("SELECT error, note FROM #pipeline_runs")]
    texts += [str(row) for row in world.ask("SELECT masked_value FROM #quarantined_rows")]

    assert not [card for card in CARDS for text in texts if card in text]
    assert "411111******" in texts[0]


def test_json_for_programs_is_masked_as_well(world):
    said = world.attempt("fraudwatch", "explain", card_number(LAST_FRAUD), "--json")

    assert not [card for card in CARDS if card in said.all]
    assert json.loads(said.out)["transaction_id"] == f"411111******{card_number(LAST_FRAUD)[-4:]}"


def test_no_command_lets_a_text_move_the_cursor_or_forge_a_line(world):
    moved = {w: s for w, s in world.said.items() if CONTROLS & set(s.all) and w != "migrate --sql"}
    lines = [line for s in world.said.values() for line in s.all.splitlines()]

    assert moved == {}
    assert not [line for line in lines if line.startswith(("2026-01-01 00:00:00 fraud", "Bcc:"))]


# --- secrets, and card numbers in failures --------------------------------------------------------

HIDDEN = f"postgresql+psycopg://ana:{CANARY}@127.0.0.1:1/bank?sslpassword={CANARY}"
FAILING = (
    ("init", "--url", HIDDEN),
    ("init", "--url", HIDDEN, "--no-create"),
    ("doctor",),
    ("migrate",),
    ("migrate", "--sql"),
    ("fraudwatch", "fit"),
    ("fraudwatch", "score"),
    ("segmenter", "fit"),
    ("runs",),
    ("models", "list"),
    ("verify",),
    ("health",),
    ("grants", "--reader", "eve"),
)


@pytest.mark.parametrize("words", FAILING, ids=" ".join)
@pytest.mark.parametrize("more", [(), ("--json",), ("--quiet",)], ids=["", "json", "quiet"])
def test_a_password_is_in_no_message_of_a_failure(peerwatch, words, more):
    if words[0] != "init":
        Path("peerwatch.toml").write_text(toml(HIDDEN, f'[results]\nurl = "{HIDDEN}"'))

    said = peerwatch(*words, *more)

    assert said.code != 0
    assert CANARY not in said.out + said.err


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://ana:{CANARY}@host:port/bank",
        f"nosuch://ana:{CANARY}@host/bank",
        f"postgresql+nosuch://ana:{CANARY}@host/bank",
        f"ana:{CANARY}@host",
    ],
)
def test_a_url_that_cannot_be_used_is_not_repeated(peerwatch, url):
    said = peerwatch("init", "--url", url)
    Path("peerwatch.toml").write_text(toml(url, "[fraudwatch]\nno_such_key = 1"))
    again = peerwatch("doctor")

    assert (said.code, again.code) == (2, 2)
    assert CANARY not in said.err + again.err


def test_a_role_that_is_not_let_in_is_told_without_its_password(peerwatch, postgresql_url):
    url = sa.make_url(postgresql_url).set(username="nobody", password=CANARY)
    Path("peerwatch.toml").write_text(toml(url.render_as_string(False)))

    for words in (("doctor",), ("fraudwatch", "score"), ("runs",)):
        said = peerwatch(*words)
        assert said.code != 0 and "nobody" in said.out + said.err
        assert CANARY not in said.out + said.err


def test_the_password_of_init_is_in_no_file(peerwatch, postgresql_url):
    a_bank_of(postgresql_url, transactions()[:200])
    url = sa.make_url(postgresql_url).set(password=CANARY).render_as_string(False)

    said = peerwatch("init", "--url", url)

    assert said.code == 0, said.err
    assert CANARY not in said.out + said.err
    assert CANARY not in Path("peerwatch.toml").read_text()
    rows = ask(postgresql_url, "SELECT * FROM peerwatch.settings")
    assert not [row for row in rows if CANARY in str(row)]


BAD = {
    "dropped": ('ALTER TABLE {0} DROP COLUMN "{1}"', 2),
    "bad rows": ("UPDATE {0} SET {2} = 'none of your business' || {3}", 4),
    "gone": ("DROP TABLE {0}", 2),
}


@pytest.mark.parametrize("fault", BAD)
def test_failures_name_no_card_number(peerwatch, sqlite_url, tmp_path, fault):
    world = a_hostile_bank(sqlite_url, tmp_path)
    world.type("init", "--url", sqlite_url)
    names = {key: '"' + name.replace('"', '""') + '"' for key, name in NAMES.items()}
    statement, code = BAD[fault]
    table = '"' + TABLE.replace('"', '""') + '"'
    run_sql(sqlite_url, statement.format(table, NAMES["number"], names["amount"], names["id"]))

    for words in (("fraudwatch", "fit"), ("segmenter", "fit"), ("doctor",), ("runs",)):
        said = world.type(*words)
        assert not [card for card in CARDS if card in said.all], words
        assert words[-1] != "fit" or said.code == code, said.err

    recorded = ask(sqlite_url, "SELECT error FROM pipeline_runs")
    recorded += ask(sqlite_url, "SELECT masked_value, column_name, code FROM quarantined_rows")
    assert len(recorded) >= 2
    assert not [card for card in CARDS if card in str(recorded)]


def test_a_locked_database_is_told_without_a_value(peerwatch, sqlite_url, tmp_path, monkeypatch):
    world = a_hostile_bank(sqlite_url, tmp_path)
    world.type("init", "--url", sqlite_url)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with sqlite3.connect(tmp_path / "bank.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")

        said = world.type("fraudwatch", "verdict", "--transaction", card_number(FIRST_FRAUD),
                          "confirmed_fraud", "--by", "ana")  # fmt: skip
        other.execute("ROLLBACK")
    other.close()

    assert said.code == 75 and "locked" in said.err
    assert not [card for card in CARDS if card in said.all]


# --- names on the command line --------------------------------------------------------------------

STRANGE = ("../x", "/etc/passwd", "x\0y", "n" * 300, "'; DROP TABLE settings; --", "")


@pytest.mark.parametrize("name", STRANGE, ids=["dots", "absolute", "nul", "long", "sql", "empty"])
@pytest.mark.parametrize(
    "words",
    [
        ("models", "show", "{}"),
        ("models", "promote", "{}", "--by", "ana"),
        ("models", "rollback", "{}", "--by", "ana"),
        ("fraudwatch", "explain", "{}"),
        ("fraudwatch", "verdict", "{}", "confirmed_fraud", "--by", "ana"),
        ("fraudwatch", "verdict", "--transaction", "{}", "confirmed_fraud", "--by", "ana"),
        ("backfill", "{}", "--from", "2026-02-01", "--to", "2026-03-01"),
        ("backfill", "fraudwatch", "--from", "2026-02-01", "--to", "2026-03-01", "--model", "{}"),
        ("segmenter", "rename", "{}", "x", "--by", "ana"),
    ],
    ids=" ".join,
)
def test_a_strange_name_is_one_clear_message(world, words, name):
    before = world.ask("SELECT count(*) FROM #fraud_verdicts")

    said = world.attempt(*(word.format(name) for word in words))

    assert said.code in (1, 2) and said.out == ""
    assert 0 < len(said.err.strip()) < 1500
    assert "unforeseen" not in said.err
    assert not CONTROLS & set(said.err)
    assert world.ask("SELECT count(*) FROM #fraud_verdicts") == before


# --- models at rest -------------------------------------------------------------------------------


def test_a_model_under_another_ones_name_is_refused(peerwatch, fitted_database):
    Path("peerwatch.toml").write_text(toml(fitted_database))
    bank = Bank(fitted_database)
    ((data,),) = bank.ask("SELECT artifact FROM #model_versions")
    header, arrays = artifacts.unpack(bytes(data), artifacts.digest(bytes(data)))
    other = artifacts.pack({**header, "seed": 99}, arrays)
    with sa.create_engine(fitted_database, poolclass=sa.NullPool).begin() as connection:
        where = "" if "sqlite" in fitted_database else "peerwatch."
        statement = f"UPDATE {where}model_versions SET artifact = :a, sha256 = :s"
        connection.execute(sa.text(statement), {"a": other, "s": artifacts.digest(other)})

    said = peerwatch("fraudwatch", "score")

    refused(said, 1, "another model than the one it is named after")
    assert "BROKEN" in peerwatch("verify").out
    assert bank.count("transaction_scores") == 0


@pytest.mark.parametrize("at", [0, 8, 100, 5000, -1])
def test_a_model_with_a_flipped_byte_scores_nothing(peerwatch, fitted_database, at):
    Path("peerwatch.toml").write_text(toml(fitted_database))
    bank = Bank(fitted_database)
    ((data,),) = bank.ask("SELECT artifact FROM #model_versions")
    flipped = bytearray(data)
    flipped[at] ^= 1
    with sa.create_engine(fitted_database, poolclass=sa.NullPool).begin() as connection:
        where = "" if "sqlite" in fitted_database else "peerwatch."
        connection.execute(
            sa.text(f"UPDATE {where}model_versions SET artifact = :a"), {"a": bytes(flipped)}
        )

    refused(peerwatch("fraudwatch", "score"), 1, "its SHA-256 differs")

    assert bank.count("transaction_scores") == 0


# --- numbers that are none, and too many categories -----------------------------------------------

BROKEN = {"nan": "amount_nan", "inf": "amount_infinite", "-inf": "amount_infinite"}
BROKEN |= dict.fromkeys(("1e308", "-1e308", "1e12"), "amount_overflow")
NUMBERS = {"nan": "number_nan"}
NUMBERS |= dict.fromkeys(("inf", "-inf", "1e308", "-1e308"), "number_infinite")


def test_no_number_that_is_none_is_scored_and_the_books_balance(postgresql_url):
    day = f"{END:%Y-%m-%d}"
    types = {"amt": "DOUBLE PRECISION"}
    rows = [row for row in transactions() if moment_of(row) < FITTED]
    bank = a_bank_of(postgresql_url, rows, types)
    with few_steps():
        bank.do("fraudwatch.fit", until=FITTED)
    bank.add([row for row in transactions() if moment_of(row) >= FITTED])
    broken = [
        a_transaction(10**6 + i, f"{day} 10:00:00", **{column: float(text)})
        for i, (column, text) in enumerate(
            [("amt", text) for text in BROKEN] + [("km", text) for text in NUMBERS]
        )
    ]
    sound = [a_transaction(2 * 10**6, f"{day} 11:00:00", amt=-0.0, km=-0.0),
             a_transaction(2 * 10**6 + 1, f"{day} 11:00:01", amt=9e11, km=1e30)]  # fmt: skip
    bank.add(broken + sound)

    outcome = bank.score()

    codes = dict(bank.ask("SELECT row_key, code FROM #quarantined_rows"))
    expected = [*BROKEN.values(), *NUMBERS.values()]
    assert codes == {str(10**6 + i): code for i, code in enumerate(expected)}
    assert outcome.rows_quarantined == len(expected)
    assert bank.unbalanced() == []
    scores = bank.published()
    assert {2 * 10**6, 2 * 10**6 + 1} <= scores.keys()
    assert np.isfinite(np.array(list(scores.values()))).all()
    assert not {10**6 + i for i in range(len(expected))} & scores.keys()


def test_a_million_categories_are_one_and_take_bounded_memory():
    size = 1_000_000
    frame = pd.DataFrame({"mcc": pd.Series(np.arange(size)).astype("str")})
    declared = [Feature("mcc", encoding.CATEGORY, "focal", "", "category")]
    tracemalloc.start()

    encoder = Encoder.fit(frame, declared)
    matrix = encoder.transform(frame.head(10_000))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (column,) = encoder.columns
    assert column.levels == (encoding.RARE,)
    assert matrix.shape == (10_000, 1)
    assert len(json.dumps(encoder.to_json())) < 1000
    assert peak < 500 * size, "bytes"


def test_many_common_categories_are_at_most_fifty_levels():
    frame = pd.DataFrame({"mcc": pd.Series(np.arange(100_000) % 1000).astype("str")})

    encoder = Encoder.fit(frame, [Feature("mcc", encoding.CATEGORY, "focal", "", "category")])

    assert len(encoder.columns[0].levels) == 51


def test_a_category_never_gives_the_features_more_columns():
    few = {f.name for f in features.declared({"occurred_at", "amount", "category.mcc"})}

    assert len(few) < 40


# --- samples --------------------------------------------------------------------------------------


def nearer_to_the_fit(fit: np.ndarray, others: np.ndarray, drawn: np.ndarray) -> float:
    """Share of the drawn rows that lie nearer to a row of the fit than to any of as many others."""
    to_fit, to_others = (cKDTree(rows).query(drawn)[0] for rows in (fit, others))
    return float((to_fit < to_others).mean())


def people(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a fit and as many others, of five columns, one of the fit alone far out."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((1_000, 5)) @ generator.standard_normal((5, 5))
    rows += 4 * generator.integers(0, 3, (1_000, 1))
    rows[0] += 60
    return rows[:500], rows[500:]


def remembered(rows: np.ndarray) -> np.ndarray:
    """What one who learned the rows by heart would draw."""
    generator = np.random.default_rng(1)
    chosen = rows[generator.integers(0, len(rows), 2_000)]
    return chosen + 0.01 * generator.standard_normal(chosen.shape)


@pytest.mark.parametrize("name", ["mixture", "autoencoder"])
def test_what_is_drawn_is_nobody_in_particular(name):
    """No nearer to the rows of the fit than to others, and never the one that stands alone."""
    fit, others = people()
    made: dict[str, Any] = {
        "mixture": lambda: SegmentMixture(max_components=6, random_state=0).fit(fit),
        "autoencoder": lambda: TransactionVAE(hidden=(16,), steps=400, random_state=0).fit(fit),
    }
    found = made[name]().sample(2_000)
    drawn = found[0] if name == "mixture" else found

    assert 0.4 < nearer_to_the_fit(fit, others, drawn) < 0.6
    assert nearer_to_the_fit(fit, others, remembered(fit)) > 0.95
    alone = np.linalg.norm(drawn - fit[0], axis=1)
    assert alone.min() > 1, "a row by itself is no kind of people"


# --- the network ----------------------------------------------------------------------------------


def test_commands_need_no_network_beyond_their_databases(world):
    """Every command was typed with sockets that refuse, where the database is a file."""
    assert len(world.said) > 30
    assert world.dialled == []


def test_the_configuration_holds_names_as_they_are(sqlite_url):
    """The hostile world is what it says: a name is read back to the letter."""
    import tomllib

    found = tomllib.loads(configuration(sqlite_url))["source"]["transactions"]

    assert found["table"] == TABLE
    assert found["currency"] == NAMES["currency"] and "\u202e" in found["currency"]
    assert frames.LARGEST_AMOUNT == 1e12
