"""The configuration: every fault at once, each with what to do."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from fraudwatch.config import Settings as Fraudwatch
from segmenter.config import Settings as Segmenter
from shared import config
from shared.errors import ConfigurationError
from shared.rules import Entry
from tests.builders import toml

DOMAINS = {"segmenter": Segmenter, "fraudwatch": Fraudwatch}
SECRET = "hunter2-öx"


def loaded(tmp_path: Path, text: str, environment: dict[str, str] | None = None):
    path = tmp_path / "peerwatch.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, environment or {}, DOMAINS)


def faults(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text, environment)
    assert caught.value.exit_code == 2
    prefix = f"{tmp_path / 'peerwatch.toml'}: "
    assert all(fault.startswith(prefix) for fault in caught.value.faults)
    return [fault.removeprefix(prefix) for fault in caught.value.faults]


def test_the_smallest_file_has_every_default(tmp_path):
    text = '[source]\nurl = "sqlite:///bank.db"\n'
    text += '[source.transactions]\ntable = "t"\nid = "i"\ntime = "s"\namount = "a"\n'

    found = loaded(tmp_path, text)

    assert found.source.timezone == "UTC"
    assert found.source.customers is None
    assert found.source.transactions.categories == ()
    assert found.results == config.Results()
    assert found.results_url == "sqlite:///bank.db"
    assert found.domains == {"segmenter": Segmenter(), "fraudwatch": Fraudwatch()}
    assert found.schedule == {}


def test_every_key_of_the_contract_that_is_built_is_read(tmp_path):
    text = toml(
        "sqlite:///bank.db",
        source='timezone = "Europe/Berlin"',
        transactions='time_format = "%d/%m/%Y"\norder = "invoice"\nlabel = "is_fraud"\n'
        'label_time = "known_at"\nlabel_kind = "kind"\nentities = ["card", "device"]\n'
        'baseline_score = "rule_score"',
        more="""
[source.customers]
table = "clients"
id = "client_id"
numbers = ["credit_limit"]
categories = ["product"]
descriptors = ["age", "region"]
valid_from = "since"
valid_to = "until"
[results]
url = "sqlite:///results.db"
schema = "watch"
prefix = "pw_"
[segmenter]
lookback_days = 200
segments = 5
max_segments = 9
min_segment_share = 0.05
exclude_features = ["tenure"]
names = { 4 = "Weekend families" }
[fraudwatch]
training_days = 60
calibration_days = 14
history_days = 30
reviews_per_day = 5
case_days = 3
close_after = "90 minutes"
score_from = 2026-01-01
allowed_lateness_days = 2
label_delay_days = 30
quarantine_limit = 1
[fraudwatch.roles]
count_1d = "focal"
weekend = "none"
[schedule]
"segmenter.fit" = "0 1 1 * *"
fraudwatch.score = "every 15 minutes"
""",
    )

    found = loaded(tmp_path, text)

    assert found.source.transactions.columns() == [
        ("id", "tx_id"), ("time", "ts"), ("customer", "cust"), ("amount", "amt"),
        ("currency", "cur"), ("counterparty", "merchant_id"), ("order", "invoice"),
        ("label", "is_fraud"), ("label_time", "known_at"), ("label_kind", "kind"),
        ("baseline_score", "rule_score"), ("entities", "card"), ("entities", "device"),
        ("categories", "channel"), ("numbers", "km"),
    ]  # fmt: skip
    assert found.source.customers.columns() == [
        ("id", "client_id"), ("numbers", "credit_limit"), ("categories", "product"),
        ("descriptors", "age"), ("descriptors", "region"), ("valid_from", "since"),
        ("valid_to", "until"),
    ]  # fmt: skip
    assert found.results == config.Results("sqlite:///results.db", "watch", "pw_")
    assert found.results_url == "sqlite:///results.db"
    assert found.domains["segmenter"].segments == 5
    assert found.domains["segmenter"].names == {4: "Weekend families"}
    assert found.domains["fraudwatch"].score_from == date(2026, 1, 1)
    assert found.domains["fraudwatch"].quarantine_limit == 1.0
    assert found.domains["fraudwatch"].roles == {"count_1d": "focal", "weekend": "none"}
    assert found.schedule == {
        "segmenter.fit": Entry("0 1 1 * *"),
        "fraudwatch.score": Entry("every 15 minutes"),
    }


def test_all_faults_of_a_file_are_reported_at_once(tmp_path):
    text = toml(
        "sqlite:///bank.db",
        source='timezone = "Mars/Olympus"\ncolour = "red"',
        transactions='costumer = "x"\norder = 5',
        more="""
