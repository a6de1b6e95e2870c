"""What a user types wrong: each says what happened, where, what to do, with the documented exit code."""

from __future__ import annotations

import errno
import gzip
import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from hiexchange.cli import app as application
from hiexchange.cli import main
from hiexchange.cli.app import app, register_verbs
from hiexchange.errors import ConfigError, HIExchangeError
from hiexchange.lake import Lake
from hiexchange.measures import evaluate
from hiexchange.roster import read_roster

if not app.registered_groups:
    register_verbs()

YEAR = ("--start", "2025-01-01", "--end", "2025-12-31")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: object) -> tuple[str, int]:
    """The error's text and its exit code."""
    error = run(*words).exception
    assert isinstance(error, HIExchangeError), error
    return str(error), error.exit_code


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    (tmp_path / "Patient.ndjson").write_text('{"resourceType":"Patient","id":"-1","birthDate":"1970-01-01"}\n')
    Lake(tmp_path / "lake").ingest(tmp_path / "Patient.ndjson")
    return tmp_path / "lake"


@pytest.mark.parametrize(
    "words",
    [
        ("lake", "tables", "--lake"),
        ("lake", "show", "Patient", "--lake"),
        ("lake", "to-ndjson", "Patient", "--lake"),
        ("lake", "compact", "--lake"),
        ("lake", "vacuum", "--lake"),
        ("attribution", "show", "--lake"),
        ("attribution", "report", "--quarter", "2026-Q1", "--lake"),
        ("view", "run", "encounter", "--lake"),
    ],
    ids=" ".join,
)
def test_a_folder_nobody_made_a_lake_is_no_empty_lake(words: tuple[str, ...], tmp_path: Path) -> None:
    for folder, what in ((tmp_path, "there is no lake here"), (tmp_path / "none", "there is no such folder")):
        text, code = refused(*words, folder)
        assert what in text and str(folder) in text and code == 3
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_not_loaded_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    text, code = refused("lake", "ingest", tmp_path / "empty", "--lake", tmp_path / "lake")
    assert "the folder holds no NDJSON file" in text and code == 3


def test_nested_values_do_not_fill_the_screen(tmp_path: Path) -> None:
    names = ",".join(f'{{"family":"Name{number}"}}' for number in range(20))
    (tmp_path / "Patient.ndjson").write_text(f'{{"resourceType":"Patient","id":"-1","name":[{names}]}}\n')
    Lake(tmp_path / "lake").ingest(tmp_path / "Patient.ndjson")
    shown = run("lake", "show", "Patient", "--columns", "id,name", "--lake", tmp_path / "lake").output
    assert max(map(len, shown.splitlines())) < 80 and "…" in shown


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("-m", "data-completenes"), "did you mean data-completeness?", 3),
        (("-m", "none.json"), "give the path of a bundle, or one of data-completeness", 3),
        (("-m", "data-completeness", "--by", "gender"), "cannot be cut by 'gender'", 3),
        (("-m", "data-completeness", "--offset", "-360"), 'write it as "-06:00"', 3),
    ],
)
def test_a_slip_in_a_measure_is_told_before_anything_is_counted(
    words: tuple[str, ...], said: str, code: int, lake: Path
) -> None:
    text, found = refused("measure", "run", lake, *words, *YEAR)
    assert said in text and found == code


