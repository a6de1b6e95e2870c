"""What every Destination and every Format must hold; run against your own by subclassing.

```
class TestMine(DestinationChecks):
    @pytest.fixture
    def destination(self): ...      # opened by the checks

    def arrived(self, destination): ...   # name -> bytes at the other side
```
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from hiexchange.delivery.base import Destination, Format, Page, Parcel
from hiexchange.delivery.channel import ChannelSpec


def parcel(payload: bytes = b"delivery_id\n1\n", *, sequence: int = 1, expected: bool = True) -> Parcel:
    """Return a parcel as the outbox makes one; without a payload it announces an empty period."""
    name = f"check_default_{sequence:06d}.csv"
    manifest = b'{"sequence": %d, "void_sequences": [], "replay": false}\n' % sequence
    return Parcel(
        key=hashlib.sha256(name.encode()).hexdigest(),
        name=name,
        payload=payload if expected else b"",
        sha256=hashlib.sha256(payload if expected else b"").hexdigest(),
        content_type="text/csv; charset=utf-8",
        sequence=sequence,
        manifest=manifest,
        payload_expected=expected,
    )


class DestinationChecks:
    """The contract of a Destination that carries files; give ``destination`` and :meth:`arrived`."""

    def arrived(self, destination: Destination) -> Mapping[str, bytes]:
        """Return what the other side holds, by name."""
        raise NotImplementedError

    def test_file_and_manifest_arrive_whole(self, destination: Destination) -> None:
        """Acked means: both are there, under their final names."""
        sent = parcel()
        destination.open()
        assert destination.send(sent).state == "acked"
        assert self.arrived(destination) == {sent.name: sent.payload, sent.manifest_name: sent.manifest}
        destination.close()

    def test_sending_again_changes_nothing(self, destination: Destination) -> None:
        """The same parcel twice is the same files once."""
        sent = parcel()
        destination.open()
        assert [destination.send(sent).state, destination.send(sent).state] == ["acked", "acked"]
        assert len(self.arrived(destination)) == 2
        destination.close()

    def test_a_probe_never_says_yes_to_what_is_not_there(self, destination: Destination) -> None:
        """Before a send: no, or unable to tell. After it: yes, or unable to tell."""
        sent = parcel()
        destination.open()
        assert destination.probe(sent) is not True
        destination.send(sent)
        assert destination.probe(sent) is not False
        assert destination.probe(parcel(b"other bytes")) is not True
        destination.close()

    def test_an_empty_period_is_a_manifest_alone(self, destination: Destination) -> None:
        """No file is made for it."""
        sent = parcel(expected=False)
        destination.open()
        assert destination.send(sent).state == "acked"
        assert list(self.arrived(destination)) == [sent.manifest_name]
        destination.close()

    def test_close_may_be_called_twice(self, destination: Destination) -> None:
        """And before anything was opened."""
        destination.close()
        destination.close()


def check_format(form: Format, records: list[dict[str, Any]], columns: list[str], spec: ChannelSpec) -> bytes:
    """Render twice and with no rows; return the bytes.

    Raises:
        AssertionError: Two renderings differ, or an attribute of the contract is absent.
    """
    page = Page(records, columns, spec, 1)
    first = form.render(page)
    assert isinstance(first, bytes)
    assert first == form.render(page), "the same page must give the same bytes"
    assert isinstance(form.render(Page([], columns, spec, 1)), bytes)
    assert form.extension and form.content_type and isinstance(form.message, bool)
    assert form.row_limit is None or form.row_limit > 0
    return first
