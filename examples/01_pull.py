"""Export from a Bulk Data server into a lake; run it again and only what is new comes.

The server here is our own loopback one, which demands SMART Backend Services and cuts a file short.
"""

import hiexchange as hx
from hiexchange.bulk import watermark_key
from hiexchange.testing.bulk_server import BulkServer
from hiexchange.testing.population import generate

people = generate("people", patients=50)
lake = hx.Lake("lake")

with BulkServer(people.fhir, auth="smart", faults=[41]) as bulk:
    server = hx.Server(bulk.url, hx.SmartBackendServices(bulk.client_id, bulk.private_key))
    request = hx.ExportRequest(types=("Patient", "Encounter", "Observation"))
    done = hx.pull(server, lake, request, folder="jobs/1")
    for receipt in done.export.receipts:
        print(f"{receipt.file}: {receipt.resources:,} resources, proved by {', '.join(receipt.verified)}")

    since = lake.watermark(watermark_key(server.url, server.version, request))
    later = hx.ExportRequest(types=request.types, since=since)
    print(f"since {since}: {hx.pull(server, lake, later, folder='jobs/2').export.resources} resources")

print(lake.tables())
