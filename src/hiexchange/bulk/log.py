"""The shared bulk export log, ``log.ndjson``, format version 2.

Written by smart-on-fhir/bulk-data-client and smart-fetch too, and read by Cumulus. One JSON object a
line; links to files without their query, no cookies, no credentials, of an error only its codes.

Source:
    smart-on-fhir/bulk-data-client wiki, "Bulk Data Export Log Items".
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hiexchange._files import storage_errors
from hiexchange._http import Response
from hiexchange._urls import redact

VERSION = "2"
ABOUT = ("softwareName", "softwareVersion", "softwareReleaseDate", "fhirVersion")
"""What the format tells about a server, from its CapabilityStatement; null where it does not say."""
NOT_LOGGED = re.compile(r"auth|cookie|token|secret|api-?key")
QUERY = re.compile(r"(https?://[^\s?,;<>\"]+)\?[^\s,;<>\"]*")


class ExportLog:
    """Appends to one job folder's log; opened anew for each event, so that nothing waits in a buffer."""

    def __init__(self, path: Path, *, client_version: str = "0.1.0") -> None:
        """Use ``path``; ``exportId`` is random until :attr:`export_id` is set to the status URL."""
        self.path = path
        self.export_id = str(uuid.uuid4())
        self._version = client_version
        self._lock = threading.Lock()

    def write(self, event: str, **detail: Any) -> None:
        """Append one event; its detail's names are those of the format."""
        row: dict[str, Any] = {
            "exportId": self.export_id,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "eventId": event,
            "eventDetail": detail,
        }
        if event == "kickoff":
            row |= {"_client": "hiexchange", "_clientVersion": self._version}
        line = msgspec.json.encode(row) + b"\n"
        with self._lock, storage_errors(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)

    def kickoff(
        self,
        url: str,
        parameters: Mapping[str, str],
        response: Response,
        *,
        codes: tuple[str, ...],
        about: Mapping[str, str | None],
    ) -> None:
        """Record the kick-off's answer; ``about`` holds what the server says of itself, see :data:`ABOUT`."""
        accepted = response.status_code < 300
        self.write(
            "kickoff",
            exportUrl=redact(url),
            **{name: about.get(name) for name in ABOUT},
            requestParameters={name: value for name, value in parameters.items() if name != "patient"},
            errorCode=None if accepted else response.status_code,
            errorBody=None if accepted else ", ".join(codes) or None,
            responseHeaders=headers_of(response),
            logVersion=VERSION,
        )

    def status(self, response: Response | None, *, failed: bool, message: str, codes: tuple[str, ...] = ()) -> None:
        """Record a poll that is not the last."""
        if response is not None and not failed:
            self.write(
                "status_progress",
                body=None,
                xProgress=response.headers.get("x-progress"),
                retryAfter=response.headers.get("retry-after"),
            )
            return
        self.write(
            "status_error",
            body=", ".join(codes) or None,
            code=None if response is None else response.status_code,
            message=message,
            responseHeaders=None if response is None else headers_of(response),
        )


def headers_of(response: Response) -> dict[str, str]:
    """Return the headers that may be kept; links in them lose their query."""
    return {
        name: QUERY.sub(r"\1?…", value)
        for name, value in response.headers.items()
        if not NOT_LOGGED.search(name.lower())
    }
