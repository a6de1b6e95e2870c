"""``hiexchange listen``: take HL7 v2 messages over MLLP; store each before acknowledging it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiexchange.cli import render


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("listen")
    def listen(
        inbox: Annotated[Path, typer.Argument(help="Folder for the messages.")] = Path("inbox"),
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 2575,
        certificate: Annotated[Path | None, typer.Option(help="PEM certificate chain: MLLP over TLS.")] = None,
        key: Annotated[Path | None, typer.Option(help="PEM key, when it is not in the certificate file.")] = None,
        client_ca: Annotated[Path | None, typer.Option(help="PEM authorities whose clients may connect.")] = None,
        allow_plain: Annotated[bool, typer.Option(help="Listen beyond loopback without TLS.")] = False,
    ) -> None:
        """Take HL7 v2 messages over MLLP into a folder. A message is on disk before its AA is sent. Ends with Ctrl-C."""
        from hiexchange.encounters.listen import MLLPListener, server_tls
        from hiexchange.errors import ConfigError

        tls = server_tls(certificate, key, client_ca=client_ca) if certificate else None
        if tls is None and host not in ("127.0.0.1", "::1", "localhost") and not allow_plain:
            raise ConfigError(
                "messages would cross the network in the clear",
                hint="give --certificate, or --allow-plain inside a VPN",
            )
        listener = MLLPListener(inbox, host=host, port=port, tls=tls)
        render.out(f"listening on {host}:{listener.port} ({'TLS' if tls else 'plain'}), storing into {inbox}")
        try:
            listener.serve()
        finally:
            counts = listener.counts
            render.err(f"stored {counts.stored:,}, refused {counts.refused:,}, failed {counts.failed:,}")