def test_measures_say_what_they_read(lake: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "none", tmp_path / "empty"):
        assert "our own measures read a lake" in refused("measure", "run", source, "-m", "data-completeness", *YEAR)[0]
    assert "has no defines" in refused("measure", "why", lake, "-1", "-m", "data-completeness", *YEAR)[0]
    year = (date(2025, 1, 1), date(2025, 12, 31))
    with pytest.raises(ConfigError, match="read a lake"):
        evaluate("data-completeness", "lake", period=year)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="two days"):
        evaluate("data-completeness", Lake(lake), period=("2025-01-01", "2025-12-31"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="timedelta"):
        evaluate("data-completeness", Lake(lake), period=year, offset="-06:00")  # type: ignore[arg-type]


def test_one_offset_is_written_alike_everywhere(lake: Path) -> None:
    done = run("measure", "run", lake, "-m", "data-completeness", *YEAR, "--offset", "-06:00")
    assert done.exit_code == 0 and "Complete demographics" in done.output
    gaps = run("measure", "gaps", lake, "-m", "data-completeness", *YEAR, "--offset", "-06:00")
    assert gaps.output == "Complete demographics: 0 gaps\n"  # ours tell no reasons


def test_a_roster_that_is_not_there_is_called_so(tmp_path: Path) -> None:
    text, code = refused("roster", "check", tmp_path / "none.csv", "--layout", "csv")
    assert "No such file or directory" in text and "Error" not in text and code == 3
    with pytest.raises(ConfigError, match="as_of must be a date"):
        read_roster("x.csv", "csv", received_at=datetime.now(UTC), as_of="2026-01-01")  # type: ignore[arg-type]


def test_what_cannot_be_read_is_said_in_the_systems_words(tmp_path: Path, lake: Path) -> None:
    for name in ("none.json", "none.sql"):
        text, code = refused("view", "run", tmp_path / name, "--lake", lake)
        assert "No such file or directory" in text and name in text and code == 3
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"{}" * 500)[:20])
    text, code = refused("measure", "check", tmp_path / "cut.json.gz")
    assert "the file is not JSON" in text and code == 7
    (tmp_path / "latin.sql").write_bytes(b"-- @name x\n-- caf\xe9\nselect 1")
    assert "is not UTF-8" in refused("view", "run", tmp_path / "latin.sql", "--lake", lake)[0]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("match", "explain", "key", "-1"), "the lake holds no member table"),
        (("measure", "why", "{lake}", "-1", "-m", "none.json", *YEAR), "no such measure bundle"),
    ],
)
def test_an_id_that_begins_with_a_hyphen_is_no_option(words: tuple[str, ...], what: str, lake: Path) -> None:
    given = [word.format(lake=lake) for word in words]
    assert what in refused(*given, *(("--lake", lake) if words[0] == "match" else ()))[0]


def test_a_review_file_in_another_encoding_is_called_so(tmp_path: Path, lake: Path) -> None:
    (tmp_path / "queue.csv").write_bytes("verdict,decided_by\nsame,Jos\u00e9\n".encode("latin-1"))
    Lake(lake).append("member", _no_members())
    text, code = refused("match", "decide", tmp_path / "queue.csv", "--lake", lake)
    assert "is not UTF-8" in text and code == 7


def _no_members() -> object:
    from hiexchange.tables import MEMBER

    return MEMBER.empty()


def test_the_demo_leaves_other_peoples_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    text, code = refused("demo", "--folder", tmp_path)
    assert "the folder holds something else" in text and code == 3
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "free space"), (errno.EROFS, "check the path and its permissions")]
)
def test_a_disk_that_refuses_is_no_unexpected_error(
    number: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    monkeypatch.setattr("hiexchange.testing.population.generate", refuse)
    monkeypatch.setattr(application, "register_verbs", lambda: None)
    monkeypatch.setattr(sys, "argv", ["hiexchange", "synth", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 3
    assert said.startswith("error HX-104 ") and str(tmp_path) in said and os.strerror(number) in said and hint in said


def test_help_is_not_cut_off() -> None:
    """The list of verbs says a whole sentence of each, on a terminal of 80 columns."""

    def cut(command: object, path: str) -> list[str]:
        children = getattr(command, "commands", {})
        room = 78 - 6 - max(map(len, children), default=0)
        found = [f"{path} {name}" for name, child in children.items() if child.get_short_help_str(room)[-3:] == "..."]
        return found + [name for key, child in children.items() for name in cut(child, f"{path} {key}")]

    assert cut(typer.main.get_command(app), "hiexchange") == []


def test_the_version_is_told() -> None:
    import hiexchange

    assert run("--version").output == f"hiexchange {hiexchange.__version__}\n"
