"""A small population, served on loopback, with the configuration an operator would write."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hiexchange import config, pipeline
from hiexchange.cli.demo import write_settings
from hiexchange.pipeline import RunResult
from hiexchange.testing.bulk_server import BulkServer
from hiexchange.testing.population import Population, generate

KNOWN_AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
Hiexchange = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Site:
    """A folder ready for ``hiexchange run``."""

    population: Population
    server: BulkServer
    configuration: Path

    def edit(self, old: str, new: str) -> None:
        text = self.configuration.read_text()
        assert old in text
        self.configuration.write_text(text.replace(old, new))


@dataclass(frozen=True)
class Finished:
    """A site after three runs: the first, the same again, and the same a week later."""

    site: Site
    first: RunResult
    inbox: dict[Path, bytes]
    again: RunResult
    inbox_again: dict[Path, bytes]
    later: RunResult


@contextmanager
def made_site(folder: Path) -> Iterator[Site]:
    population = generate(folder, patients=60, seed=3)
    with BulkServer(population.fhir, auth="smart") as server:
        yield Site(population, server, write_settings(population, server, KNOWN_AT))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made_site(tmp_path / "site") as made:
        yield made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    with made_site(tmp_path_factory.mktemp("finished")) as made:
        first = pipeline.run(config.load(made.configuration))
        inbox = files_under(first.output / "inbox")
        again = pipeline.run(config.load(made.configuration))
        inbox_again = files_under(first.output / "inbox")
        made.edit("2026-01-05", "2026-01-12")
        later = pipeline.run(config.load(made.configuration))
        yield Finished(made, first, inbox, again, inbox_again, later)


@pytest.fixture
def finished_copy(finished: Finished, tmp_path: Path) -> Site:
    """A copy of what the runs left, with the server still there."""
    folder = tmp_path / "copy"
    shutil.copytree(Path(finished.site.configuration).parent, folder)
    return Site(finished.site.population, finished.site.server, folder / finished.site.configuration.name)


def files_under(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def hiexchange() -> Hiexchange:
    """Run the command line as a user does, in a process of its own."""

    def run(*arguments: object, cwd: Path | None = None, **more: object) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("hiexchange")
        command = [str(program), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300, **more)  # type: ignore[call-overload,no-any-return]

    return run
