"""Progress as frozen records. Every long call takes ``on_event``; nothing is printed or logged here.

A :data:`Reporter` is any callable of one event. It may be called from worker threads, one event at
a time. Events hold counts, durations, ids of jobs and files: never patient data.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Event(msgspec.Struct, frozen=True):
    """Something happened that a person watching the run would like to see."""


Reporter = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Report to nobody: the default reporter."""


# Stages ---------------------------------------------------------------------------------------


class StageStarted(Event, frozen=True):
    """A stage of the pipeline begins."""

    stage: str


class StageFinished(Event, frozen=True):
    """A stage of the pipeline ended well."""

    stage: str
    seconds: float


# Bulk export ----------------------------------------------------------------------------------


class KickedOff(Event, frozen=True):
    """The server accepted the export."""

    status_url: str


class Polled(Event, frozen=True):
    """The job is not ready yet."""

    wait_s: float
    progress: str = ""


class PageReceived(Event, frozen=True):
    """A page of the manifest arrived."""

    page: int
    files: int


class FileStarted(Event, frozen=True):
    """A download began."""

    file: str
    attempt: int


class FileProgress(Event, frozen=True):
    """A long download goes on; told every few seconds."""

    file: str
    size_bytes: int


class FileRetried(Event, frozen=True):
    """A download failed and will be tried again."""

    file: str
    reason: str
    wait_s: float


class FileDone(Event, frozen=True):
    """A file was proved whole and has its final name."""

    file: str
    resources: int
    size_bytes: int


class Throttled(Event, frozen=True):
    """The server asked us to slow down; ``clamped`` when it asked for more than the cap."""

    wait_s: float
    clamped: bool = False


class TokenRefreshed(Event, frozen=True):
    """A new access token was obtained."""

    lifetime_s: float


class Warned(Event, frozen=True):
    """Something is odd but the result is still true."""

    message: str


class ExportFinished(Event, frozen=True):
    """Every file of the job is committed."""

    files: int
    resources: int
    size_bytes: int
    seconds: float


# Lake, views, measures ------------------------------------------------------------------------


class RowsWritten(Event, frozen=True):
    """A file became rows of the lake."""

    table: str
    file: str
    rows: int
    rejected: int


class SubjectsEvaluated(Event, frozen=True):
    """A part of the population was measured."""

    measure: str
    done: int
    errors: int


# Rosters, routing, delivery -------------------------------------------------------------------


class RosterRead(Event, frozen=True):
    """A roster file was read."""

    file: str
    accepted: int
    refused: int


class Routed(Event, frozen=True):
    """Events got their decisions."""

    events: int
    deliveries: int


class Delivered(Event, frozen=True):
    """A batch reached its destination."""

    subscriber: str
    sequence: int
    rows: int


class DeliveryFailed(Event, frozen=True):
    """A batch did not; it is retried or dead."""

    subscriber: str
    sequence: int
    reason: str
