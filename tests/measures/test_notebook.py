"""The example notebook runs from top to bottom on the sample data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebooks" / "measures.ipynb"


def test_the_notebook_runs(shared, monkeypatch, capsys):
    if not (shared / "data" / "synthea-100").is_dir() or not (shared / "ecqm").is_dir():
        pytest.skip("the notebook's sample data is not beside the checkout: data/synthea-100 or ecqm is absent")
    monkeypatch.setenv("HIEXCHANGE_SHARED", str(shared))
    names: dict[str, object] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)
    assert "Follow-up within 7 days" in capsys.readouterr().out
    assert len(names["runs"]) >= 2
