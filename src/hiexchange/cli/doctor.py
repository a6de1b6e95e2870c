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


def doctor(
    config: _server.Config = _server.DEFAULT_CONFIG,
    server: _server.Name = "",
    url: _server.Url = "",
    preset: _server.PresetName = "",
    client_id: _server.ClientId = "",
    client_secret: _server.ClientSecret = "",
    key: _server.Key = "",
    folder: Annotated[Path, typer.Option(help="Where jobs will be written.")] = Path(),
) -> None:
    """Check key, clock, JWKS, metadata, token, proxy and disk; nothing is exported."""
    from hiexchange.bulk.doctor import examine

    chosen = _server.chosen(
        config, server, url=url, preset=preset, client_id=client_id, client_secret=client_secret, key=key
    )
    findings = examine(chosen, folder)
    for finding in findings:
        mark = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}[finding.state]
        render.out(f"{mark:<5} {finding.name:<10} {finding.text}")
        if finding.advice:
            render.out(f"{'':<16} {finding.advice}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(CREDENTIAL)
