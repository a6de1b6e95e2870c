"""The options by which a verb names its server: a configuration's name, or an address and a credential."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hiexchange.servers import Server

Config = Annotated[Path, typer.Option("--config", help="Configuration with [servers.NAME] tables.")]
Name = Annotated[str, typer.Option("--server", help="Name of a [servers.NAME]; needed where there are several.")]
Url = Annotated[str, typer.Option("--url", help="Base URL, instead of a configured server.")]
PresetName = Annotated[str, typer.Option("--preset", help="Server preset, see `hiexchange servers`.")]
ClientId = Annotated[str, typer.Option(help="Client id, or env:NAME, or file:PATH.")]
ClientSecret = Annotated[str, typer.Option(help="env:NAME or file:PATH.")]
Key = Annotated[str, typer.Option(help="Private key: file:PATH or env:NAME (JWK, JWKS or PEM).")]

DEFAULT_CONFIG = Path("hiexchange.toml")


def chosen(config: Path, name: str, **given: Any) -> Server:
    """Return the server that the options name.

    Raises:
        ConfigError: None, or several without a name.
    """
    from hiexchange import config as configuration
    from hiexchange.errors import ConfigError
    from hiexchange.servers import build

    options = {key: value for key, value in given.items() if value}
    if options.get("url") or (options.get("preset") and not name):
        return build(options)
    settings = configuration.load(config)
    if not name and len(settings.servers) == 1:
        name = next(iter(settings.servers))
    if name not in settings.servers:
        known = ", ".join(settings.servers) or "none"
        raise ConfigError(
            f"the configuration has no server {name!r}" if name else "which server? there is not exactly one",
            where=str(config),
            hint=f"--server NAME, one of: {known}; or --url with --client-id and --key",
        )
    return build({**settings.servers[name], **options}, base=Path(settings.base))
