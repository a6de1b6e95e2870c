"""The options by which a verb names its server: a configuration's name, or an address and a credential."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer

if TYPE_CHECKING:
    from hiexchange.servers import Server

KEYWORD_ONLY = Parameter.KEYWORD_ONLY
DEFAULT_CONFIG = Path("hiexchange.toml")
Command = Callable[..., None]


@dataclass(frozen=True)
class Given:
    """What the options say about the server."""

    config: Annotated[Path, typer.Option(help="Configuration with [servers.NAME] tables.")] = DEFAULT_CONFIG
    server: Annotated[str, typer.Option(help="Name of a [servers.NAME]; needed where there are several.")] = ""
    url: Annotated[str, typer.Option(help="Base URL, instead of a configured server.")] = ""
    preset: Annotated[str, typer.Option(help="Server preset, see `hiexchange servers`.")] = ""
    client_id: Annotated[str, typer.Option(help="Client id, or env:NAME, or file:PATH.")] = ""
    client_secret: Annotated[str, typer.Option(help="env:NAME or file:PATH.")] = ""
    key: Annotated[str, typer.Option(help="Private key: file:PATH or env:NAME (JWK, JWKS or PEM).")] = ""

    def chosen(self) -> Server:
        """Return the server that the options name.

        Raises:
            ConfigError: None, or several without a name.
        """
        return chosen(self.config, self.server, url=self.url, preset=self.preset, **self._credential())

    def of_job(self, folder: Path) -> Server:
        """Return the server of a job's folder, with the credential from the options or the configuration.

        Raises:
            ConfigError: There is no job in the folder.
        """
        from hiexchange.bulk.folder import read_request

        stored = read_request(folder)["server"]
        if self.server or self.config.exists():
            return chosen(self.config, self.server, **self._credential())
        known = {name: stored.get(name) for name in ("url", "preset", "version")}
        return chosen(self.config, "", **known, **self._credential())

    def _credential(self) -> dict[str, str]:
        return {"client_id": self.client_id, "client_secret": self.client_secret, "key": self.key}


def options(*, address: bool = True) -> Callable[[Command], Command]:
    """Give a command the options that name its server; it is called with them as ``given``.

    Args:
        address: Also the options for a server that is not configured. A command on a job's folder needs none.
    """
    hints = get_type_hints(Given, include_extras=True)
    offered = [item for item in fields(Given) if address or item.name not in ("url", "preset")]

    def decorate(command: Command) -> Command:
        def run(**values: Any) -> None:
            given = Given(**{item.name: values.pop(item.name) for item in offered})
            command(given=given, **values)

        own = [item for item in inspect.signature(command, eval_str=True).parameters.values() if item.name != "given"]
        added = [
            Parameter(item.name, KEYWORD_ONLY, default=item.default, annotation=hints[item.name]) for item in offered
        ]
        parameters = [*(item.replace(kind=KEYWORD_ONLY) for item in own), *added]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        # What typer makes a command of.
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        cast(Any, run).__signature__ = inspect.Signature(parameters)
        return run

    return decorate


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
    if config == DEFAULT_CONFIG and not config.exists():
        raise ConfigError("which server?", hint=f"give --url, or name one of {config}, which is not in this folder")
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
