"""Fixtures every room shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_folder() -> Path:
    """The folder of sample data and official suites, beside the checkout."""
    given = os.environ.get("HIEXCHANGE_SHARED")
    return Path(given) if given else Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """``../shared``, or a skip that says why."""
    folder = shared_folder()
    if not (folder / "data").is_dir():
        pytest.skip(f"sample data is not beside the checkout: {folder.name}/data is absent (set HIEXCHANGE_SHARED)")
    return folder
