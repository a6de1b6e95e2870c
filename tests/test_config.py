"""Configuration: strict keys, precedence, secrets by reference only."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiexchange import config
from hiexchange.config import Secret
from hiexchange.errors import ConfigError

NOWHERE = Path("no-such-user-file.toml")


def load(tmp_path: Path, text: str, **environ: str) -> config.Settings:
    file = tmp_path / "hiexchange.toml"
    file.write_text(text)
    return config.load(file, environ=environ, user_file=NOWHERE)


def test_reads_every_section(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        output = "result"
        known_at = "2026-01-05T06:00:00Z"
        [servers.hospital]
        url = "https://fhir.example/r4"
        client_id = "share"
        key = "file:share.jwk"
        [export]
        types = ["Patient", "Encounter"]
        [[rosters]]
        path = "a.csv"
        layout = "csv"
        as_of = 2025-01-01
        [[subscriptions]]
        id = "clinic-7"
        [[measures]]
        id = "followup-7d"
        period = [2025-01-01, 2025-12-31]
        """,
    )
    assert settings.servers["hospital"]["client_id"] == "share"
    assert settings.export.types == ("Patient", "Encounter")
    assert settings.rosters[0].as_of and settings.rosters[0].as_of.isoformat() == "2025-01-01"
    assert settings.measures[0].period[1].isoformat() == "2025-12-31"
    assert settings.subscriptions == ({"id": "clinic-7"},)
    assert settings.path("a.csv") == tmp_path.resolve() / "a.csv"


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ('outptu = "x"', "outptu", "did you mean `output`?"),
        ('[[rosters]]\npath="a"\nlayuot="b"\nlayout="c"', "layuot", "did you mean `layout`?"),
        ("[export]\nzzz = 1", "zzz", "known keys: group, level"),
    ],
)
def test_a_key_that_does_not_exist_is_named_with_a_hint(tmp_path: Path, text: str, key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert f"`{key}`" in caught.value.what
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 3


def test_a_value_of_the_wrong_type_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"export\.types"):
        load(tmp_path, '[export]\ntypes = "Patient"')


def test_a_table_where_several_may_stand_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wrong form") as caught:
        load(tmp_path, '[rosters]\npath = "a.csv"\nlayout = "b.toml"\n')
    assert "[[rosters]]" in (caught.value.hint or "")


def test_environment_outranks_the_file_and_the_file_the_user(tmp_path: Path) -> None:
    user = tmp_path / "user.toml"
    user.write_text('output = "of-user"\n[export]\ngroup = "of-user"\nlevel = "group"')
    file = tmp_path / "hiexchange.toml"
    file.write_text('output = "of-file"\n[export]\ngroup = "of-file"')
    settings = config.load(file, environ={"HIEXCHANGE_EXPORT__GROUP": "of-env"}, user_file=user)
    assert (settings.output, settings.export.group, settings.export.level) == ("of-file", "of-env", "group")


@pytest.mark.parametrize("text", ["output = ", "[servers", 'a = "\\q"'])
def test_a_file_that_is_not_toml_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        load(tmp_path, text)


def test_a_file_that_does_not_exist_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        config.load(tmp_path / "none.toml", environ={}, user_file=NOWHERE)


def test_a_literal_secret_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, '[servers.a]\nurl = "https://x.example"\nclient_secret = "hunter2"')
    assert "hunter2" not in str(caught.value)
    assert "servers.a" in str(caught.value)


def test_secret_hides_itself_and_reveals_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("HX_TEST_SECRET", "from-env")
    assert Secret("env:HX_TEST_SECRET").reveal() == "from-env"
    assert Secret("file:key", base=tmp_path).reveal() == "from-file"
    assert "from-env" not in repr(Secret("env:HX_TEST_SECRET"))


@pytest.mark.parametrize("reference", ["env:HX_NOT_SET_ANYWHERE", "file:/no/such/file"])
def test_a_missing_secret_is_one_clear_error(reference: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Secret(reference).reveal()
    assert caught.value.code == "HX-202"
