"""The whole route from one configuration, then what a payer gets back, in the full and the shareable form."""

import tomllib
from datetime import date
from pathlib import Path

import hiexchange as hx
from hiexchange import config
from hiexchange.testing.population import generate
from hiexchange.testing.population.settings import subscriptions

people = generate("people", patients=200)
hx.Lake("people/out/lake").ingest(people.fhir)
rosters = [
    {"path": f"rosters/{path.name}", "layout": f"layouts/{payer}.toml", "as_of": as_of}
    for payer, as_of, path in people.rosters()
]
settings = config.parse(
    {
        "base": "people",
        "known_at": "2026-01-05T12:00:00Z",
        "rosters": rosters,
        "subscriptions": tomllib.loads(subscriptions(list(people.tins)))["subscriptions"],
        "measures": [{"id": "followup-7d", "period": [date(2025, 1, 1), date(2025, 12, 31)], "offset": "-06:00"}],
        "feedback": {"period": [date(2025, 1, 1), date(2025, 12, 31)]},
    }
)
result = hx.run(settings)
print(result.identity)

for path in sorted(Path("people/out/feedback").iterdir()):
    lines = path.read_text().count("\n") if path.suffix == ".csv" else ""
    print(path.name, lines)
assert result.identity_holds
