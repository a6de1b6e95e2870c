"""Settings and secrets: the only module that reads the environment.

One TOML file; flag > ``HIEXCHANGE_*`` > project file > user file > default. Constructors elsewhere
take everything as arguments; :func:`load` gives frozen :class:`Settings` from which ``pipeline``
builds objects. Secrets are references (``env:NAME`` or ``file:PATH``); a literal secret is refused.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from hiexchange.errors import ConfigError

USER_FILE = Path("~/.config/hiexchange/config.toml")


class Secret:
    """A secret by reference: ``env:NAME`` or ``file:PATH``. Never shows its value."""

    __slots__ = ("base", "reference")

    def __init__(self, reference: str, *, base: Path | None = None) -> None:
        """Keep the reference; ``base`` is the folder that a relative ``file:`` path starts from.

        Raises:
            ConfigError: The text is not a reference: it may be the secret itself, so it is not shown.
        """
        kind, _, rest = reference.partition(":")
        if kind not in ("env", "file") or not rest:
            raise ConfigError(
                "a secret must be given by reference, not by value",
                hint='write "env:NAME" or "file:PATH" and keep the value out of the configuration',
                code="HX-202",
            )
        self.reference = reference
        self.base = base

    def reveal(self) -> str:
        """Return the secret's text, without a trailing line end.

        Raises:
            ConfigError: The variable is not set, or the file cannot be read.
        """
        kind, _, rest = self.reference.partition(":")
        if kind == "env":
            value = os.environ.get(rest)
            if not value:
                raise ConfigError(f"the secret {self.reference} is not set", hint=f"export {rest}=…", code="HX-202")
            return value
        path = (self.base or Path()) / Path(rest).expanduser()
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the secret {self.reference} cannot be read: {type(error).__name__}",
                where=str(path),
                hint="check the path and its permissions",
                code="HX-202",
            ) from None

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"
