"""A process that routes and delivers a part of a day when told to; killed at will by test_crash.py.

It imports everything once and forks for each order, so that two hundred kills cost no two hundred
imports. Order: a line with the number of the part; answer: the child's pid, then its exit status.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
import fhir.resources.R4B.bundle
import pyarrow as pa

from hiexchange.delivery import Outbox, RetryPolicy, adt, alerts, excel, folder, https, mllp, sftp, text
from hiexchange.routing import load_subscriptions, route

LOADED = (asyncssh, fhir, adt, alerts, excel, folder, https, mllp, sftp, text)
NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)


def read(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def work(home: Path, part: int) -> None:
    subscriptions = load_subscriptions(home / "subscriptions.toml")
    events, attribution = read(home / f"events-{part}.arrow"), read(home / "attribution.arrow")
    routing = route(events, attribution, read(home / "links.arrow"), subscriptions, known_at=NOW)
    # Failures here are kills: what they left in doubt is settled at once, not after a backoff.
    retry = RetryPolicy(first_s=0, breaker_failures=1000, max_attempts=1000)
    with Outbox(home / "outbox.sqlite", base=home, retry=retry) as outbox:
        outbox.deliver(routing, now=NOW + timedelta(minutes=part), persons=read(home / "persons.arrow"))


def main() -> None:
    home = Path(sys.argv[1])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            work(home, int(line))
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
