"""A person's name for a segment, in a small bank of one fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.cli import main
from shared.errors import ConfigurationError
from tests.segmenter.test_jobs import END, MIDDLE, Bank

pytestmark = pytest.mark.usefixtures("few_fits")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder: Path = tmp_path_factory.mktemp("renaming")
    made = Bank(f"sqlite:///{folder / 'bank.db'}", folder).build()
    made.do("segmenter.fit")
    made.do("segmenter.score")
    return made


def names(bank: Bank) -> dict[int, tuple[str, str]]:
    rows = bank.ask("SELECT segment_id, name, named_by FROM #segments")
    return {int(i): (str(name), str(by)) for i, name, by in rows}


def said(bank: Bank, segment_id: int, name: str, by: str = "ana") -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        bank.do("segmenter.rename", options={"segment_id": segment_id, "name": name, "by": by})
    return caught.value.faults


def test_a_person_names_a_segment_and_a_later_score_leaves_the_name(bank):
    first, *_ = names(bank)

    outcome = bank.do(
        "segmenter.rename", options={"segment_id": first, "name": " Night owls ", "by": "ana"}
    )
    bank.do("segmenter.score", until=END)

    assert names(bank)[first] == ("Night owls", "ana")
    assert outcome.data["name"] == "Night owls" and outcome.data["before"] != "Night owls"
    assert "refits keep the name" in outcome.message
    shown = bank.ask(f"SELECT name FROM #segment_summary WHERE segment_id = {first}")
    assert ("Night owls",) in [tuple(row) for row in shown]


def test_a_refit_keeps_the_name_of_a_segment_that_stays(sqlite_url: str, tmp_path: Path) -> None:
    bank = Bank(sqlite_url, tmp_path).build()
    bank.do("segmenter.fit", until=MIDDLE)
    first, *_ = names(bank)
    bank.do("segmenter.rename", options={"segment_id": first, "name": "Owls", "by": "ana"})

    again = bank.do("segmenter.fit")

    assert first in again.data["gate"]["kept"]
    kept = bank.ask(
        "SELECT name, named_by FROM #segments "
        f"WHERE segment_id = {first} AND model_version_id = '{again.model_version_id}'"
    )
    assert [tuple(row) for row in kept] == [("Owls", "ana")]


def test_the_command_says_what_it_did_and_refuses_with_exit_2(bank, monkeypatch, capsys):
    first, second, *_ = names(bank)
    config = bank.file()

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["peerwatch", "--config", str(config), *words])
        return main(), *capsys.readouterr()

    capsys.readouterr()
    done, data, _ = command(
        "segmenter", "rename", str(second), "Early birds", "--by", "ana", "--json"
    )
    refused, _, message = command("segmenter", "rename", str(first), "early birds", "--by", "ana")

    assert done == 0 and json.loads(data)["name"] == "Early birds"
    assert names(bank)[second] == ("Early birds", "ana")
    assert refused == 2
    assert message == (
        f'peerwatch: "early birds" is the name of segment {second} already; choose another.\n'
    )


def test_a_dry_run_writes_nothing(bank):
    first, *_ = names(bank)
    before = names(bank)

    outcome = bank.do(
        "segmenter.rename", dry_run=True,
        options={"segment_id": first, "name": "Something else", "by": "ana"},
    )  # fmt: skip

    assert outcome.message.startswith("would have renamed")
    assert names(bank) == before


def test_a_name_that_cannot_be_given_is_refused_with_every_reason(bank):
    first, second, *_ = names(bank)
    taken = names(bank)[second][0]

    (unknown,) = said(bank, 99, "Owls")
    (used,) = said(bank, first, taken.upper())
    empty, nobody = said(bank, first, "  ", by="")

    assert "has no segment 99; it has " in unknown and f"{second} ({taken})" in unknown
    assert used == f'"{taken.upper()}" is the name of segment {second} already; choose another.'
    assert empty.startswith("A name is one line of 1 to 60 printable signs; found ''")
    assert nobody == 'A name has an author: say who gives it, --by NAME; found "".'
    assert said(bank, first, "two\nlines")[0].startswith("A name is one line")
    assert said(bank, first, "Owls", by="Model")[0].startswith("A name has an author")


def test_the_configurations_names_stand(bank):
    first, second, *_ = names(bank)
    bank.configure(names={str(first): "From the file"})

    (wins,) = said(bank, first, "Owls")
    (used,) = said(bank, second, "From the file")
    bank.configure()

    assert wins == (
        f'Segment {first} is named "From the file" by peerwatch.toml, which wins. Change it there, '
        "or take it out: [segmenter] names."
    )
    assert used == f'"From the file" is the name of segment {first} already; choose another.'
