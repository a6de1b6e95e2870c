"""Native measures on people whose fate was planted: what each must find is known before it is evaluated."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from hiexchange import tables as corridor
from hiexchange.lake import Lake
from hiexchange.measures import evaluate
from hiexchange.testing.population import generate
from hiexchange.testing.population.truth import rows as rows_of

YEAR = (date(2026, 1, 1), date(2026, 12, 31))
SEEDS = range(3)


def at(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(rng, first=datetime(2026, 1, 10), last=datetime(2026, 11, 10)):
    return first + timedelta(minutes=rng.randrange(int((last - first).total_seconds() // 60)))


def found(run):
    return {
        (row["episode"] or row["subject"]).removeprefix("Encounter/"): (
            bool(row["denominator"]),
            bool(row["denominator_exclusion"]),
            bool(row["numerator"]),
        )
        for row in run.table.to_pylist()
    }


COUNTED, EXCLUDED, HIT = (True, False, False), (True, True, False), (True, False, True)


@pytest.mark.parametrize("seed", SEEDS)
def test_returns_to_an_emergency_department(encounter, tables, seed):
    rng, rows, truth, people = random.Random(seed), [], {}, {}

    def visit(name, who, start, hours=3.0, kind="EMER", **more):
        rows.append(encounter(name, who, kind, at(start), at(start + timedelta(hours=hours)), **more))
        return start + timedelta(hours=hours)

    for n in range(140):
        who, start = f"p{n}", moment(rng)
        end = visit(f"{who}-1", who, start, disposition=rng.choice(["home", "01", None]))
        fate = rng.choice(
            (
                "none",
                "back",
                "edge",
                "late",
                "admitted",
                "overlap",
                "transfer",
                "clinic",
                "died",
                "cancelled",
                "expired",
            )
        )
        truth[f"{who}-1"] = COUNTED
        if fate == "back":
            end = visit(f"{who}-2", who, end + timedelta(minutes=rng.randrange(1, 72 * 60)), disposition="home")
            truth |= {f"{who}-1": HIT, f"{who}-2": COUNTED}
        elif fate == "edge":
            visit(f"{who}-2", who, end + timedelta(hours=72))
            truth |= {f"{who}-1": HIT, f"{who}-2": COUNTED}
        elif fate == "late":
            visit(f"{who}-2", who, end + timedelta(hours=72, minutes=1))
            truth[f"{who}-2"] = COUNTED
        elif fate == "admitted":
            visit(f"{who}-s", who, end + timedelta(minutes=rng.randrange(-170, 360)), 40, rng.choice(["IMP", "OBSENC"]))
            del truth[f"{who}-1"]
        elif fate == "overlap":
            visit(f"{who}-2", who, start + timedelta(minutes=10), 2.0)
            truth[f"{who}-2"] = COUNTED
        elif fate == "transfer":
            rows.pop()
            visit(f"{who}-1", who, start, disposition="02")
            del truth[f"{who}-1"]
        elif fate == "clinic":
            visit(f"{who}-c", who, end + timedelta(hours=20), 1, "AMB")
        elif fate == "died":
            people[who] = {"deceasedDateTime": (end + timedelta(days=rng.choice((1, 2)))).date().isoformat()}
            truth[f"{who}-1"] = EXCLUDED
        elif fate == "cancelled":
            visit(f"{who}-2", who, end + timedelta(hours=5), status="cancelled")
        elif fate == "expired":
            rows.pop()
            visit(f"{who}-1", who, start, disposition="exp")
            del truth[f"{who}-1"]
    rng.shuffle(rows)
    run = evaluate("ed-return-72h", tables(rows, **people), period=YEAR, run_id="r")
    assert found(run) == truth


def test_the_last_72_hours_of_the_period_are_no_index(encounter, tables):
    rows = [
        encounter("in", "a", "EMER", "2026-12-28T20:00:00Z", "2026-12-28T23:59:00Z"),
        encounter("out", "b", "EMER", "2026-12-28T22:00:00Z", "2026-12-29T00:00:00Z"),
        encounter("before", "c", "EMER", "2025-12-31T20:00:00Z", "2025-12-31T23:59:00Z"),
    ]
    assert set(found(evaluate("ed-return-72h", tables(rows), period=YEAR, run_id="r"))) == {"in"}


@pytest.mark.parametrize("seed", SEEDS)
def test_readmissions(encounter, tables, seed):
    rng, rows, truth, people = random.Random(seed), [], {}, {}

    def stay(name, who, start, days=3, kind="IMP", **more):
        end = start + timedelta(days=days)
        rows.append(encounter(name, who, kind, start.isoformat(), end.isoformat(), **more))
        return end

    for n in range(140):
        who, start = f"p{n}", moment(rng, last=datetime(2026, 9, 30)).date()
        end = stay(f"{who}-1", who, start, disposition=rng.choice(["home", None]))
        fate = rng.choice(("none", "back", "late", "transfer", "observed", "clinic", "advice", "died", "outlived"))
        truth[f"{who}-1"] = COUNTED
        if fate == "back":
            stay(f"{who}-2", who, end + timedelta(days=rng.choice((2, 15, 30))), kind=rng.choice(["IMP", "ACUTE"]))
            truth |= {f"{who}-1": HIT, f"{who}-2": COUNTED}
        elif fate == "late":
            stay(f"{who}-2", who, end + timedelta(days=rng.choice((31, 40))))
            truth[f"{who}-2"] = COUNTED
        elif fate == "transfer":
            stay(f"{who}-2", who, end + timedelta(days=rng.choice((0, 1))))
            truth[f"{who}-2"] = truth.pop(f"{who}-1")
        elif fate == "observed":
            stay(f"{who}-2", who, end + timedelta(days=5), kind="OBSENC")
        elif fate == "clinic":
            stay(f"{who}-2", who, end + timedelta(days=5), 0, "AMB")
        elif fate == "advice":
            rows.pop()
            stay(f"{who}-1", who, start, disposition="07")
            stay(f"{who}-2", who, end + timedelta(days=9))
            truth |= {f"{who}-1": EXCLUDED, f"{who}-2": COUNTED}
        elif fate == "died":
            people[who] = {"deceasedDateTime": end.isoformat()}
            truth[f"{who}-1"] = EXCLUDED
        elif fate == "outlived":
            people[who] = {"deceasedDateTime": (end + timedelta(days=1)).isoformat()}
    rng.shuffle(rows)
    assert found(evaluate("readmission-30d", tables(rows, **people), period=YEAR, run_id="r")) == truth


@pytest.mark.parametrize("seed", SEEDS)
def test_well_visits_of_children(encounter, tables, seed):
    rng, rows, infants, older, people = random.Random(seed), [], {}, {}, {}
    reason = {"reasonCode": [{"coding": [{"code": "Z00.129"}]}]}
    for n in range(80):
        who = f"i{n}"
        # Fifteen months old within 2026.
        born = date(2024, 10, 5) + timedelta(days=rng.randrange(340))
        people[who] = {"birthDate": born.isoformat()}
        count, late = rng.randrange(4, 9), rng.randrange(3)
        days = rng.sample(range(1, 440), count) + [470 + n for n in range(late)]
        for number, day in enumerate(days):
            rows.append(encounter(f"{who}-{number}", who, "AMB", (born + timedelta(days=day)).isoformat(), **reason))
        infants[who] = (*COUNTED[:2], count >= 6)
    for n in range(80):
        who, age = f"c{n}", rng.randrange(1, 25)
        people[who] = {"birthDate": date(2026 - age, rng.randrange(1, 13), rng.randrange(1, 29)).isoformat()}
        kind = rng.choice(("well", "ill", "before", "cancelled", "none"))
        on = date(2025, 6, 1) if kind == "before" else moment(rng).date()
        if kind != "none":
            more = {} if kind == "ill" else reason
            status = "cancelled" if kind == "cancelled" else "finished"
            rows.append(encounter(f"{who}-v", who, "AMB", on.isoformat(), status=status, **more))
        if 3 <= age <= 21:
            older[who] = (*COUNTED[:2], kind == "well")
    rows.append(encounter("nobody", "x", "AMB", "2026-05-05", reasonCode=None))
    source = tables(rows, **people)
    run = found(evaluate("well-child-15m", source, period=YEAR, run_id="r"))
    assert {who: flags for who, flags in run.items() if who.startswith("i")} == infants
    run = found(evaluate("well-care", source, period=YEAR, run_id="r"))
    assert {who: flags for who, flags in run.items() if who.startswith("c")} == older


@pytest.mark.parametrize("seed", [5, 6])
def test_screenings_and_demographics_of_a_generated_population(tmp_path, seed):
    people = generate(tmp_path / "people", patients=400, seed=seed, year=2026)
    lake = Lake(tmp_path / "lake")
    lake.ingest(people.fhir)

    def differences(measure, **offset):
        run = evaluate(measure, lake, period=YEAR, run_id="r", **offset)
        assert run.table.num_rows > 200
        return people.truth.of_patients(measure, rows_of(run.table, "subject", "denominator", "numerator"))

    here = {"offset": timedelta(hours=-6)}
    assert differences("social-need-screening", **here) == []
    assert differences("data-completeness", **here) == []
    assert differences("social-need-screening"), "in UTC the last evening of a year is the next year's"


# Notices --------------------------------------------------------------------------------------


def event(visit, trigger, when, *, person="p", kind="IMP", version=1, material=True):
    return {
        "event_key": f"{visit}-{trigger}-{version}",
        "facility_id": "f",
        "visit_number": visit,
        "trigger": trigger,
        "version": version,
        "event_at": when,
        "event_on": when.date(),
        "received_at": when,
        "person_id": person,
        "class": kind,
        "status": "finished",
        "material_hash": "h",
        "material": material,
        "source": "hl7v2",
        "message_sha": "s",
    }


def delivery(key, subscriber, acked, *, state=None, channel="now", created=None):
    return {
        "delivery_id": f"{key}/{subscriber}/{channel}",
        "subscriber_id": subscriber,
        "channel_id": channel,
        "event_key": key,
        "material_version": "h",
        "template_major": 1,
        "state": state or ("acked" if acked else "pending"),
        "attempts": 1,
        "due_at": created,
        "created_at": created,
        "acked_at": acked,
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_notices_of_discharges(seed):
    rng, events, deliveries, truth = random.Random(seed), [], [], {}
    nothing, owed, noticed = (False, False, False), COUNTED, HIT
    for n in range(120):
        visit, when = f"v{n}", moment(rng).replace(tzinfo=UTC)
        key, later = f"{visit}-discharge-1", when + timedelta(hours=rng.choice((0.1, 12, 24)))
        late = when + timedelta(hours=24, minutes=1)
        events.append(event(visit, "discharge", when))
        events.append(event(visit, "admit", when - timedelta(days=2)))
        fate = rng.choice(
            ("told", "late", "pending", "nobody", "one-late", "second-channel", "cancelled", "undone", "clinic")
        )
        plans = {
            "told": ([("a", later), ("b", later)], noticed),
            "late": ([("a", late)], owed),
            "pending": ([("a", None)], owed),
            "nobody": ([], nothing),
            "one-late": ([("a", later), ("b", late)], owed),
            "second-channel": ([("a", late), ("a", later)], noticed),
            "cancelled": ([("a", None)], nothing),
            "undone": ([("a", later)], None),
            "clinic": ([("a", later)], None),
        }
        sent, expected = plans[fate]
        for number, (subscriber, acked) in enumerate(sent):
            state = "cancelled" if fate == "cancelled" else None
            deliveries.append(delivery(key, subscriber, acked, state=state, channel=f"c{number}", created=when))
        if fate == "undone":
            events.append(event(visit, "cancel_discharge", when + timedelta(hours=1)))
        if fate == "clinic":
            events[-2]["class"] = "AMB"
        if expected is not None:
            truth[visit] = expected
    events.append(event("old", "discharge", datetime(2025, 5, 5, tzinfo=UTC)))
    events.append(event("unknown", "discharge", datetime(2026, 5, 5, tzinfo=UTC), person=None))
    source = {
        "encounter_event": corridor.ENCOUNTER_EVENT.from_rows(events),
        "delivery": corridor.DELIVERY.from_rows(deliveries),
    }
    assert found(evaluate("notice-24h", source, period=YEAR, run_id="r")) == truth


def test_a_notice_measure_may_be_stricter_and_needs_whole_tables():
    when = datetime(2026, 3, 3, 12, tzinfo=UTC)
    events = corridor.ENCOUNTER_EVENT.from_rows([event("v", "discharge", when)])
    deliveries = corridor.DELIVERY.from_rows([delivery("v-discharge-1", "a", when + timedelta(hours=5), created=when)])
    source = {"encounter_event": events, "delivery": deliveries}
    strict = evaluate("notice-24h", source, period=YEAR, run_id="r", parameters={"hours": 4})
    assert found(strict) == {"v": COUNTED}
    assert found(evaluate("notice-24h", source, period=YEAR, run_id="r")) == {"v": HIT}
    with pytest.raises(corridor.SchemaMismatch):
        evaluate("notice-24h", {"delivery": pa.table({"delivery_id": ["x"]})}, period=YEAR, run_id="r")
