"""Draw progress events on stderr: a line an event that a person would want to see."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from hiexchange import events
from hiexchange.cli import render
from hiexchange.events import Event


def reporter() -> events.Reporter:
    """Return a reporter: quiet where stderr is no terminal, except for trouble."""
    interactive = sys.stderr.isatty()

    def report(event: Event) -> None:
        text = _text(event)
        if text and (interactive or isinstance(event, events.Warned | events.DeliveryFailed)):
            render.err(f"  {text}")

    return report


@contextlib.contextmanager
def resume_hint(folder: Path) -> Iterator[None]:
    """Say how to go on when the user, or the machine's own stop, interrupts a job."""
    try:
        yield
    except KeyboardInterrupt:
        # Printed once, by app.Verbs.
        raise KeyboardInterrupt(
            f"interrupted: what is here is saved, `hiexchange export resume {folder}` goes on"
        ) from None


def _text(event: Event) -> str:
    match event:
        case events.KickedOff():
            return "export accepted"
        case events.Polled(wait_s, progress):
            return f"export running {progress} (next look in {wait_s:.0f} s)"
        case events.FileProgress(file, size_bytes):
            return f"{file}: {size_bytes / 1e6:,.0f} MB so far"
        case events.FileRetried(file, reason, wait_s):
            return f"{file}: {reason}; again in {wait_s:.1f} s"
        case events.FileDone(file, resources, _):
            return f"{file}: {resources:,} resources"
        case events.Throttled(wait_s, _):
            return f"the server asks for patience: {wait_s:.0f} s"
        case events.RowsWritten(table, _, rows, rejected):
            return f"{table}: {rows:,} rows" + (f", {rejected:,} lines refused" if rejected else "")
        case events.RosterRead(file, accepted, refused):
            return f"{file}: {accepted:,} rows, {refused:,} refused"
        case events.DeliveryFailed(subscriber, sequence, reason):
            return f"{subscriber} #{sequence} failed: {reason}"
        case events.Warned(message):
            return f"warning: {message}"
    return ""
