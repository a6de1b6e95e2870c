"""Official cases by measure, where they stand beside the checkout."""

from __future__ import annotations

import gzip
from collections import defaultdict
from datetime import date

import pytest

from hiexchange.measures import Measure
from hiexchange.measures.sources import decode


@pytest.fixture
def official(shared):
    """Return a function: part of a name -> (measure, {period: [(case, resources)]}) for each that has cases."""
    folder = shared / "ecqm"
    if not folder.is_dir():
        pytest.skip("the official measures are not beside the checkout: ecqm is absent")

    def load(part=""):
        for file in sorted((folder / "cases").glob("*.ndjson.gz")):
            name = file.name.split(".")[0]
            if part not in name:
                continue
            periods = defaultdict(list)
            for line in gzip.decompress(file.read_bytes()).split(b"\n"):
                if line.strip():
                    case = decode(line)
                    days = tuple(date.fromisoformat(case["period"][end][:10]) for end in ("start", "end"))
                    periods[days].append((case["case"], [entry["resource"] for entry in case["bundle"]["entry"]]))
            yield Measure.load(folder / "measures" / f"{name}.json.gz", accept={"all"}), periods

    return load
