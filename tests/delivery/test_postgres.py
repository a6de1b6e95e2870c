"""The ledger on a real PostgreSQL server that the test starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from hiexchange.delivery import Outbox
from hiexchange.errors import DeliveryError
from hiexchange.testing.sinks import HTTPSink

pytestmark = pytest.mark.postgres


def _binary(name: str) -> str:
    debian = sorted(str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or next(iter(debian), None)
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed (Debian: postgresql)")
    return found


@pytest.fixture(scope="module")
def server():
    """A server of our own in a temporary folder, reached by its socket; yields the connection text."""
    pytest.importorskip("psycopg")
    # Not pytest's folder: that is closed to other users, and the server refuses to run as root.
    with tempfile.TemporaryDirectory(prefix="hx-pg-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        as_user: list[str] = []
        if os.getuid() == 0:
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(home, "postgres")
        run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        data = home / "data"
        subprocess.run([*as_user, _binary("initdb"), "-D", data, "-U", "test", "-A", "trust", "--no-sync"], **run)
        options = f"-c listen_addresses='' -c unix_socket_directories='{home}' -c fsync=off"
        control = [*as_user, _binary("pg_ctl"), "-D", data, "-w"]
        subprocess.run([*control, "-o", options, "-l", str(home / "log"), "start"], **run)
        try:
            yield f"host={home} user=test dbname=postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **run)


@pytest.fixture
def open_pg(server, request, tmp_path):
    """Open the test's own schema, as often as asked: each a worker of its own."""
    from hiexchange.delivery.postgres import PostgresStore

    opened = []

    def opener(**given):
        store = PostgresStore(server, schema=request.node.name[:60])
        opened.append(Outbox(store=store, base=tmp_path, **given))
        return opened[-1]

    yield opener
    for outbox in opened:
        outbox.close()


def test_delivers_once_and_verifies(exchange, open_pg, now, tmp_path):
    routing = exchange.routing(
        [exchange.event(number) for number in range(50)],
        [exchange.subscription("a", "file:a"), exchange.subscription("b", "file:b", format="ndjson", max_rows=7)],
    )
    outbox = open_pg()
    assert outbox.deliver(routing, now=now, persons=exchange.persons(*range(50))).states == {"acked": 100}
    assert outbox.deliver(routing, now=now).sealed == 0
    assert outbox.verify().problems == ()
    assert len(list((tmp_path / "b").glob("*.ndjson"))) == 8


def test_several_workers_share_the_queue_and_nothing_goes_out_twice(exchange, open_pg, now):
    with HTTPSink() as sink:
        subscribers = [exchange.subscription(f"s{number}", sink.url, format="fhir") for number in range(6)]
        routing = exchange.routing([exchange.event(number) for number in range(40)], subscribers)
        open_pg().enqueue(routing, now=now)
        workers = [open_pg(workers=2) for _ in range(4)]
        failures: list[Exception] = []

        def work(outbox):
            try:
                for _ in range(3):
                    outbox.run(now)
            except DeliveryError as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(outbox,)) for outbox in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        keys = [item.key for item in sink.arrived]
        assert len(keys) == len(set(keys)) == 240
        assert open_pg().verify().problems == ()


def test_two_workers_enqueue_the_same_day_at_once(exchange, open_pg, now):
    routing = exchange.routing([exchange.event(number) for number in range(60)], [exchange.subscription("a", "file:a")])
    outboxes = [open_pg() for _ in range(3)]
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda outbox=outbox: counts.append(outbox.enqueue(routing, now=now)))
        for outbox in outboxes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0, 0, 60]


def test_a_lost_worker_is_noticed_by_its_connection(exchange, open_pg, now):
    routing = exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:a")])
    first, second = open_pg(), open_pg()

    class Dies:
        def open(self):
            first._store._connection.close()

        def send(self, parcel):
            raise AssertionError

        def probe(self, parcel):
            return None

        def close(self):
            pass

    with pytest.raises(DeliveryError):
        first.deliver(routing, now=now, destinations={"a": Dies()})
    assert second.run(now).states == {"acked": 1}
