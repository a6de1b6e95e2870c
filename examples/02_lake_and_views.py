"""NDJSON becomes typed Parquet without losing anything; views make flat tables of it."""

import json

import hiexchange as hx
from hiexchange import ndjson
from hiexchange.testing.population import generate

people = generate("people", patients=50)
lake = hx.Lake("lake")
report = lake.ingest(people.fhir)
print(f"{report.rows:,} rows, {report.rejected} lines refused")

claims = hx.view("claim_header", lake)
print(claims.num_rows, "claims;", ", ".join(claims.column_names[:8]))
print(lake.sql("SELECT gender, count(*) AS people FROM Patient GROUP BY gender ORDER BY gender").to_pylist())

# Back again, equal to what came in: decimals keep their text.
source = {claim["id"]: claim for claim in ndjson.reader(people.fhir / "ExplanationOfBenefit.ndjson", decimals=str)}
returned = [json.loads(line, parse_float=str) for line in lake.to_ndjson("ExplanationOfBenefit")]
assert all(claim == source[claim["id"]] for claim in returned)
print(f"{len(returned):,} claims returned, all equal")
