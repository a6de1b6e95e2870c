"""Hold a request against what is known of the server, before anything is sent. Pure.

What a preset says a server refuses is refused here, with advice; what it needs said explicitly is
said. Nothing is dropped.
"""

from __future__ import annotations

from dataclasses import replace

from hiexchange.bulk.request import ExportRequest
from hiexchange.errors import ConfigError
from hiexchange.servers import Preset, Server


def fit_request(request: ExportRequest, server: Server) -> ExportRequest:
    """Return the request as the server needs it.

    AB2D must be told ``_since``: without it the server starts at its own memory of our last download,
    which a colleague's test or a lost file moves.

    Raises:
        ConfigError: The server offers no such level, group, type or parameter.
    """
    known = server.preset
    floor = known.since_floor.get(str(server.version))
    if known.since_required and request.since is None:
        if floor is None:
            raise ConfigError(f"{known.name} needs an explicit since")
        request = replace(request, since=floor)
    _check(request, known)
    return request


def _check(request: ExportRequest, known: Preset) -> None:
    hint = f"see `hiexchange servers {known.name}`"
    if request.level not in known.levels:
        raise ConfigError(f"{known.name} offers no export at {request.level} level", hint=hint)
    if known.groups and request.group is not None and request.group not in known.groups:
        names = " and ".join(f'"{name}"' for name in known.groups)
        raise ConfigError(f"{known.name} accepts only the groups {names}", hint=hint)
    if known.types and (wrong := [name for name in request.types if name not in known.types]):
        raise ConfigError(f"{known.name} does not export {', '.join(wrong)}", hint=hint)
    if known.params and (request.lenient or request.separate_status):
        raise ConfigError(f"{known.name} takes no preference but respond-async", hint=hint)
    if known.params:
        asked = dict(request.parameters()) | ({"patient": ""} if request.patients else {})
        if unknown := [name for name in asked if name not in known.params]:
            raise ConfigError(f"{known.name} does not know {', '.join(unknown)}", hint=hint)
