"""Every exception hiexchange raises, drawn as one tree.

```
HIExchangeError(code, where, said, hint)
  ConfigError  MissingExtra  UnknownLayout        the caller's side
  PolicyViolation                                 a URL or a file we refuse to touch
  ServerError                                     the other side; URLs are redacted
    AuthError  ServerUnavailable(retry_after_s)  ProtocolViolation
    RequestRefused -> KickOffRejected -> AttributionUnavailable
  ExportError
    JobFailed  JobExpired  JobVanished  JobTimeout  JobInterrupted  JobLocked  JobMismatch  JournalCorrupt
    PartialExport  IntegrityError  FileExhausted
  DataError
    BadLine  SchemaMismatch  RosterError  LakeError  ViewError -> FHIRPathError  MeasureError
  DeliveryError
  StorageError                                    disk full, folder not writable
```

Bad *rows* are not exceptions: they become ISSUE rows. An exception means that a stage cannot
return a truthful table. No message holds resource content: ids of jobs and files, counts and
redacted URLs only.
"""

from __future__ import annotations

from typing import Any


class HIExchangeError(Exception):
    """Say what happened, where, what the other side said, and what to do about it."""

    code = "HX-100"
    exit_code = 1
    resumable = False

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        said: str | None = None,
        hint: str | None = None,
        code: str | None = None,
        resumable: bool | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.said = said
        self.hint = hint
        if code is not None:
            self.code = code
        if resumable is not None:
            self.resumable = resumable

    def __str__(self) -> str:
        parts = [f"{self.code} {self.what}"]
        parts += [f"{label}: {text}" for label, text in self.details()]
        return "; ".join(parts)

    def details(self) -> list[tuple[str, str]]:
        """Return the lines under the first one: ``where``, ``said``, ``do``, those that are known."""
        lines = (("where", self.where), ("said", self.said), ("do", self.hint))
        return [(label, text) for label, text in lines if text]

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments defeat the default pickling, and workers are processes.
        return (_rebuild, (type(self), self.what, self.__dict__.copy()))


def _rebuild(kind: type[HIExchangeError], what: str, state: dict[str, Any]) -> HIExchangeError:
    error = kind.__new__(kind)
    Exception.__init__(error, what)
    error.__dict__.update(state)
    return error


class ConfigError(HIExchangeError):
    """A setting, key, path or secret given by the caller cannot be used."""

    code = "HX-101"
    exit_code = 3


class MissingExtra(ConfigError):
    """A feature needs an optional dependency that is not installed."""

    code = "HX-102"

    def __init__(self, extra: str, feature: str) -> None:
        super().__init__(f"{feature} needs the '{extra}' extra", hint=f"pip install 'hiexchange[{extra}]'")


class UnknownLayout(ConfigError):
    """A roster layout, view, measure, channel or format of that name does not exist."""

    code = "HX-103"


class PolicyViolation(HIExchangeError):
    """A URL, path or redirect was refused because it would leave the agreed boundary."""

    code = "HX-210"
    exit_code = 4


class ServerError(HIExchangeError):
    """The server, or the way to it, failed."""

    code = "HX-300"
    exit_code = 4


class AuthError(ServerError):
    """The server did not accept the credential, or granted less than was asked."""

    code = "HX-201"
    exit_code = 3


class ServerUnavailable(ServerError):
    """The server could not be reached, or kept failing, until the budget was spent."""

    code = "HX-302"
    exit_code = 5
    resumable = True

    def __init__(self, what: str, *, retry_after_s: float | None = None, **parts: Any) -> None:
        super().__init__(what, **parts)
        self.retry_after_s = retry_after_s


class ProtocolViolation(ServerError):
    """The server answered in a way the standard does not allow and that cannot be read safely."""

    code = "HX-303"


class RequestRefused(ServerError):
    """The server understood the request and refused it; ``issues`` are OperationOutcome codes."""

    code = "HX-301"

    def __init__(self, what: str, *, issues: tuple[str, ...] = (), **parts: Any) -> None:
        super().__init__(what, **parts)
        self.issues = issues


class KickOffRejected(RequestRefused):
    """The export was refused at kick-off; ``parameter`` is the one the server named, if any."""

    def __init__(self, what: str, *, parameter: str | None = None, **parts: Any) -> None:
        super().__init__(what, **parts)
        self.parameter = parameter


