"""The HL7 v2 reader and writer, with the ``hl7`` package as oracle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange import hl7v2
from hiexchange.errors import DataError

MSH = ("MSH", "APP", "FAC", "TO", "TOFAC", "20260302150000+0000", None, ("ADT", "A01", "ADT_A01"), "C1", "P", "2.5.1")
ADT = (
    "MSH|^~\\&|APP|FAC|TO|TOFAC|20260302||ADT^A01|C1|P|2.5.1{end}EVN|A01|20260302{end}"
    "PID|1||123^^^H&1.2&ISO^MR~9^^^P^XX||ROE^JANE{end}PV1|1|I{end}"
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=0, max_size=12)
COMPONENTS = st.lists(st.one_of(TEXT, st.lists(TEXT, min_size=2, max_size=3).map(tuple)), min_size=2, max_size=4).map(
    tuple
)
FIELD = st.one_of(TEXT, COMPONENTS, st.lists(st.one_of(TEXT, COMPONENTS), min_size=2, max_size=3))
PUNCTUATION = st.permutations("|^~\\&#!$%*+").map(lambda chars: hl7v2.Delimiters(*chars[:6]))


def text_at(value: hl7v2.Value, repetition: int, component: int, subcomponent: int) -> str:
    """The text a reader must find there, from the value that was written."""
    item = value[repetition - 1] if isinstance(value, list) else value
    item = item[component - 1] if isinstance(item, tuple) else item
    return (item[subcomponent - 1] if isinstance(item, tuple) else item) or ""


@given(fields=st.lists(FIELD, max_size=5), marks=PUNCTUATION)
def test_what_is_written_is_read_back(fields: list[hl7v2.Value], marks: hl7v2.Delimiters) -> None:
    message = hl7v2.parse(hl7v2.write([MSH, ("ZZZ", *fields)], marks))
    segment = message.segments[1]
    assert message.delimiters == marks
    for number, value in enumerate(fields, 1):
        for repetition in range(1, (len(value) if isinstance(value, list) else 1) + 1):
            item = value[repetition - 1] if isinstance(value, list) else value
            for component in range(1, (len(item) if isinstance(item, tuple) else 1) + 1):
                inner = item[component - 1] if isinstance(item, tuple) else item
                for sub in range(1, (len(inner) if isinstance(inner, tuple) else 1) + 1):
                    found = segment.value(number, component, sub, repetition=repetition)
                    assert found == text_at(value, repetition, component, sub)


@given(TEXT)
def test_escaped_text_holds_no_delimiter_and_comes_back(text: str) -> None:
    escaped = hl7v2.escape(text)
    assert not set(escaped) & set("|^~&\r\n\x0b\x1c")
    assert hl7v2.unescape(escaped) == text


@given(st.lists(st.lists(st.text("abcXYZ 0189-.", min_size=1), min_size=1, max_size=4), min_size=1, max_size=4))
def test_fields_are_those_the_hl7_package_sees(segments: list[list[str]]) -> None:
    data = hl7v2.write([MSH, *(("ZZ1", *values) for values in segments)])
    ours, theirs = hl7v2.parse(data), hl7.parse(data.decode())
    for index, values in enumerate(segments):
        for number in range(1, len(values) + 1):
            assert ours.segments[index + 1].raw(number) == str(theirs.segments("ZZ1")[index](number))


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_every_line_end_gives_the_same_message(end: str) -> None:
    message = hl7v2.parse(ADT.format(end=end))
    assert [segment.name for segment in message.segments] == ["MSH", "EVN", "PID", "PV1"]
    assert message.value("PID-3.4.2") == "1.2"
    assert message.value("PID-3[2].1") == "9"
    assert message.value("PID-5.2") == "JANE"


def test_the_hl7_package_loses_the_patient_of_an_lf_message() -> None:
    # Why there is a reader of our own: hl7 0.4.5 returns the header alone and says nothing.
    assert [str(segment(0)) for segment in hl7.parse(ADT.format(end="\n"))] == ["MSH"]


@pytest.mark.parametrize(
    "file", ["ADT-A01-01.hl7", "ADT-A03-01.hl7", "ADT-A40-01.hl7", "ADT01-23.hl7", "ADT04-251.hl7"]
)
def test_samples_read_as_the_hl7_package_reads_them(shared: Path, file: str) -> None:
    data = (shared / "data/hl7v2-adt" / file).read_bytes()
    ours = hl7v2.parse(data)
    theirs = hl7.parse(data.decode("utf-8-sig").replace("\r\n", "\r").replace("\n", "\r"))
    assert len(ours.segments) == len(theirs)
    for mine, other in zip(ours.segments, theirs, strict=True):
        assert mine.name == str(other(0))
        for number in range(3, len(other)):
            assert mine.raw(number) == str(other(number))


def test_delimiters_are_those_of_the_message() -> None:
    message = hl7v2.parse("MSH*:;!%*APP*FAC*****ADT:A01*C1*P*2.3\rPID*1**A!F!B%x:y;z\r")
    assert message.value("PID-3.1.1") == "A*B"
    assert message.value("PID-3.1.2") == "x"
    assert message.value("PID-3[2]") == "z"
    assert message.trigger_code == "A01"


def test_short_msh_2_takes_the_standard_marks() -> None:
    assert hl7v2.parse("MSH|^~|APP|FAC|||2026||ADT^A01|C|P|2.2\rPID|1||a&b\r").value("PID-3.1.2") == "b"


def test_null_reads_as_no_value_and_two_quotes_as_text_survive() -> None:
    assert hl7v2.parse(ADT.format(end="\r") + 'PV2||""\r').value("PV2-2") == ""
    assert hl7v2.parse(hl7v2.write([MSH, ("PV2", None, '""')])).value("PV2-2") == '""'


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (r"a\F\b", "a|b"),
        (r"a\.br\b", "a\nb"),
        (r"\H\loud\N\ quiet", "loud quiet"),
        (r"caf\XC3A9\ ", "café "),
        (r"caf\XE9\ ", "café "),
        (r"odd \Zx\ stays", r"odd \Zx\ stays"),
        (r"path C:\temp", r"path C:\temp"),
        ("\\XZZ\\", "\\XZZ\\"),
    ],
)
def test_escape_sequences(sent: str, meant: str) -> None:
    assert hl7v2.unescape(sent) == meant


def test_latin_1_messages_are_read_as_they_say_or_as_they_are() -> None:
    text = ADT.format(end="\r").replace("JANE", "JOSÉ")
    named = text.replace("|2.5.1\r", "|2.5.1||||||8859/1\r", 1)
    assert hl7v2.parse(named.encode("latin-1")).value("PID-5.2") == "JOSÉ"
    assert hl7v2.parse(text.encode("latin-1")).value("PID-5.2") == "JOSÉ"
    assert hl7v2.parse(b"\xef\xbb\xbf" + text.encode()).value("PID-5.2") == "JOSÉ"


@pytest.mark.parametrize(
    "data",
    [b"", b"PID|1\r", b"MSH|", b"MSH||||\r", b"MSH|^^\\&|A\r", b"MSHA^~\\&AB\r", b"MSH|^~\\&|A\rsecret text\r", b"{}"],
)
def test_what_is_no_message_is_refused_without_quoting_it(data: bytes) -> None:
    with pytest.raises(DataError) as refused:
        hl7v2.parse(data)
    assert "secret" not in str(refused.value)


def test_a_huge_message_is_refused() -> None:
    with pytest.raises(DataError, match="more than"):
        hl7v2.parse(b"MSH|^~\\&|" + b"A" * hl7v2.MAX_BYTES)


def test_the_fifth_delimiter_and_whole_components() -> None:
    message = hl7v2.parse("MSH|^~\\&#|APP|FAC|||2026||ADT^A01|C|P|2.7\rPID|1||a\\P\\b^c\r")
    assert message.delimiters.encoding_characters == "^~\\&#"
    assert message.value("PID-3") == "a#b"
    assert message.segments[0].value(1) == "|" and message.segments[0].value(2) == "^~\\&#"
    assert bytes(message).startswith(b"MSH|^~\\&#|APP") and bytes(message).count(b"\r") == 2


def test_reprs_hold_no_content() -> None:
    message = hl7v2.parse(ADT.format(end="\r"))
    assert "ROE" not in repr(message) + repr(message.segments[2])


def test_paths_that_are_none_are_refused() -> None:
    message = hl7v2.parse(ADT.format(end="\r"))
    with pytest.raises(ValueError, match="not a path"):
        message.value("PID.3")
    assert message.value("ZZZ-1") == "" and message.value("PID[2]-3") == "" and message.first("ZZZ") is None


def test_one_file_may_hold_many_messages() -> None:
    one = ADT.format(end="\r").encode()
    assert len(list(hl7v2.split(one * 3))) == 3
    assert len(list(hl7v2.split(hl7v2.frame(one) * 2))) == 2
    batch = b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + one + one + b"BTS|2\rFTS|1\r"
    assert [len(hl7v2.parse(message).segments) for message in hl7v2.split(batch)] == [4, 4]
    assert list(hl7v2.split(b" \n")) == []
    assert list(hl7v2.split(b"junk")) == [b"junk"]


@given(
    st.lists(st.binary(max_size=30).filter(lambda data: b"\x0b" not in data and b"\x1c" not in data), max_size=5),
    st.data(),
)
def test_frames_are_cut_the_same_however_the_bytes_arrive(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(hl7v2.frame(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    frames, got = hl7v2.Frames(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += frames.feed(stream[begin:end])
    assert got == messages
    assert (frames.pending, frames.stray) == (0, 0)


def test_bytes_outside_of_frames_are_counted_and_endless_messages_refused() -> None:
    frames = hl7v2.Frames(max_bytes=100)
    assert frames.feed(b"\r\njunk" + hl7v2.frame(b"one") + b"\r\n") == [b"one"]
    assert frames.stray == 4
    with pytest.raises(DataError, match="longer"):
        frames.feed(b"\x0b" + b"A" * 101)


def test_an_ack_answers_its_message() -> None:
    now = datetime(2026, 3, 2, 15, tzinfo=UTC)
    message = hl7v2.parse(ADT.format(end="\n"))
    answer = hl7v2.ack(message, "AE", now=now, control_id="A1", error_code="101", text="required field missing")
    assert hl7v2.read_ack(answer) == hl7v2.Ack("AE", "C1", "101")
    read = hl7.parse(answer.decode())
    assert str(read["MSH.F3"]) == "TO" and str(read["MSH.F5"]) == "APP" and str(read["MSA.F2"]) == "C1"
    assert not hl7v2.read_ack(answer).accepted
    assert hl7v2.read_ack(hl7v2.ack(None, "AR", now=now, control_id="A1")).code == "AR"
    with pytest.raises(DataError, match="no MSA"):
        hl7v2.read_ack(ADT.format(end="\r").encode())


def test_the_writer_refuses_what_is_no_message() -> None:
    for segments in ([], [("PID", "1")], [MSH, ("pid", "1")], [MSH, (None, "1")]):
        with pytest.raises(ValueError, match="starts with"):
            hl7v2.write(segments)  # type: ignore[arg-type]


def test_instants_are_written_with_their_offset() -> None:
    assert hl7v2.dtm(datetime(2026, 3, 2, 15, 4, 5, 999, tzinfo=timezone(timedelta(hours=-6)))) == "20260302150405-0600"
    with pytest.raises(ValueError, match="offset"):
        hl7v2.dtm(datetime(2026, 3, 2))