[results]
prefix = "Bad Name"
[segmenter]
segments = "many"
max_segments = 0
seed = -2
[fraudwatch]
reviews_per_day = 0
seed = -1
reviews_per_dey = 3
case_days = "seven"
quarantine_limit = 2.0
close_after = "soon"
[schedule]
"fraudwatch.scroe" = "0 3 * * 0"
[fraudwotch]
a = 1
""",
    )

    found = "\n".join(faults(tmp_path, text))

    for part in (
        '[source] timezone "Mars/Olympus" is no known zone',
        "[source] unknown key colour",
        "[source.transactions] unknown key costumer; did you mean customer?",
        "[source.transactions] order should be text, found 5",
        '[results] prefix "Bad Name"',
        '[segmenter] segments should be "auto" or a whole number, found "many"',
        "[segmenter] max_segments is 0",
        "[segmenter] seed is -2",
        "[fraudwatch] seed should be from 0 to 4294967295, found -1",
        "[fraudwatch] reviews_per_day should be at least 1, found 0",
        "[fraudwatch] unknown key reviews_per_dey; did you mean reviews_per_day?",
        '[fraudwatch] case_days should be a whole number, found "seven"',
        "[fraudwatch] quarantine_limit is a share from 0 to 1, found 2.0",
        '[fraudwatch] close_after should be like "6 hours", found "soon"',
        "[schedule] unknown key fraudwatch.scroe; did you mean fraudwatch.score?",
        '[schedule] "fraudwatch.scroe": cannot read "0 3 * * 0"',
        "unknown key fraudwotch; did you mean fraudwatch?",
    ):
        assert part in found


def test_a_missing_key_is_named_with_its_section(tmp_path):
    found = faults(tmp_path, '[source]\nurl = "sqlite:///x.db"\n[source.transactions]\ntable = "t"')

    assert "[source.transactions] id is missing." in found
    assert "[source.transactions] time is missing." in found


def test_an_empty_file_says_what_is_missing(tmp_path):
    found = faults(tmp_path, "")

    assert found == ["[source] url is missing.", "[source] transactions is missing."]


def test_a_mapping_without_anything_to_judge_is_refused(tmp_path):
    text = '[source]\nurl = "sqlite:///x.db"\n'
    text += '[source.transactions]\ntable = "t"\nid = "i"\ntime = "s"\n'

    (fault,) = faults(tmp_path, text)

    assert "give amount, categories or numbers" in fault


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('entities = "card"', 'entities should be a list of texts, found "card"'),
        ("entities = [1]", "entities should be a list of texts, found [1]"),
        ("baseline_score = 1", "baseline_score should be text, found 1"),
        ('entitys = ["card"]', "unknown key entitys; did you mean entities?"),
        ('entities = ["card", "card"]', "maps column card as entities and entities"),
        ('entities = ["cust"]', "maps column cust as customer and entities"),
        ('entities = ["channel"]', "maps column channel as entities and categories"),
        ('baseline_score = "km"', "maps column km as baseline_score and numbers"),
    ],
)
def test_a_faulty_entity_or_baseline_score_is_named(tmp_path, lines, expected):
    (fault,) = faults(tmp_path, toml("sqlite:///x.db", transactions=lines))

    assert fault.startswith("[source.transactions]")
    assert expected in fault


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            '[fraudwatch.roles]\ncount_1d = "focul"',
            "count_1d should be focal, context, evidence or",
        ),
        ("[fraudwatch.roles]\ncount_1d = 3", "none, found 3."),
        ('[fraudwatch]\nroles = "focal"', '[fraudwatch] roles should be a table, found "focal"'),
        ('[fraudwatch]\nrols = { count_1d = "focal" }', "did you mean roles?"),
    ],
)
def test_a_faulty_role_is_named(tmp_path, lines, expected):
    (fault,) = faults(tmp_path, toml("sqlite:///x.db", more=lines))

    assert expected in fault


def test_entities_alone_are_nothing_to_judge(tmp_path):
    text = '[source]\nurl = "sqlite:///x.db"\n[source.transactions]\ntable = "t"\nid = "i"\n'
    text += 'time = "s"\nentities = ["card"]\nbaseline_score = "rule_score"\n'

    (fault,) = faults(tmp_path, text)

    assert "give amount, categories or numbers" in fault


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("reviews_per_day = true", "should be a whole number, found true"),
        ("reviews_per_day = 2.5", "should be a whole number, found 2.5"),
        ('quarantine_limit = "5%"', 'should be a number, found "5%"'),
        ("quarantine_limit = nan", "is a share from 0 to 1, found nan"),
        ("score_from = 2026-01-01T00:00:00", "should be a date such as 2026-01-01"),
        ('score_from = "2026-01-01"', "should be a date such as 2026-01-01"),
        ("close_after = 6", "should be text, found 6"),
    ],
)
def test_a_wrong_type_says_what_was_found_and_expected(tmp_path, line, expected):
    (fault,) = faults(tmp_path, toml("sqlite:///x.db", more=f"[fraudwatch]\n{line}"))

    assert expected in fault


@pytest.mark.parametrize("text", ["source = 5", "[source]\ntransactions = 'card_tx'\nurl = 'x'"])
def test_a_value_where_a_table_belongs_is_a_fault(tmp_path, text):
    assert any("should be a table" in fault for fault in faults(tmp_path, text))


def test_a_job_is_scheduled_by_a_rule_or_by_a_table_that_says_more(tmp_path):
    text = toml(
        "sqlite:///x.db",
        more="""
