"""The layouts, subscriptions and configuration that go with the population: what an operator would write."""

from __future__ import annotations

from pathlib import Path

LAYOUTS = {
    "payer-a": """\
# How payer A's file is read: comma separated, ISO dates, an opt-out flag.
name = "payer-a"
version = "2025-01"

[list]
payer_id = "payer-a"
mode = "full"
min_members_for_guard = 150
method = "assigned by the payer; see its published rules"
[list.as_of]
file_name = 'payer-a-(\\d{4}-\\d{2}-\\d{2})'

[file]
delimiter = ","

[columns]
member_id = { source = "MEMBER_ID", required = true }
member_id_system = { constant = "urn:hiexchange:payer:payer-a" }
first_name = "FIRST_NAME"
last_name = "LAST_NAME"
suffix = "SUFFIX"
birth_on = { source = "DOB", format = "%Y-%m-%d", required = true }
sex = { source = "SEX", codes = { F = "female", M = "male" } }
address_line = "ADDRESS"
city = "CITY"
state = "STATE"
zip = "ZIP"
phone = "PHONE"
provider_npi = "PCP_NPI"
provider_tin = "PRACTICE_TIN"
valid_from = { source = "EFF_DATE", format = "%Y-%m-%d", required = true }
valid_to = { source = "TERM_DATE", format = "%Y-%m-%d" }
sharing_pref = { source = "SHARE", codes = { Y = "opt-in", N = "opt-out" } }
""",
    "payer-b": """\
# How payer B's file is read: pipe separated, American dates, sex as 1 and 2.
name = "payer-b"
version = "2025-01"

[list]
payer_id = "payer-b"
mode = "full"
min_members_for_guard = 150
method = "plurality of primary care claims"
basis = "claims_plurality"
[list.as_of]
file_name = 'payer-b-(\\d{4}-\\d{2}-\\d{2})'

[file]
delimiter = "|"

[columns]
member_id = { source = "subscriber", required = true }
member_id_system = { constant = "urn:hiexchange:payer:payer-b" }
first_name = "given"
last_name = "family"
birth_on = { source = "birth", format = "%m/%d/%Y", required = true }
sex = { source = "gender", codes = { 1 = "male", 2 = "female" } }
address_line = "street"
city = "town"
zip = "postal"
phone = "tel"
provider_npi = "npi"
provider_tin = "group_tin"
valid_from = { source = "from", format = "%m/%d/%Y", required = true }
valid_to = { source = "to", format = "%m/%d/%Y" }
sharing_pref = { source = "consent", codes = { Y = "opt-in", N = "opt-out" } }
""",
}

CHANNELS = (
    ("csv", "0 6 * * *"),
    ("ndjson", "immediate"),
    ("hl7v2", "immediate"),
    ("fhir", "immediate"),
    ("parquet", "0 6 * * 1"),
)
"""Format and cadence of the five subscribing practices, in order."""


def subscriptions(tins: list[str]) -> str:
    """Return the ``[[subscriptions]]`` of the subscribing practices; ``tins`` are theirs, in order."""
    blocks = []
    for number, (tin, (format_, cadence)) in enumerate(zip(tins, CHANNELS, strict=False), 1):
        blocks.append(
            f"""\
[[subscriptions]]
id = "practice-{number}"
tin = ["{tin}"]
classes = ["IMP", "EMER"]
triggers = ["admit", "register", "discharge"]

[[subscriptions.channels]]
id = "main"
url = "inbox/practice-{number}"
format = "{format_}"
cadence = "{cadence}"
zone = "America/Chicago"
"""
        )
    return "\n".join(blocks)


def write_layouts(folder: Path) -> None:
    """Write the payers' layouts as TOML files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in LAYOUTS.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
