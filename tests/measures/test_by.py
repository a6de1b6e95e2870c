"""Rates and gaps by attributed provider: of histories, what was known last."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from hiexchange.measures import Measure
from hiexchange.tables import ATTRIBUTION, OPEN_DATE, OPEN_INSTANT, PERSON_LINK

YEAR = (date(2026, 1, 1), date(2026, 12, 31))


def known(month):
    return {"known_from": datetime(2026, month, 2, tzinfo=UTC), "known_to": OPEN_INSTANT}


def attributed(member, npi, *, month=1, to=OPEN_DATE, status="active", rank=1):
    """What a roster of a month says: the member is the provider's from January until ``to``."""
    given = {"payer_id": "p", "member_key": member, "member_id": member, "member_id_system": "s", "basis": "roster"}
    spell = {"valid_from": date(2026, 1, 1), "valid_to": to, "as_of_on": date(2026, month, 1), **known(month)}
    file = {"roster_id": f"r{month}", "row_no": 1, "row_sha": "0", "list_seq": month, "change_type": "changed"}
    key = f"{member} {npi}"
    provider = {
        "attribution_id": key,
        "business_key": key,
        "attribution_level": "npi",
        "provider_npi": npi,
        "rank": rank,
    }
    return {**given, **spell, **file, **provider, "status": status}


def linked(member, person, *, month=1, band="auto"):
    run = {"payer_id": "p", "method": "member_id", "candidates": 1, "run_id": "r"}
    return {"member_key": member, "person_id": person, "band": band, **run, **known(month)}


@pytest.fixture
def run(small_bundle, people):
    return Measure.load(small_bundle).evaluate(people, period=YEAR)


def shared(run, attribution, links):
    """{subject: provider} as gaps name them, and {provider: subjects} as the rates count them."""
    tables = {"attribution": ATTRIBUTION.from_rows(attribution), "links": PERSON_LINK.from_rows(links)}
    cut = run.by("provider", min_cell=0, **tables).to_pylist()
    named = {row["subject"]: row["provider_npi"] for row in run.gaps(**tables).to_pylist()}
    return named, {row["provider"]: row["subjects"] for row in cut}


def test_a_provider_who_lost_a_member_is_named_no_more(run):
    history = [
        attributed("m1", "111"),
        attributed("m1", "111", month=3, to=date(2026, 3, 1)),
        attributed("m1", "222", month=3),
    ]
    named, counts = shared(run, history, [linked("m1", "b-high")])
    assert named == {"b-high": "222", "c-none": None, "d-old-value": None}
    assert counts == {"222": 1, "unknown": 5}


def test_a_link_that_was_withdrawn_names_nobody(run):
    links = [linked("m1", "b-high"), linked("m1", "b-high", month=4, band="review")]
    named, counts = shared(run, [attributed("m1", "111")], links)
    assert set(named.values()) == {None}
    assert counts == {"unknown": 6}


def test_the_first_of_several_is_named_and_one_who_may_not_know_is_not(run):
    history = [
        attributed("m1", "111", status="suppressed"),
        attributed("m1", "333", rank=3),
        attributed("m1", "222", rank=2),
    ]
    assert shared(run, history, [linked("m1", "b-high")])[0]["b-high"] == "222"
