"""Poll and kick-off answers: what each means, and that no sequence of answers runs for ever."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st

from hiexchange._http import retry_after
from hiexchange.bulk.protocol import (
    TRANSIENT,
    Answer,
    PollRules,
    PollState,
    classify_kickoff,
    classify_poll,
    named_parameter,
    no_answer,
)

RULES = PollRules()
NOW = datetime(2026, 8, 1, tzinfo=UTC)


def outcome(code: str) -> bytes:
    return json.dumps({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code}]}).encode()


@given(
    st.integers(200, 599),
    st.sampled_from([b"", b"<html>", b"{}", b'{"output":[]}', outcome("transient"), outcome("exception")]),
)
def test_every_answer_has_a_meaning(status: int, body: bytes) -> None:
    action, _ = classify_poll(Answer(status, {}, body), PollState(), RULES, age_s=100)
    kinds = {"wait", "complete", "failed", "vanished", "expired", "violation", "unauthorized"}
    assert action.kind in kinds
    assert action.kind != "complete" or (status == 200 and body == b'{"output":[]}')


@given(st.lists(st.sampled_from(sorted(TRANSIENT)), min_size=40, max_size=60))
def test_transient_codes_end_at_the_budget(codes: list[str]) -> None:
    state = PollState()
    for number, code in enumerate(codes, 1):
        action, state = classify_poll(Answer(500, {}, outcome(code)), state, RULES, age_s=100)
        if action.kind == "failed":
            assert number == RULES.error_budget + 1
            return
    raise AssertionError("never gave up")


def test_exception_is_confirmed_twice_then_final() -> None:
    state = PollState()
    kinds = []
    for _ in range(3):
        action, state = classify_poll(Answer(500, {}, outcome("exception")), state, RULES, age_s=100)
        kinds.append((action.kind, action.wait_s))
    assert kinds == [("wait", 30), ("wait", 30), ("failed", 0.0)]


def test_a_good_poll_resets_the_counts() -> None:
    _, state = classify_poll(Answer(500, {}, outcome("transient")), PollState(), RULES, age_s=100)
    assert state.errors == 1
    _, state = classify_poll(Answer(202, {}), state, RULES, age_s=100)
    assert state.errors == 0


@given(st.lists(st.floats(0, 1e7) | st.none(), min_size=1, max_size=30))
def test_the_interval_grows_to_its_cap_and_no_further(asked: list[float | None]) -> None:
    state = PollState()
    for value in asked:
        action, state = classify_poll(Answer(202, {}, retry_after_s=value), state, RULES, age_s=1)
        assert action.wait_s >= min(RULES.min_s, action.wait_s) and state.interval_s <= RULES.max_s
        assert value is None or action.wait_s == max(value, RULES.min_s)


def test_network_errors_wait() -> None:
    action, _ = no_answer(PollState(), RULES, reason="reset")
    assert action.kind == "wait" and action.wait_s == RULES.min_s


def test_kickoff_answers() -> None:
    located = {"content-location": "/jobs/1"}
    kinds = {
        "accepted": Answer(202, located),
        "violation": Answer(202, {}),
        "manifest": Answer(200, {}, b'{"output":[]}'),
        "busy": Answer(429, {}),
        "post": Answer(405, {}),
        "retry": Answer(503, {}),
        "unauthorized": Answer(403, {}),
        "refused": Answer(422, {}, outcome("invalid")),
    }
    assert {kind: classify_kickoff(answer).kind for kind, answer in kinds.items()} == {kind: kind for kind in kinds}


def test_the_named_parameter_is_one_that_was_sent() -> None:
    body = json.dumps({"resourceType": "OperationOutcome", "issue": [{"diagnostics": "_typeFilter: unknown"}]}).encode()
    assert named_parameter(Answer(400, {}, body), ("_type", "_typeFilter")) == "_typeFilter"
    assert named_parameter(Answer(400, {}, body), ("_since",)) is None


@given(st.text(max_size=40))
def test_retry_after_is_none_or_at_least_a_second(text: str) -> None:
    value = retry_after({"retry-after": text}, NOW)
    assert value is None or value >= 1


@given(st.integers(1, 10_000_000), st.integers(-86_400, 86_400))
def test_retry_after_forms_agree_whatever_our_clock(seconds: int, our_error: int) -> None:
    """Seconds, date, epoch seconds and epoch milliseconds say the same, relative to the Date header."""
    date = format_datetime(NOW, usegmt=True)
    then = NOW + timedelta(seconds=seconds)
    forms = [
        str(seconds) if seconds < 1e9 else None,
        format_datetime(then, usegmt=True),
        str(int(then.timestamp())),
        str(int(then.timestamp() * 1000)),
    ]
    ours = NOW + timedelta(seconds=our_error)
    assert {retry_after({"retry-after": form, "date": date}, ours) for form in forms if form} == {float(seconds)}
