"""The house rules that a parser can check: who prints, who exits, what is documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "hiexchange"
MODULES = sorted(PACKAGE.rglob("*.py"))


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_module_keeps_the_house_rules(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    inside_cli = path.parent.name == "cli"
    if not inside_cli:
        forbidden = {"print", "input", "sys.exit", "exit", "quit", "logging.basicConfig"}
        assert forbidden.isdisjoint(calls(tree)), "only the command line prints, prompts or exits"
    assert ast.get_docstring(tree), "a module opens with what it is for"
    undocumented = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert undocumented == [], "public names carry a docstring"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", source), "what is left open belongs in an issue"


def test_only_config_reads_the_environment() -> None:
    readers = [
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if re.search(r"os\.environ|os\.getenv", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["config.py"]


PURE = (
    "bulk/protocol.py bulk/request.py bulk/manifest.py encounters/state.py matching/rules.py lake/decode.py "
    "attribution/history.py attribution/resolve.py routing/route.py routing/policy.py"
).split()


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_neither_clock_nor_disk_nor_wire(name: str) -> None:
    path = PACKAGE / name
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported.isdisjoint({"httpx", "os", "time", "socket", "subprocess", "random"})
    used = set(calls(tree))
    assert "open" not in used
    assert not any(name.endswith((".now", ".today", ".utcnow")) for name in used), "clocks are arguments"
