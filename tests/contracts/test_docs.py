"""Every Python block of README and docs runs, in order, one namespace a file, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from hiexchange.cli.app import app, register_verbs

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if "```python" in path.read_text()
]
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|&& |\$ )hiexchange (.*?)(?= && | &$|$)", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1
        source = "\n" * line + block.group(1)
        exec(compile(source, str(page), "exec"), namespace)


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_console_blocks_name_verbs_and_options_that_exist() -> None:
    if not app.registered_groups:
        register_verbs()
    program = typer.main.get_command(app)
    wrong = [
        f"{page.relative_to(ROOT)}: {fault} in: {line}"
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for block in CONSOLE.findall(page.read_text(encoding="utf-8").replace("\\\n", " "))
        for line in COMMAND.findall(block)
        if (fault := _fault(program, shlex.split(line, comments=True)))
    ]
    assert wrong == []


def _fault(command: Any, words: list[str]) -> str:
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if getattr(command, "commands", {}):
        return "no such verb"
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    strange = [word for word in words if re.match(r"--?[a-z]", word) and word not in known]
    return f"no such option {strange[0]}" if strange else ""


def test_reference_pages_say_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "tools/build_reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