[schedule]
segmenter.fit = "0 1 1 * *"
segmenter.score = { rule = "0 2 * * *", catch_up = true }
"fraudwatch.report" = { rule = "0 6 * * *", timezone = "Europe/Berlin" }
""",
    )

    assert loaded(tmp_path, text).schedule == {
        "segmenter.fit": Entry("0 1 1 * *"),
        "segmenter.score": Entry("0 2 * * *", catch_up=True),
        "fraudwatch.report": Entry("0 6 * * *", "Europe/Berlin"),
    }


def test_every_fault_of_a_schedule_is_named_with_its_job(tmp_path):
    text = toml(
        "sqlite:///x.db",
        more="""
[schedule]
"segmenter.fit" = { rule = "0 1 1 * mon" }
"segmenter.score" = { timezone = "Europe/Berlin", catchup = true }
"segmenter.report" = { rule = "0 6 * * *", timezone = "Mars/Olympus" }
"fraudwatch.fit" = 5
"fraudwatch.score" = { rule = "0 6 * * *", catch_up = "yes" }
"fraudwatch.report" = ["0 6 * * *"]
""",
    )

    found = [fault.partition("peerwatch.toml: ")[2] or fault for fault in faults(tmp_path, text)]

    for job, words in {
        "segmenter.fit": "both given",
        "segmenter.score": "unknown key catchup; did you mean catch_up?",
        "segmenter.report": "no known zone",
        "fraudwatch.fit": "should be text",
        "fraudwatch.score": "catch_up should be true or false",
        "fraudwatch.report": "should be text",
    }.items():
        assert any(fault.startswith(f'[schedule] "{job}"') and words in fault for fault in found)
    assert '[schedule] "segmenter.score" rule is missing.' in found
    assert len(found) == 7


def test_a_schedule_that_is_no_table_is_a_fault(tmp_path):
    text = 'schedule = "daily"\n' + toml("sqlite:///x.db")

    assert faults(tmp_path, text) == ["[schedule] should be a table."]


def test_a_composite_key_is_refused_with_the_view_that_mends_it(tmp_path):
    text = '[source]\nurl = "sqlite:///x.db"\n[source.transactions]\ntable = "lines"\n'
    text += 'id = ["invoice", "line no"]\ntime = "s"\namount = "a"\n'

    (fault,) = faults(tmp_path, text)

    assert "[source.transactions] id" in fault
    assert "one column" in fault
    assert "CREATE VIEW lines_peerwatch AS SELECT" in fault
    assert "CAST(invoice AS TEXT) || '-' || CAST(\"line no\" AS TEXT)" in fault
    assert "FROM lines" in fault


def test_a_column_with_two_roles_is_refused(tmp_path):
    text = toml("sqlite:///x.db", transactions='order = "merchant_id"')

    (fault,) = faults(tmp_path, text)

    assert "merchant_id" in fault
    assert "counterparty and order" in fault


def test_the_environment_overrides_the_file(tmp_path):
    text = toml("sqlite:///x.db", more="[fraudwatch]\nreviews_per_day = 5")
    environment = {
        "PEERWATCH_FRAUDWATCH__REVIEWS_PER_DAY": "50",
        "PEERWATCH_FRAUDWATCH__CLOSE_AFTER": "2 hours",
        "PEERWATCH_SOURCE__TRANSACTIONS__ORDER": "invoice",
        "PEERWATCH_SEGMENTER__EXCLUDE_FEATURES": '["a", "b"]',
        "PEERWATCH_RESULTS__URL": "sqlite:///other.db",
        "PEERWATCH_CONFIG": "ignored.toml",
        "PATH": "/bin",
    }

    found = loaded(tmp_path, text, environment)

    assert found.domains["fraudwatch"].reviews_per_day == 50
    assert found.domains["fraudwatch"].close_after == "2 hours"
    assert found.source.transactions.order == "invoice"
    assert found.domains["segmenter"].exclude_features == ("a", "b")
    assert found.results_url == "sqlite:///other.db"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PEERWATCH_FRAUDWATCH__REVIEWS_PER_DEY", "did you mean reviews_per_day?"),
        ("PEERWATCH_REVIEWS", "names no key"),
        ("PEERWATCH_SOURCE__URL__HOST", "PEERWATCH_SOURCE__URL__HOST"),
        ("PEERWATCH_NOWHERE__KEY", "unknown key nowhere"),
    ],
)
def test_an_environment_variable_that_fits_no_key_is_a_fault(tmp_path, name, expected):
    found = faults(tmp_path, toml("sqlite:///x.db"), {name: "7"})

    assert any(expected in fault for fault in found)


def test_a_name_in_braces_is_taken_from_the_environment(tmp_path):
    text = toml("postgresql+psycopg://${USER_NAME}:${PASS}@db/bank", transactions='order = "${O}"')

    found = loaded(tmp_path, text, {"USER_NAME": "u", "PASS": SECRET, "O": "invoice"})

    assert found.source.url == f"postgresql+psycopg://u:{SECRET}@db/bank"
    assert found.source.transactions.order == "invoice"


def test_a_name_in_braces_that_is_not_set_is_a_fault(tmp_path):
    (fault,) = faults(tmp_path, toml("postgresql+psycopg://u:${DB_PASS}@db/bank"))

    assert fault == "source url needs the environment variable DB_PASS, which is not set."


def test_names_in_braces_are_replaced_in_lists(tmp_path):
    text = toml("sqlite:///x.db", more='[segmenter]\nexclude_features = ["${LEFT_OUT}"]')

    found = loaded(tmp_path, text, {"LEFT_OUT": "tenure"})

    assert found.domains["segmenter"].exclude_features == ("tenure",)


def test_a_secret_stands_in_no_repr(tmp_path):
    text = toml(
        f"postgresql://u:{SECRET}@db/bank", more=f'[results]\nurl = "mysql://u:{SECRET}@h/d"'
    )

    found = loaded(tmp_path, text)

    assert SECRET not in repr(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        f'[source]\nurl = ["postgresql://u:{SECRET}@db/bank"]\n',
        f'source = "postgresql://u:{SECRET}@db/bank"\n',
        toml("sqlite:///x.db", source='timezone = "${DB_PASS}"'),
        toml("sqlite:///x.db", more='[fraudwatch]\nreviews_per_day = "${DB_PASS}"'),
        toml("sqlite:///x.db", more='[fraudwatch]\nclose_after = "${DB_PASS}"'),
        toml("sqlite:///x.db", more='[schedule]\n"fraudwatch.fit" = "${DB_PASS}"'),
    ],
)
def test_a_secret_stands_in_no_message(tmp_path, text):
    found = faults(tmp_path, text, {"DB_PASS": SECRET})

    assert SECRET not in "\n".join(found)
    assert SECRET.encode("ascii", "backslashreplace").decode() not in "\n".join(found)


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigurationError, match="peerwatch init --url URL"):
        config.load(tmp_path / "none.toml", {}, DOMAINS)


@pytest.mark.parametrize("content", [b"[source\n", b"a = 1\na = 2\n", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"broken\.toml is not valid TOML"):
        config.load(path, {}, DOMAINS)


@pytest.mark.parametrize(
    ("given", "lacking"), [("valid_from", "valid_to"), ("valid_to", "valid_from")]
)
def test_a_period_needs_both_ends(tmp_path, given, lacking):
    text = toml(
        "sqlite:///bank.db",
        more=f"""
[source.customers]
table = "clients"
id = "client_id"
{given} = "moment"
""",
    )

    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text)

    (fault,) = caught.value.faults
    assert f"[source.customers] {given} is given without {lacking}; a row's period needs" in fault
