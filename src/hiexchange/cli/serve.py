"""``hiexchange serve``: a Bulk Data server on this machine over a folder of NDJSON files."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated

import typer

from hiexchange.cli import render


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serve")(serve)


def serve(
    folder: Annotated[Path, typer.Argument(help="NDJSON or NDJSON.gz files.")] = Path(),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8400,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    auth: Annotated[str, typer.Option(help="smart, basic or none.")] = "none",
    fault: Annotated[str, typer.Option(help="Faults by number or name, comma-separated.")] = "",
    faults: Annotated[bool, typer.Option("--faults", help="List the faults and stop.")] = False,
    page_size: Annotated[int, typer.Option(min=1, help="Resources a file.")] = 1000,
    key_file: Annotated[Path | None, typer.Option(help="Where to write the client's private JWK (smart).")] = None,
) -> None:
    """Serve a folder as a Bulk Data server, with faults on demand. Ends with Ctrl-C."""
    from hiexchange.testing import bulk_faults

    if faults:
        rows = sorted((known.number, known.name, known.doc) for known in bulk_faults.load().values())
        render.table(rows, ("number", "name", "what the server does"))
        return
    _serve(folder, port, host, auth, [text.strip() for text in fault.split(",") if text.strip()], page_size, key_file)


def _serve(
    folder: Path, port: int, host: str, auth: str, faults: list[str], page_size: int, key_file: Path | None
) -> None:
    from hiexchange._files import write_json
    from hiexchange.errors import ConfigError, StorageError
    from hiexchange.testing.bulk_server import BulkServer

    if auth not in ("smart", "basic", "none"):
        raise ConfigError(f"auth is smart, basic or none, not {auth!r}")
    if not folder.is_dir():
        raise ConfigError("the folder does not exist", where=str(folder))
    try:
        server = BulkServer(folder, auth=auth, faults=faults, page_size=page_size, host=host, port=port)
        server.start()
    except OSError as error:
        raise StorageError("the port cannot be opened", where=f"{host}:{port}", said=str(error.strerror)) from None
    with server, contextlib.suppress(KeyboardInterrupt):  # that is how it is ended
        render.out(server.url)
        render.err(f"  types     {', '.join(server.store.types) or 'none: the folder holds no NDJSON'}")
        if auth != "none":
            render.err(f"  client    {server.client_id}")
        if auth == "basic":
            render.err(f"  secret    {server.client_secret}   token URL /auth/token")
        if auth == "smart" and key_file is not None:
            write_json(key_file, server.private_key)
            render.err(f"  key       {key_file}")
        for known in server.faults:
            render.err(f"  fault     {known.number} {known.name}: {known.doc}")
        while True:
            time.sleep(3600)
