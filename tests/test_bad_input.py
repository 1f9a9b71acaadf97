"""Bad input at the front door: one clear message, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.cli import main
from tests.builders import a_transaction, ask, make_table, run_sql, toml
from tests.small_bank import END, FITTED, TYPES, Bank, copies, few_steps, transactions

UNREACHABLE = "postgresql+psycopg://someone:s3cret@127.0.0.1:1/bank"
SMALL = "[fraudwatch]\ncalibration_days = 14\nreviews_per_day = 2\nlabel_delay_days = 0"


@dataclass
class Said:
    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def peerwatch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """The command, run in an empty folder as the console script runs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PEERWATCH_CONFIG", raising=False)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["peerwatch", *arguments])
        capsys.readouterr()
        code = main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        assert "unforeseen" not in said.err, said.err
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A bank of every transaction, in SQLite."""
    path = tmp_path / "bank.db"
    path.touch()
    make_table(f"sqlite:///{path}", "card_tx", TYPES, transactions())
    return f"sqlite:///{path}"


def configured(peerwatch: Command, url: str, **parts: str) -> None:
    """The configuration of the bank, and our tables."""
    Path("peerwatch.toml").write_text(toml(url, **{"more": SMALL, **parts}))
    assert peerwatch("init", "--url", url).code == 0


def refused(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said.err
    assert said.out == ""
    for word in words:
        assert word in said.err
    assert len(said.err) < 1500


# --- init ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code", "word"),
    [
        ("sqlite:///nowhere.db", 2, "no SQLite database nowhere.db"),
        ("bank.db", 2, "cannot be used"),
        ("nosuch://x/y", 2, "cannot be used"),
        ("sqlite://", 2, "in memory"),
        (UNREACHABLE, 75, "could not be reached"),
    ],
)
def test_init_of_no_database_makes_nothing(peerwatch, tmp_path, url, code, word):
    said = peerwatch("init", "--url", url)

    refused(said, code, word)
    assert "s3cret" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_init_of_a_file_that_is_no_database_makes_nothing(peerwatch, tmp_path):
    (tmp_path / "bank.db").write_text("not a database, " * 100)

    said = peerwatch("init", "--url", "sqlite:///bank.db")

    assert said.code == 2 and "file is not a database. Name a database of SQLite" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["bank.db"]


def test_a_folder_in_the_place_of_a_file_is_named(fitted, tmp_path):
    said = fitted("fraudwatch", "report", "--out", str(tmp_path))

    assert said.code == 2 and f"{tmp_path}: Is a directory. Name another file" in said.err


def test_no_runs_at_all_cannot_be_asked_for(peerwatch):
    said = peerwatch("runs", "--last", "0")

    assert said.code == 2 and "--last" in said.err


def test_init_of_an_empty_database_says_that_there_are_no_tables(peerwatch, tmp_path):
    (tmp_path / "bank.db").touch()

    said = peerwatch("init", "--url", "sqlite:///bank.db")

    assert said.code == 2 and "table" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["bank.db"]


def test_init_of_a_result_table_that_is_not_ours_makes_nothing(peerwatch, url, tmp_path):
    run_sql(url, "CREATE TABLE fraud_alerts (id INTEGER, note TEXT)")

    said = peerwatch("init", "--url", url)

    refused(said, 2, "fraud_alerts")
    assert not (tmp_path / "peerwatch.toml").exists()
    names = {row[0] for row in ask(url, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"card_tx", "fraud_alerts"}


def test_init_of_tables_without_a_time_says_what_is_missing(peerwatch, tmp_path):
    (tmp_path / "bank.db").touch()
    make_table("sqlite:///bank.db", "things", {"name": "TEXT"}, [{"name": "x"}])

    said = peerwatch("init", "--url", "sqlite:///bank.db")

    assert said.code == 2 and said.err.strip()
    assert not (tmp_path / "peerwatch.toml").exists()


# --- the configuration --------------------------------------------------------------------------


def test_a_command_without_a_configuration_says_how_to_make_one(peerwatch):
    refused(peerwatch("fraudwatch", "score"), 2, "no configuration peerwatch.toml", "init --url")


def test_all_faults_of_a_configuration_are_told_at_once(peerwatch, url):
    text = toml(url, "[fraudwatch]\nreviews_per_dya = 3\ncase_days = 0\n", 'labels = "fraud"')
    Path("peerwatch.toml").write_text(text)

    said = peerwatch("fraudwatch", "score")

    refused(said, 2, "did you mean reviews_per_day", "did you mean label", "case_days should be")


def test_a_file_that_is_no_toml_is_one_message(peerwatch):
    Path("peerwatch.toml").write_text("[source\nurl =")

    refused(peerwatch("doctor"), 2, "not valid TOML")


@pytest.mark.parametrize("command", [("fraudwatch", "fit"), ("segmenter", "fit"), ("verify",)])
def test_an_unreachable_server_is_temporary(peerwatch, command):
    Path("peerwatch.toml").write_text(toml(UNREACHABLE))

    said = peerwatch(*command)

    refused(said, 75, "could not be")
    assert "s3cret" not in said.err


def test_a_table_and_a_column_that_are_not_there_are_both_named(peerwatch, url):
    text = toml(url).replace('table = "card_tx"', 'table = "card_txs"')
    Path("peerwatch.toml").write_text(text)
    first = peerwatch("fraudwatch", "fit")
    text = toml(url).replace('"amt"', '"amount"').replace('"ts"', '"when"')
    Path("peerwatch.toml").write_text(text)

    second = peerwatch("fraudwatch", "fit")

    refused(first, 2, "card_txs does not exist; did you mean card_tx?")
    refused(second, 2, "no column amount", "no column when")


@pytest.mark.parametrize(
    "command",
    [("fraudwatch", "fit"), ("fraudwatch", "score"), ("segmenter", "fit"), ("runs",), ("verify",)],
)
def test_commands_before_init_say_to_make_the_tables(peerwatch, url, command):
    Path("peerwatch.toml").write_text(toml(url))
    before = Path("bank.db").read_bytes()

    refused(peerwatch(*command), 2, "peerwatch init")

    assert Path("bank.db").read_bytes() == before


# --- the source after init ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["ALTER TABLE card_tx DROP COLUMN km"], ["no column km"]),
        (["ALTER TABLE card_tx RENAME COLUMN amt TO amount"], ["no column amt", "mean amount"]),
        (["ALTER TABLE card_tx RENAME TO other"], ["card_tx does not exist"]),
        (
            ["ALTER TABLE card_tx DROP COLUMN km", "ALTER TABLE card_tx DROP COLUMN cur"],
            ["no column km", "no column cur"],
        ),
        (
            [
                "ALTER TABLE card_tx DROP COLUMN amt",
                "ALTER TABLE card_tx ADD COLUMN amt TEXT",
            ],
            ["card_tx.amt is text"],
        ),
        (
            [
                "ALTER TABLE card_tx DROP COLUMN channel",
                "ALTER TABLE card_tx ADD COLUMN channel BIGINT",
            ],
            ["card_tx.channel was text when it was mapped and is integer now"],
        ),
    ],
    ids=["dropped", "renamed", "table", "two", "amount retyped", "category retyped"],
)
def test_a_source_that_changed_after_init_is_named_before_any_write(
    peerwatch, url, statements, words
):
    configured(peerwatch, url)
    before = Bank(url).dump()
    run_sql(url, *statements)

    for command in (("fraudwatch", "fit"), ("fraudwatch", "score"), ("segmenter", "fit")):
        refused(peerwatch(*command), 2, *words)

    after = Bank(url).dump()
    assert {run[3] for run in after.pop("pipeline_runs")} <= {"failed"}
    assert after == {name: rows for name, rows in before.items() if name != "pipeline_runs"}


@pytest.mark.parametrize(
    ("keep", "domain", "word"),
    [
        ("1 = 0", "fraudwatch", "no valid transaction in card_tx"),
        ("1 = 0", "segmenter", "no valid transaction in card_tx"),
        ("tx_id = 1001", "fraudwatch", "from 2026-01-01"),
        ("tx_id = 1001", "segmenter", "found 1 customers"),
        ("tx_id < 1060", "fraudwatch", "at least 50"),
    ],
    ids=["empty", "empty-segmenter", "one row", "one row-segmenter", "few rows"],
)
def test_too_little_data_stops_with_exit_4_and_writes_no_model(peerwatch, url, keep, domain, word):
    run_sql(url, f"DELETE FROM card_tx WHERE NOT ({keep})")
    configured(peerwatch, url)

    refused(peerwatch(domain, "fit"), 4, word)

    assert Bank(url).count("model_versions") == 0
    assert Bank(url).ask("SELECT status FROM pipeline_runs") == [("failed",)]


def test_one_customer_and_constant_amounts_are_fitted_on_what_else_varies(peerwatch, url):
    run_sql(url, "UPDATE card_tx SET cust = 1, amt = 12, km = 1")
    configured(peerwatch, url)

    with few_steps():
        said = peerwatch("fraudwatch", "fit", "--until", f"{FITTED:%Y-%m-%d}")
    scored = peerwatch("fraudwatch", "score")

    assert (said.code, scored.code) == (0, 0), said.err + scored.err
    card = json.loads(peerwatch("models", "list", "--json").out)["models"][0]
    shown = json.loads(peerwatch("models", "show", card["model_version_id"], "--json").out)
    assert shown["card"]["left_out"]["km"] == "has one value only"
    assert peerwatch("segmenter", "fit").code == 4


def test_amounts_alone_that_never_vary_are_refused(peerwatch, url):
    run_sql(url, "UPDATE card_tx SET amt = 12, ts = '2026-02-02 10:00:00'")
    text = f'[source]\nurl = "{url}"\n[source.transactions]\ntable = "card_tx"\nid = "tx_id"\n'
    Path("peerwatch.toml").write_text(f'{text}time = "ts"\namount = "amt"\n')
    assert peerwatch("init", "--url", url).code == 0

    assert peerwatch("fraudwatch", "fit").code == 4
    assert Bank(url).count("model_versions") == 0


def test_the_segmenter_without_a_mapped_customer_says_so(peerwatch, url):
    Path("peerwatch.toml").write_text(toml(url).replace('customer = "cust"\n', ""))
    assert peerwatch("init", "--url", url).code == 0

    for command in ("fit", "score"):
        refused(peerwatch("segmenter", command), 2, "no column of card_tx is mapped as customer")


def test_a_feed_that_is_broken_stops_with_exit_4(peerwatch, url):
    configured(peerwatch, url)
    run_sql(url, "UPDATE card_tx SET amt = 'n/a' WHERE tx_id % 5 = 0")

    said = peerwatch("fraudwatch", "fit")

    refused(said, 4, "amount_text", "5.0%", "Nothing was written")
    assert Bank(url).count("quarantined_rows") == Bank(url).count("model_versions") == 0


# --- usage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("fraudwatch", "score", "--until", "2026-13-01"), "no ISO-8601"),
        (("fraudwatch", "scoer"), "No such command"),
        (("fraudwatch", "fit", "--form", "2026-01-01"), "No such option"),
        (("backfill", "fraudwatch"), "--from"),
        (("backfill", "fraudwatch", "--from", "2026-02-02", "--to", "2026-02-01"), "before --to"),
        (("fraudwatch", "verdict", "x", "confirmed_fraud"), "--by"),
        (("models", "promote", "nobody", "--by", "me"), "no model nobody"),
        (("models", "show", "nobody"), "no model nobody"),
        (("fraudwatch", "evaluate"), "--label COLUMN"),
        (("fraudwatch", "score"), "fraudwatch score found no champion"),
        (("segmenter", "score"), "segmenter fit"),
        (("fraudwatch", "sample", "--size", "0"), "--size"),
        (("segmenter", "sample", "--size", "-3"), "--size"),
        (("fraudwatch", "explain", "1000"), "fraudwatch fit"),
        (("schedule", "--once"), "[schedule]"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_usage_that_makes_no_sense_is_exit_2(peerwatch, url, command, word):
    configured(peerwatch, url)

    said = peerwatch(*command)

    refused(said, 2, word)


def test_nothing_to_roll_back_to_is_one_message(peerwatch, url):
    configured(peerwatch, url)

    refused(peerwatch("models", "rollback", "fraudwatch", "--by", "me"), 1, "no earlier champion")


@pytest.mark.parametrize("command", ["report", "sample"])
def test_a_file_that_cannot_be_written_is_one_message(fitted, command):
    said = fitted("fraudwatch", command, "--out", "no/such/folder/file")

    refused(said, 2, "no folder no/such/folder")


# --- data for programs --------------------------------------------------------------------------


@pytest.fixture
def fitted(peerwatch: Command, fitted_sqlite: str) -> Iterator[Command]:
    """The command in a folder with a fitted and scored bank."""
    with copies(fitted_sqlite) as url:
        Path("peerwatch.toml").write_text(
            toml(url, f'{SMALL}\n[schedule]\n"fraudwatch.report" = "every 15 minutes"')
        )
        assert peerwatch("fraudwatch", "score").code == 0
        yield peerwatch


def test_json_is_all_there_is_on_standard_output(fitted):
    key = str(transactions()[-1]["tx_id"])
    day = f"{FITTED:%Y-%m-%d}", f"{END:%Y-%m-%d}"
    url = Path("peerwatch.toml").read_text().split('"')[1]
    champion = json.loads(fitted("models", "list", "--json").out)["models"][0]["model_version_id"]
    commands = [
        ("init", "--url", url),
        ("doctor",),
        ("migrate",),
        ("runs",),
        ("models", "list"),
        ("models", "show", champion),
        ("models", "promote", champion, "--by", "me"),
        ("fraudwatch", "score"),
        ("fraudwatch", "report"),
        ("fraudwatch", "sample", "--size", "3"),
        ("fraudwatch", "explain", key),
        ("fraudwatch", "evaluate", "--label", "fraud"),
        ("fraudwatch", "verdict", "--transaction", key, "genuine_unusual", "--by", "me"),
        ("backfill", "fraudwatch", "--from", day[0], "--to", day[1]),
        ("verify",),
    ]

    for command in commands:
        said = fitted(*command, "--json")
        assert said.code == 0, (command, said)
        assert isinstance(json.loads(said.out), dict), command
        assert said.out.count("\n") == 1, command
    with few_steps():
        refit = fitted("fraudwatch", "fit", "--json", "--dry-run")
    assert "left_out" in json.loads(refit.out)


def test_quiet_says_nothing_but_errors(fitted):
    assert fitted("fraudwatch", "score", "--quiet") == Said(0, "", "")
    assert fitted("fraudwatch", "explain", "1", "--quiet").err


def test_a_failed_command_leaves_standard_output_empty_with_json_too(peerwatch, url):
    configured(peerwatch, url)

    refused(peerwatch("fraudwatch", "score", "--json"), 2, "fraudwatch fit")


def test_runs_show_what_failed_and_why(peerwatch, url):
    configured(peerwatch, url)
    peerwatch("fraudwatch", "score")

    found = json.loads(peerwatch("runs", "--json").out)["runs"]

    assert [(run["job"], run["status"]) for run in found] == [("fraudwatch.score", "failed")]
    assert "Fit one first" in found[0]["error"]


def test_a_changed_schema_stops_other_commands(fitted):
    url = Path("peerwatch.toml").read_text().split('"')[1]
    version = [
        row[0] for row in ask(url, "SELECT name FROM sqlite_master WHERE name LIKE '%version'")
    ]
    (table,) = [name for name in version if name != "model_versions"]
    run_sql(url, f"UPDATE {table} SET version_num = '9999'")

    refused(fitted("fraudwatch", "score"), 2, "9999")


def test_help_imports_nothing_heavy():
    script = (
        "import sys; sys.argv = ['peerwatch', '--help']\n"
        "from shared.cli import main; code = main()\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'numpy', 'sqlalchemy', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    root = Path(__file__).parents[1]

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0 and "fraudwatch" in done.stdout
    assert done.stderr.strip() == "[]"


def test_a_row_with_every_kind_of_fault_is_counted_once(peerwatch, url):
    configured(peerwatch, url)
    bank = Bank(url)
    bank.add([a_transaction(1, "2026-02-20 10:00:00", amt="many", km="far")])
    with few_steps():
        assert peerwatch("fraudwatch", "fit").code == 0

    assert bank.count("quarantined_rows") == 2
    assert bank.covered("quarantined") == 0, "before the scope it is counted with the scope"
