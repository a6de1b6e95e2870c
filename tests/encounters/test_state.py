"""The state machine: what is news, what is swallowed, what a cancel takes back."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from hiexchange.encounters import Intake, read_adt

T = "2026030{day}{hour:02d}0000-0600"


def at(day: int, hour: int = 10) -> str:
    return T.format(day=day, hour=hour)


def rows(intake: Intake) -> list[dict[str, object]]:
    return intake.events.to_pylist()


def test_a_stay_is_an_admission_and_a_discharge(world: SimpleNamespace) -> None:
    intake = world.read(
        world.adt("A01", at(2), start=at(2)), world.adt("A03", at(4), start=at(2), end=at(4), disposition="01")
    )
    assert world.story(intake) == [("admit", None), ("discharge", None)]
    admit, discharge = rows(intake)
    assert (admit["class"], admit["status"], discharge["status"]) == ("IMP", "in-progress", "finished")
    assert discharge["discharge_disposition"] == "01"
    assert admit["attending_npi"] == "1999999984"
    assert (intake.read, intake.quarantined, intake.duplicates) == (2, 0, 0)


def test_a_repeated_admission_is_no_new_event(world: SimpleNamespace) -> None:
    once = world.adt("A01", at(2), control="same")
    intake = world.read(once, once, world.adt("A01", at(2, 11), control="other"))
    assert world.story(intake) == [("admit", None), ("admit", "unchanged")]
    assert intake.duplicates == 1


def test_a_discharge_without_an_admission_is_taken_and_flagged(world: SimpleNamespace) -> None:
    (row,) = rows(world.read(world.adt("A03", at(4), end=at(4))))
    assert row["material"] and "discharge_without_admit" in row["flags"]


def test_a_storm_of_updates_is_swallowed_until_something_changes(world: SimpleNamespace) -> None:
    storm = [world.adt("A08", at(2, 11 + index)) for index in range(5)]
    intake = world.read(world.adt("A01", at(2)), *storm, world.adt("A08", at(3), diagnoses=("I10",)))
    assert world.story(intake) == [("admit", None), *[("update", "unchanged")] * 5, ("update", None)]
    assert "diagnosis_only" in rows(intake)[-1]["flags"]


def test_an_update_that_leaves_things_out_is_no_change(world: SimpleNamespace) -> None:
    intake = world.read(
        world.adt("A01", at(2), diagnoses=("I10",)),
        world.adt("A08", at(3), class_=""),
        world.adt("A03", at(4), end=at(4), disposition="01", diagnoses=("I10",)),
        world.adt("A08", at(5), end=at(4)),
    )
    assert [reason for _, reason in world.story(intake)] == [None, "unchanged", None, "unchanged"]


def test_an_update_to_another_patient_is_news_and_flagged(world: SimpleNamespace) -> None:
    intake = world.read(world.adt("A01", at(2)), world.adt("A08", at(3), patient="200"))
    assert "patient_changed" in rows(intake)[1]["flags"]


def test_moves_within_the_house_are_swallowed_and_to_another_house_told(world: SimpleNamespace) -> None:
    moved = world.adt("A02", at(3), before="2E")
    other = world.adt("A02", at(4), before="2E").replace(b"|2E^^^GENERAL", b"|2E^^^ELSEWHERE")
    intake = world.read(world.adt("A01", at(2)), moved, other)
    assert world.story(intake) == [("admit", None), ("transfer", "bed_move"), ("transfer", None)]


def test_from_the_emergency_room_into_a_bed_is_a_transfer(world: SimpleNamespace) -> None:
    for trigger in ("A06", "A02"):
        intake = world.read(world.adt("A04", at(2), class_="E"), world.adt(trigger, at(2, 15), class_="I"))
        assert world.story(intake) == [("register", None), ("transfer", None)]
    back = world.read(world.adt("A01", at(2)), world.adt("A07", at(3), class_="O"), world.adt("A07", at(4), class_="O"))
    assert world.story(back) == [("admit", None), ("class_change", None), ("class_change", "unchanged")]


def test_registered_then_admitted_under_one_visit_number_tells_both(world: SimpleNamespace) -> None:
    intake = world.read(world.adt("A04", at(2), class_="E"), world.adt("A01", at(2, 15)), world.adt("A04", at(2, 16)))
    assert world.story(intake) == [("register", None), ("admit", None), ("register", "unchanged")]


def test_cancels_name_what_they_take_back(world: SimpleNamespace) -> None:
    intake = world.read(
        world.adt("A04", at(2, 8), class_="E"),
        world.adt("A01", at(2, 9)),
        world.adt("A02", at(2, 10)),
        world.adt("A11", at(2, 12)),
        world.adt("A01", at(2, 13)),
        world.adt("A03", at(4), end=at(4)),
        world.adt("A13", at(4, 12)),
        world.adt("A03", at(5), end=at(5)),
        world.adt("A11", at(6)),
    )
    keys = {row["event_key"]: (row["trigger"], row["version"]) for row in rows(intake)}
    corrected = [keys.get(row["corrects"]) for row in rows(intake)]
    assert [trigger for trigger, _ in world.story(intake)] == [
        "register", "admit", "transfer", "cancel_admit", "admit", "discharge", "cancel_discharge", "discharge", "cancel_admit",
    ]  # fmt: skip
    assert corrected == [None, None, None, ("admit", 1), None, None, ("discharge", 1), None, ("admit", 2)]
    assert [row["status"] for row in rows(intake)][3] == "in-progress"  # the registration stands again


def test_a_transfer_that_was_told_can_be_cancelled(world: SimpleNamespace) -> None:
    told = world.read(
        world.adt("A04", at(2), class_="E"), world.adt("A06", at(2, 12)), world.adt("A12", at(2, 14), class_="E")
    )
    assert world.story(told)[-1] == ("cancel_transfer", None)
    assert rows(told)[-1]["corrects"] == rows(told)[1]["event_key"]
    untold = world.read(world.adt("A01", at(2)), world.adt("A02", at(2, 12)), world.adt("A12", at(2, 14)))
    assert world.story(untold)[-1] == ("cancel_transfer", "bed_move")


def test_cancels_of_what_nobody_knows_are_swallowed(world: SimpleNamespace) -> None:
    for trigger in ("A11", "A12", "A13"):
        (row,) = rows(world.read(world.adt(trigger, at(2))))
        assert not row["material"] and "cancel_without_original" in row["flags"]


def test_a_corrected_discharge_names_the_first_one(world: SimpleNamespace) -> None:
    intake = world.read(
        world.adt("A01", at(2)),
        world.adt("A03", at(4), end=at(4), disposition="01"),
        world.adt("A03", at(4, 12), end=at(4), disposition="20"),
    )
    _, first, second = rows(intake)
    assert (second["version"], second["corrects"]) == (2, first["event_key"])


def test_planned_visits(world: SimpleNamespace) -> None:
    intake = world.read(
        world.adt("A05", at(1), class_="P"),
        world.adt("A05", at(1, 12), class_="P"),
        world.adt("A01", at(2)),
        world.adt("A05", at(3), class_="P"),
    )
    assert world.story(intake) == [
        ("preadmit", None), ("preadmit", "unchanged"), ("admit", None), ("preadmit", "unchanged"),
    ]  # fmt: skip
    assert world.story(world.read(world.adt("A05", at(1), class_="P"), world.adt("A11", at(2)))) == [
        ("preadmit", None), ("cancel_admit", "cancelled_before_send"),
    ]  # fmt: skip


def test_readmission_under_a_new_visit_number_is_a_new_encounter(world: SimpleNamespace) -> None:
    intake = world.read(
        world.adt("A01", at(2), visit="V1"), world.adt("A03", at(3), end=at(3)), world.adt("A01", at(4), visit="V2")
    )
    assert [row["version"] for row in rows(intake)] == [1, 1, 1]
    assert len(set(intake.events["event_key"].to_pylist())) == 3
    again = world.read(world.adt("A01", at(2)), world.adt("A03", at(3), end=at(3)), world.adt("A01", at(4)))
    assert "reopened" in rows(again)[-1]["flags"]


def test_late_messages_land_where_they_belong(world: SimpleNamespace) -> None:
    first, last = world.adt("A01", at(2), start=at(2)), world.adt("A03", at(4), start=at(2), end=at(4))
    update = world.adt("A08", at(3))
    intake = world.read(last, update, first)
    assert world.story(intake) == [("admit", None), ("update", "unchanged"), ("discharge", None)]


def test_later_calls_build_on_what_is_on_record(world: SimpleNamespace) -> None:
    admit, noise = world.adt("A01", at(2)), world.adt("A08", at(3))
    discharge = world.adt("A03", at(4), end=at(4))
    first = world.read(admit)
    second = world.read(admit, noise, discharge, history=first.events)
    assert second.duplicates == 1
    assert world.story(second) == [("update", "unchanged"), ("discharge", None)]
    record = pa.concat_tables([first.events, second.events])
    third = world.read(world.adt("A13", at(5)), history=record)
    assert rows(third)[0]["corrects"] == second.events.to_pylist()[1]["event_key"]


def test_a_merge_changes_no_visit(world: SimpleNamespace) -> None:
    persons = world.table([world.person("p1", "100"), world.person("p2", "200")])
    first = world.read(world.adt("A01", at(2), patient="200"), persons=persons)
    assert first.events["person_id"].to_pylist() == ["p2"]
    second = world.read(
        world.adt("A40", at(3), patient="100", old="200"),
        world.adt("A08", at(3, 12), patient="100"),
        world.adt("A08", at(3, 13), patient="200"),
        persons=persons,
        history=first.events,
    )
    assert world.story(second) == [("merge", None), ("update", "unchanged"), ("update", "unchanged")]
    (merge,) = second.merges
    assert (merge.old, merge.new, merge.system) == ("200", "100", "GH")
    assert second.events["person_id"].to_pylist() == ["p1", "p1", "p1"]


def test_an_identifier_that_ended_stays_ended_when_the_inbox_is_read_again(world: SimpleNamespace) -> None:
    inbox = [world.adt("A01", at(1), patient="200"), world.adt("A40", at(3), patient="100", old="200")]
    first = world.read(*inbox)
    second = world.read(*inbox, world.adt("A03", at(5), patient="200"), history=first.events)
    assert second.duplicates == 2
    assert second.events["patient_id_sent"].to_pylist() == ["100"]


def test_a_merge_is_news_once_and_only_of_an_identifier_in_use(world: SimpleNamespace) -> None:
    admit = world.adt("A01", at(2), patient="200")
    early = world.read(world.adt("A40", at(1), patient="100", old="200"))
    assert world.story(early) == [("merge", "merge")]
    merge = world.adt("A40", at(3), patient="100", old="200")
    first = world.read(admit, merge)
    assert world.story(first) == [("admit", None), ("merge", None)]
    event = rows(first)[1]
    assert (event["visit_number"], event["patient_id_sent"], event["version"]) == ("200", "100", 1)
    assert world.read(merge, history=first.events).duplicates == 1
    tested = world.read(admit, world.adt("A40", at(3), patient="100", old="200", name=("ZZTEST", "Odo")))
    assert world.story(tested)[-1] == ("merge", "test_patient")


def test_messages_of_one_minute_are_replayed_in_the_order_they_came(world: SimpleNamespace) -> None:
    """Whatever the hashes of their keys: a visit cancelled in its first minute is admitted again, and told."""
    for number in range(8):
        visit = f"V{number}"
        first = world.read(*(world.adt(trigger, at(2), visit=visit) for trigger in ("A01", "A11")))
        second = world.read(world.adt("A01", at(3), visit=visit), history=first.events)
        assert world.story(second) == [("admit", None)]


TRIGGERS = st.sampled_from(["A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A11", "A12", "A13"])


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(
        st.tuples(TRIGGERS, st.sampled_from("EIOP"), st.sampled_from(["", "01", "20"])), min_size=1, max_size=9
    ),
    shuffle=st.randoms(),
)
def test_every_message_has_one_fate_whatever_comes(
    adt: Callable[..., bytes], plan: list[tuple[str, str, str]], shuffle: random.Random
) -> None:
    messages = [
        adt(trigger, at(1 + index // 3, 8 + index), class_=class_, disposition=end)
        for index, (trigger, class_, end) in enumerate(plan)
    ]
    received = datetime.fromisoformat("2026-03-20T00:00:00+00:00")
    whole = read_adt(messages, received_at=received)
    assert whole.read == whole.events.num_rows == len(messages)
    keys = whole.events["event_key"].to_pylist()
    assert len(set(keys)) == len(keys)
    assert all(corrects in keys for corrects in whole.events["corrects"].to_pylist() if corrects)
    # What is news does not depend on the order of arrival.
    mixed = messages[:]
    shuffle.shuffle(mixed)
    again = read_adt(mixed, received_at=received)
    columns = ["trigger", "material", "swallowed_reason", "status", "event_at"]
    assert again.events.select(columns).sort_by("event_at") == whole.events.select(columns).sort_by("event_at")
