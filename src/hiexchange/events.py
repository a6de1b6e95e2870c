"""Progress as frozen records. Every long call takes ``on_event``; nothing is printed or logged here.

A :data:`Reporter` is any callable of one event. It may be called from worker threads, one event at
a time. Events hold counts, durations, ids of jobs and files: never patient data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened that a person watching the run would like to see."""


Reporter = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Report to nobody: the default reporter."""


# Stages ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    """A stage of the pipeline begins."""

    stage: str


@dataclass(frozen=True, slots=True)
class StageFinished(Event):
    """A stage of the pipeline ended well."""

    stage: str
    seconds: float


# Bulk export ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KickedOff(Event):
    """The server accepted the export."""

    status_url: str


@dataclass(frozen=True, slots=True)
class Polled(Event):
    """The job is not ready yet."""

    wait_s: float
    progress: str = ""


@dataclass(frozen=True, slots=True)
class PageReceived(Event):
    """A page of the manifest arrived."""

    page: int
    files: int


@dataclass(frozen=True, slots=True)
class FileStarted(Event):
    """A download began."""

    file: str
    attempt: int


@dataclass(frozen=True, slots=True)
class FileRetried(Event):
    """A download failed and will be tried again."""

    file: str
    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class FileDone(Event):
    """A file was proved whole and has its final name."""

    file: str
    resources: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Throttled(Event):
    """The server asked us to slow down; ``clamped`` when it asked for more than the cap."""

    wait_s: float
    clamped: bool = False


@dataclass(frozen=True, slots=True)
class TokenRefreshed(Event):
    """A new access token was obtained."""

    lifetime_s: float


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something is odd but the result is still true."""

    message: str


@dataclass(frozen=True, slots=True)
class ExportFinished(Event):
    """Every file of the job is committed."""

    files: int
    resources: int
    size_bytes: int
    seconds: float


# Lake, views, measures ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RowsWritten(Event):
    """A file became rows of the lake."""

    table: str
    file: str
    rows: int
    rejected: int


@dataclass(frozen=True, slots=True)
class SubjectsEvaluated(Event):
    """A part of the population was measured."""

    measure: str
    done: int
    errors: int


# Rosters, routing, delivery -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RosterRead(Event):
    """A roster file was read."""

    file: str
    accepted: int
    refused: int


@dataclass(frozen=True, slots=True)
class Routed(Event):
    """Events got their decisions."""

    events: int
    deliveries: int


@dataclass(frozen=True, slots=True)
class Delivered(Event):
    """A batch reached its destination."""

    subscriber: str
    sequence: int
    rows: int


@dataclass(frozen=True, slots=True)
class DeliveryFailed(Event):
    """A batch did not; it is retried or dead."""

    subscriber: str
    sequence: int
    reason: str
