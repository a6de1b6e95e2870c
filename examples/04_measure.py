"""A measure over a lake: rate, interval, rows, and a FHIR MeasureReport."""

from datetime import date, timedelta

import hiexchange as hx
from hiexchange.testing.population import generate

people = generate("people", patients=300)
lake = hx.Lake("lake")
lake.ingest(people.fhir)

year = (date(2025, 1, 1), date(2025, 12, 31))
run = hx.evaluate("followup-7d", lake, period=year, offset=timedelta(hours=-6), run_id="example")
summary = run.summary()
assert summary.rate is not None and summary.interval is not None
print(f"{summary.measure.title}: {summary.first.hits}/{summary.first.eligible} = {summary.rate:.1%}")
print("95 % interval: {:.1%} to {:.1%}".format(*summary.interval))
print(run.table.select(["subject", "episode", "denominator", "numerator"]).slice(0, 3).to_pylist())
print(summary.to_fhir()["resourceType"])

planted = people.truth.followup()
assert planted == (summary.first.hits, summary.first.eligible), "the generator planted something else"
