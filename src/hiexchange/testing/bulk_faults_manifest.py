"""Faults 31 to 40: the manifest."""

from __future__ import annotations

import json
from typing import Any

from hiexchange.testing.bulk_faults import Exchange, Reply, edit_manifest, fault


@fault(31)
@edit_manifest
def null_arrays(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give null for empty arrays and leave requiresAccessToken out."""
    manifest["deleted"] = None
    del manifest["error"]
    del manifest["requiresAccessToken"]


@fault(32)
@edit_manifest
def no_transaction_time(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Leave transactionTime out."""
    del manifest["transactionTime"]


@fault(32)
@edit_manifest
def unreadable_transaction_time(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give a transactionTime nobody can read."""
    manifest["transactionTime"] = "yesterday"


@fault(32)
@edit_manifest
def local_transaction_time(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give a transactionTime without offset."""
    manifest["transactionTime"] = "2026-08-01T00:00:00"


@fault(32)
@edit_manifest
def future_transaction_time(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give a transactionTime in the far future."""
    manifest["transactionTime"] = "2999-01-01T00:00:00Z"


def _expires(value: str | None) -> Any:
    def hook(ex: Exchange, reply: Reply) -> Reply:
        return reply.with_header("Expires", value) if ex.kind == "status" and reply.status == 200 else reply

    return hook


for _name, _value, _doc in (
    ("expires_in_go", "2036-08-14 00:07:48 +0000 UTC", "Give Expires as Go prints times (BCDA)."),
    ("expires_zero", "0", "Give Expires as 0."),
    ("expires_absent", None, "Give no Expires."),
):
    _hook = _expires(_value)
    _hook.__name__, _hook.__doc__ = _name, _doc
    fault(33)(_hook)


@fault(34)
@edit_manifest
def duplicate_entries(ex: Exchange, manifest: dict[str, Any]) -> None:
    """List every file twice, interleaved, the first also under another type."""
    output = manifest["output"]
    manifest["output"] = [*output, *reversed(output), {**output[0], "type": "Basic"}]


@fault(35)
@edit_manifest
def next_loops(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Let the last page's next links be itself and the first page again."""
    if ex.kind == "page":
        urls = (f"{ex.base}{ex.path}", f"{ex.base}/jobs/{ex.job.id}")
        manifest["link"] = [{"relation": "next", "url": url} for url in urls]


@fault(35)
@edit_manifest
def next_foreign(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Link a next page on a host that is not agreed."""
    manifest["link"] = [{"relation": "next", "url": "http://10.11.12.13/page"}]


@fault(35)
def next_fails(ex: Exchange, reply: Reply) -> Reply:
    """Fail the first two fetches of a linked page with 502."""
    return Reply(502) if ex.kind == "page" and ex.count <= 2 else reply


@fault(36)
def links_renewed(ex: Exchange, reply: Reply) -> Reply:
    """Give links that work only with the latest signature; every manifest has a new one."""
    if ex.kind == "status" and reply.status == 200:
        manifest = json.loads(reply.body)
        ex.server.signature = ex.count
        for entry in manifest["output"]:
            entry["url"] += f"?sig={ex.count}"
        return reply.change(body=json.dumps(manifest).encode())
    if ex.kind == "file" and ex.count == 2:
        # From here on the first signature is void.
        ex.server.signature = -1
    if ex.kind == "file" and ex.query != f"sig={ex.server.signature}" and ex.server.signature != 0 and ex.count >= 2:
        return Reply(403, (("Content-Type", "application/xml"),), b"<Error>Request has expired</Error>")
    return reply


@fault(37)
@edit_manifest
def huge_manifest(ex: Exchange, manifest: dict[str, Any]) -> None:
    """List 50,000 files."""
    first = manifest["output"][0]
    padding = "x" * 200
    manifest["output"] = [{**first, "url": f"{first['url']}?n={number}&pad={padding}"} for number in range(50_000)]


@fault(38)
@edit_manifest
def relative_urls(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give relative URLs."""
    for entry in manifest["output"]:
        entry["url"] = entry["url"].removeprefix(ex.base)


@fault(38)
@edit_manifest
def file_url(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give a file: URL."""
    manifest["output"][0]["url"] = "file:///etc/passwd"


@fault(38)
@edit_manifest
def private_address(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Point to an address of a private network."""
    manifest["output"][0]["url"] = "https://169.254.169.254/latest/meta-data"


@fault(38)
@edit_manifest
def plain_http(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Point to plain http on another host."""
    manifest["output"][0]["url"] = "http://storage.example/file.ndjson"


@fault(38)
@edit_manifest
def climbing_names(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give types and URLs that would climb out of a folder."""
    manifest["output"][0]["type"] = "../../etc/passwd"
    manifest["output"][0]["url"] += "?name=../../../evil"


@fault(39)
def presigned(ex: Exchange, reply: Reply) -> Reply:
    """Require a token in the manifest, but refuse it at the files, as presigned S3 links do."""
    if ex.kind != "file":
        return reply
    if "authorization" in ex.headers:
        return Reply(400, (("Content-Type", "application/xml"),), b"<Error><Code>InvalidArgument</Code></Error>")
    return Reply(200, (("Content-Type", "application/fhir+ndjson"),), ex.file.read())


def _header(number: int) -> dict[str, Any]:
    reference = {"reference": f"Patient/{number}"}
    return {"resourceType": "Parameters", "parameter": [{"name": "header", "valueReference": reference}]}


@fault(40)
@edit_manifest
def organized(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Organise the output by patient: no type, header lines, continuesInFile as a bare name (SMART)."""
    blocks = {
        "1.ndjson": [_header(1), {"resourceType": "Patient", "id": "1"}, {"resourceType": "Encounter", "id": "10"}],
        "3.ndjson": [
            _header(1),
            {"resourceType": "Encounter", "id": "11"},
            _header(2),
            {"resourceType": "Patient", "id": "2"},
        ],
    }
    for name, lines in blocks.items():
        ex.server.extra[name] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    manifest["outputOrganizedBy"] = "Patient"
    manifest["output"] = [
        {"url": f"{ex.base}/extra/1.ndjson", "count": 2, "continuesInFile": "3.ndjson"},
        {"url": f"{ex.base}/extra/3.ndjson", "count": 2},
    ]