class AttributionUnavailable(KickOffRejected):
    """The payer has not attributed anyone yet (BCDA in January)."""

    code = "HX-304"


class ExportError(HIExchangeError):
    """An export job cannot be completed as it stands."""

    code = "HX-310"
    exit_code = 4


class JobFailed(ExportError):
    """The server reported that the export job failed."""

    code = "HX-311"


class JobExpired(ExportError):
    """The job or its files are no longer kept by the server."""

    code = "HX-312"


class JobVanished(ExportError):
    """The server no longer knows the job."""

    code = "HX-313"


class JobTimeout(ExportError):
    """The job was not complete at the deadline the caller set."""

    code = "HX-314"
    exit_code = 5
    resumable = True


class JobInterrupted(ExportError):
    """The caller asked the job to stop; its state is saved."""

    code = "HX-321"
    exit_code = 130
    resumable = True


class JobLocked(ExportError):
    """Another process is working in the same job or lake folder."""

    code = "HX-315"
    exit_code = 3


class JobMismatch(ExportError):
    """The folder belongs to another request."""

    code = "HX-316"
    exit_code = 3


class JournalCorrupt(ExportError):
    """A journal line other than the last one is damaged; nothing is guessed."""

    code = "HX-317"
    exit_code = 7


class PartialExport(ExportError):
    """Some files could not be had; ``result`` holds what was."""

    code = "HX-318"
    exit_code = 6
    resumable = True

    def __init__(self, what: str, *, result: Any = None, **parts: Any) -> None:
        super().__init__(what, **parts)
        self.result = result


class IntegrityError(ExportError):
    """A file arrived but could not be proved whole."""

    code = "HX-319"
    exit_code = 6
    resumable = True


class FileExhausted(ExportError):
    """The server hands out no more downloads of a file (AB2D: 6 a file)."""

    code = "HX-320"
    exit_code = 6


class DataError(HIExchangeError):
    """Input that cannot become a truthful table."""

    code = "HX-400"
    exit_code = 7


class BadLine(DataError):
    """One NDJSON line is not a JSON object."""

    code = "HX-412"

    def __init__(self, what: str, *, file: str, line: int, offset: int, **parts: Any) -> None:
        super().__init__(what, where=f"{file} line {line:,} (byte {offset:,})", **parts)
        self.file = file
        self.line = line
        self.offset = offset


class SchemaMismatch(DataError):
    """A table lacks a column of the corridor schema, or has it in another type."""

    code = "HX-401"


class RosterError(DataError):
    """A roster file as a whole cannot be accepted; ``issues`` is a table of ISSUE rows."""

    code = "HX-501"

    def __init__(self, what: str, *, issues: Any = None, **parts: Any) -> None:
        super().__init__(what, **parts)
        self.issues = issues


class LakeError(DataError):
    """A lake folder is not one, is of another layout, or asks for what it does not hold."""

    code = "HX-420"


class ViewError(DataError):
    """A ViewDefinition is not valid, or does not fit the data."""

    code = "HX-430"


class FHIRPathError(ViewError):
    """A FHIRPath expression cannot be parsed or evaluated; ``position`` is a character offset."""

    code = "HX-431"

    def __init__(self, what: str, *, position: int | None = None, **parts: Any) -> None:
        super().__init__(what, **parts)
        self.position = position


class MeasureError(DataError):
    """A measure bundle cannot be loaded, or an ELM node cannot be evaluated."""

    code = "HX-701"

    def __init__(self, what: str, *, library: str | None = None, locator: str | None = None, **parts: Any) -> None:
        parts.setdefault("where", " ".join(text for text in (library, locator) if text) or None)
        super().__init__(what, **parts)
        self.library = library
        self.locator = locator


class DeliveryError(HIExchangeError):
    """A destination did not take a payload; ``retryable`` says whether trying again can help."""

    code = "HX-601"
    exit_code = 8

    def __init__(self, what: str, *, destination: str = "", retryable: bool = False, **parts: Any) -> None:
        super().__init__(what, **parts)
        self.destination = destination
        self.retryable = retryable


class StorageError(HIExchangeError):
    """The disk is full, or a folder cannot be written."""

    code = "HX-104"
    exit_code = 3
    resumable = True
