"""``hiexchange doctor``: is everything there that an export from this server needs?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiexchange.cli import _server, render

CREDENTIAL = 3


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor")(doctor)


@_server.options()
def doctor(
    given: _server.Given,
    folder: Annotated[Path, typer.Option(help="Where jobs will be written.")] = Path(),
) -> None:
    """Check credential, server, network and disk; export nothing. It looks at key, clock, JWKS, metadata, token, proxy and disk."""
    from hiexchange.bulk.doctor import examine

    findings = examine(given.chosen(), folder)
    for finding in findings:
        mark = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}[finding.state]
        render.out(f"{mark:<5} {finding.name:<10} {finding.text}")
        if finding.advice:
            render.out(f"{'':<16} {finding.advice}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(CREDENTIAL)
