"""The command line: one file a verb; only here is anything printed or an exit code chosen."""

from __future__ import annotations

from hiexchange.cli.app import main

__all__ = ["main"]
