"""``hiexchange servers``: what is known about each kind of server."""

from __future__ import annotations

from typing import Annotated

import typer

from hiexchange.cli import render


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("servers")(servers)


def servers(name: Annotated[str, typer.Argument(help="A preset, for its details.")] = "") -> None:
    """List the server presets, or show one."""
    from dataclasses import fields

    from hiexchange.servers import preset, presets

    if not name:
        render.table([(known.name, known.title, known.base) for known in presets().values()], ("name", "what", "base"))
        return
    found = preset(name)
    for item in fields(found):
        value = getattr(found, item.name)
        if value not in (None, (), "", {}, 0, False):
            if isinstance(value, dict):
                value = tuple(f"{key}: {item}" for key, item in value.items())
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            render.out(f"{item.name:<22} {text}")
