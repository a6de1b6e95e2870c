"""X12 834 against pyx12, which reads by the implementation guide's own map: the same members, the same fields."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from hiexchange.roster import Roster
from hiexchange.tables import OPEN_DATE

pyx12 = pytest.importorskip("pyx12", reason="pyx12 is the oracle; it comes with the extra test")

Read = Callable[..., Roster]
DAYS = ("20240101", "20250630", "20261231")


def made_up_file(seed: int, members: int, *, separator: str = "*", terminator: str = "~", bgn08: str = "4") -> str:
    """An interchange of random members: dependants, several coverages and providers, fields left out."""
    rng = random.Random(seed)
    body = [
        "ST*834*0001*005010X220A1",
        f"BGN*00*1*20260131*1200****{bgn08}",
        "N1*P5*SPONSOR*FI*111111111",
        "N1*IN*PAYER*FI*987654321",
    ]
    for number in range(members):
        own = number % 3 != 2
        body += [
            f"INS*{'Y*18' if own else 'N*19'}*{rng.choice(['021', '001', '024', '030'])}*XN*A***FT",
            f"REF*0F*S{number // 3:05d}",
        ]
        body += [f"REF*1L*G{rng.randrange(9)}"] if rng.random() < 0.7 else []
        body += [f"DTP*356*D8*{DAYS[0]}"] if rng.random() < 0.5 else []
        middle = rng.choice(["", "B", "LOU"])
        body += [f"NM1*IL*1*LAST{number}*FIRST{number}*{middle}**{rng.choice(['', 'JR'])}*ZZ*M{number:05d}"]
        body += ["PER*IP**HP*5015551234"] if rng.random() < 0.6 else []
        body += [f"N3*{number} ELM ST", f"N4*CONWAY*AR*72{rng.randrange(100, 999)}"] if rng.random() < 0.9 else []
        body += [f"DMG*D8*19{rng.randrange(30, 99)}0{rng.randrange(1, 9)}1{rng.randrange(9)}*{rng.choice('MF')}"]
        for line in range(rng.choice([1, 1, 2])):
            body += [
                f"HD*{rng.choice(['021', '030'])}**{rng.choice(['HMO', 'PPO', 'DEN'])}*PLAN{line}*IND",
                f"DTP*348*D8*{DAYS[0]}",
            ]
            body += [f"DTP*349*D8*{DAYS[2]}"] if rng.random() < 0.3 else []
            if rng.random() < 0.8:
                body += [f"LX*{line + 1}", f"NM1*P3*1*DOE*J****XX*{rng.choice(['1234567893', '1467560003'])}*25"]
    body.append(f"SE*{len(body) + 1}*0001")
    isa = "ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *260131*1200*^*00501*000000007*0*P*:"
    whole = [isa, "GS*BE*S*R*20260131*1200*3*X*005010X220A1", *body, "GE*1*3", "IEA*1*000000007"]
    return "".join(segment.replace("*", separator) + terminator + "\n" for segment in whole)


def by_the_guide(text: str) -> Iterator[dict[str, Any]]:
    """Yield what pyx12 reads: one row a member and provider, or one a member without."""
    from pyx12 import error_handler, params, x12context

    reader = x12context.X12ContextReader(params.params(), error_handler.errh_null(), io.StringIO(text))
    for loop in reader.iter_segments("2000"):
        if loop.id != "2000":
            continue
        row = {name: loop.get_value(path) or None for name, path in FIELDS.items()}
        coverages = list(loop.select("2300"))
        provided = [(coverage, one) for coverage in coverages for one in coverage.select("2310")]
        for coverage, provider in provided or [(coverages[-1], None)]:
            yield row | {
                "begin": coverage.get_value("DTP[348]03") or loop.get_value("DTP[356]03"),
                "end": coverage.get_value("DTP[349]03"),
                "provider_npi": provider.get_value("NM109") if provider else None,
            }


FIELDS = {
    "subscriber_id": "REF[0F]02",
    "member_id": "2100A/NM109",
    "last_name": "2100A/NM103",
    "first_name": "2100A/NM104",
    "middle_name": "2100A/NM105",
    "suffix": "2100A/NM107",
    "address_line": "2100A/N301",
    "city": "2100A/N401",
    "zip": "2100A/N403",
    "phone": "2100A/PER04",
    "birth": "2100A/DMG02",
    "sex": "2100A/DMG03",
}


def test_members_and_fields_are_those_of_the_implementation_guide(read: Read) -> None:
    for seed, separator, terminator in ((1, "*", "~"), (2, "|", "'")):
        text = made_up_file(seed, 24, separator=separator, terminator=terminator)
        roster = read(text.encode(), "x12-834", as_of=None, payer_id=None)
        assert roster.state == "accepted", roster.issues["code"].to_pylist()
        guide = list(by_the_guide(text))
        # A line that names no provider attributes nobody: it is refused, and counted.
        assert ours(roster) == [row for row in guide if row["provider_npi"]]
        refused = [row for row in guide if not row["provider_npi"]]
        assert (roster.counts.read, roster.counts.refused) == (len(guide), len(refused))
        assert len({row["member_id"] for row in guide}) == 24


def ours(roster: Roster) -> list[dict[str, Any]]:
    names = (*(name for name in FIELDS if name not in ("birth", "sex")), "provider_npi")
    return [
        {name: row[name] for name in names}
        | {
            "birth": f"{row['birth_on']:%Y%m%d}",
            "sex": row["sex"][0].upper(),
            "begin": f"{row['valid_from']:%Y%m%d}",
            # valid_to is the first day after the last.
            "end": None if row["valid_to"] == OPEN_DATE else f"{row['valid_to'] - timedelta(days=1):%Y%m%d}",
        }
        for row in roster.members.to_pylist()
    ]
