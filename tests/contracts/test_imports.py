"""The import contract of ARCHITECTURE.md, proved by import-linter."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_rooms_import_only_what_is_below_them() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_architecture_and_layers_name_every_room() -> None:
    rooms = {
        path.stem
        for path in (ROOT / "src" / "hiexchange").iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ][0]
    layers = {name.strip().removeprefix("hiexchange.") for layer in contract["layers"] for name in layer.split("|")}
    assert layers == rooms
    section = (
        (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("\n## 2. Rooms\n")[2].partition("\n## ")[0]
    )
    named = {
        name
        for row in section.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == rooms
