"""Presets as data, servers from settings, URL rules, the doctor, DPC rosters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hiexchange._http import Policy, Session, Tls
from hiexchange._urls import check_url, origin, redact
from hiexchange.auth import ClientCredentials, SmartBackendServices, StaticToken
from hiexchange.bulk import ExportRequest
from hiexchange.bulk import dpc as roster
from hiexchange.bulk.doctor import examine
from hiexchange.bulk.fit import fit_request
from hiexchange.errors import ConfigError, PolicyViolation, RequestRefused
from hiexchange.servers import Server, ab2d, bcda, build, dpc, preset, presets
from hiexchange.testing.bulk_faults import Exchange, Reply
from hiexchange.testing.bulk_server import BulkServer


def test_presets_inherit_and_differ() -> None:
    assert {"bcda", "bcda-sandbox", "ab2d", "ab2d-sandbox", "dpc", "dpc-sandbox", "smart-demo"} <= set(presets())
    live, sandbox = preset("bcda"), preset("bcda-sandbox")
    assert live.groups == sandbox.groups and live.base != sandbox.base and live.rate == (3000, 300.0)
    with pytest.raises(ConfigError) as caught:
        preset("nothing")
    assert "bcda" in str(caught.value.hint)


def test_cms_servers() -> None:
    assert bcda(client_id="i", client_secret="s").url == "https://api.bcda.cms.gov/api/v3"
    second = bcda(client_id="i", client_secret="s", env="sandbox", version=2)
    assert (second.url, second.version) == ("https://sandbox.bcda.cms.gov/api/v2", 2)
    part_d = ab2d(client_id="i", client_secret="s", env="sandbox")
    assert isinstance(part_d.auth, ClientCredentials) and part_d.auth.refused_codes == {401, 403}
    point = dpc(client_token="t", key="k", kid="x")
    assert isinstance(point.auth, SmartBackendServices) and point.auth.token_url == f"{point.url}/Token/auth"
    for wrong in ({"env": "test"}, {"version": 9}):
        with pytest.raises(ConfigError):
            bcda(client_id="i", client_secret="s", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        dpc(client_token="t", key="k", kid="x", env="prod")


def test_servers_from_settings() -> None:
    claims = build({"preset": "bcda-sandbox", "client_id": "env:ID", "client_secret": "env:SECRET"})
    assert claims.version == 3 and isinstance(claims.auth, ClientCredentials)
    smart = build(
        {
            "url": "https://a.example/fhir",
            "client_id": "x",
            "key": "file:k.jwk",
            "policy": {"workers_max": 2, "read_timeout_s": 0.5},
        }
    )
    assert isinstance(smart.auth, SmartBackendServices) and smart.policy.workers_max == 2
    assert isinstance(build({"url": "https://a.example", "token": "env:T"}).auth, StaticToken)
    assert build({"url": "https://a.example"}).auth is None
    assert build({"preset": "dpc-sandbox", "client_id": "env:T", "key": "file:k", "kid": "1"}).auth is not None


@pytest.mark.parametrize(
    "options",
    [
        {"url": "https://a.example", "clientid": "x"}, {}, {"preset": "bcda"}, {"preset": "none"},
        {"url": "https://a.example", "client_id": "x", "client_secret": "literal"},
        {"url": "https://a.example", "policy": {"wokers": 1}},
        {"url": "https://a.example", "policy": {"workers_max": "many"}},
        {"url": "https://a.example", "policy": {"workers_max": 0}},
        {"url": "https://a.example", "policy": {"read_timeout_s": "1"}},
        {"url": "https://a.example", "policy": {"strict": 1}},
        {"url": "https://a.example", "policy": {"file_attempts": True}},
        {"url": "https://a.example", "policy": {"rate": 3}},
        {"url": "https://a.example", "client_id": "alone"},
        {"url": "https://a.example", "key": "file:k"},
    ],
)  # fmt: skip
def test_wrong_settings_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(options)
    assert "literal" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://fhir.example/r4", "ftp://a.example", "https://user:pw@a.example", "https://@a.example/x", "file:///etc",
        "https://", "http://10.0.0.1/", "https://a.example:port/",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(PolicyViolation) as caught:
        check_url(url)
    assert "pw" not in str(caught.value)


def test_url_pieces() -> None:
    assert origin("https://A.example/x") == origin("https://a.example:443") != origin("http://a.example:443")
    assert redact("https://u:p@a.example:8443/f?sig=secret") == "https://a.example:8443/f?…"
    check_url("http://127.0.0.1:1/")
    check_url("http://intra.example/", allow_http=True)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://fhir.hospital.example/x", True), ("https://files.hospital.example/x", True),
        ("https://bucket.s3.amazonaws.com/x", True), ("https://listed.example/x", True),
        ("https://evil.example/x", False), ("https://hospital.example.evil.example/x", False),
        ("https://169.254.169.254/x", False), ("https://localhost/x", False), ("https://db.internal/x", False),
    ],
)  # fmt: skip
def test_hosts_that_may_be_visited(url: str, allowed: bool) -> None:
    session = Session("https://fhir.hospital.example/r4", policy=Policy(allowed_hosts=("listed.example",)))
    try:
        session.permit(url, token=False)
        found = True
    except PolicyViolation:
        found = False
    session.close()
    assert found == allowed


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate", encoding="utf-8")
    for file in ("bad.pem", "absent.pem"):
        with pytest.raises(ConfigError):
            Tls(ca_file=str(tmp_path / file)).context()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[BulkServer]:
    (tmp_path / "Patient.ndjson").write_text('{"resourceType":"Patient","id":"-1"}\n', encoding="utf-8")
    with BulkServer(tmp_path, auth="smart", faults=[dpc_group]) as server:
        yield server


def dpc_group(ex: Exchange, reply: Reply) -> Reply:
    """Play DPC's Group endpoints, attestation required, and a JWKS."""
    if ex.path == "/jwks.json":
        key = {name: value for name, value in ex.server.private_key.items() if name != "d"}
        return Reply(200, (("Content-Type", "application/json"),), json.dumps({"keys": [key]}).encode())
    if not ex.path.startswith("/fhir/Group/g"):
        return reply
    if ex.path.endswith("$add") and "x-provenance" not in ex.headers:
        return Reply(422)
    ends = {"-1": "2026-09-01T00:00:00Z", "-2": "2026-12-01T00:00:00Z", "-3": "2026-07-01T00:00:00Z"}
    members = [
        {"entity": {"reference": f"Patient/{name}"}, "period": {"end": end}, "inactive": name == "-3"}
        for name, end in ends.items()
    ]
    return Reply(200, (), json.dumps({"resourceType": "Group", "member": members}).encode())


def test_dpc_roster_upkeep(running: BulkServer) -> None:
    server = Server(running.url, SmartBackendServices(running.client_id, running.private_key))
    now = datetime(2026, 8, 1, tzinfo=UTC)
    found = roster.members(server, "g")
    due = roster.lapsing(found, before=datetime(2026, 10, 1, tzinfo=UTC))
    assert [item.patient_id for item in due] == ["-3", "-1"]
    roster.add_members(server, "g", [item.patient_id for item in due], roster.provenance("org", "doc", now=now))
    roster.remove_members(server, "g", ["-2"])
    sent = next(entry for entry in running.log if entry.path.endswith("$add"))
    attestation = json.loads(sent.headers["x-provenance"])
    assert attestation["agent"][0]["whoReference"]["reference"] == "Organization/org" and sent.authorized
    with pytest.raises(RequestRefused):
        roster.members(server, "absent")


def test_the_doctor(running: BulkServer, tmp_path: Path) -> None:
    auth = SmartBackendServices(running.client_id, running.private_key, jku=f"{running.origin}/jwks.json")
    findings = {finding.name: finding.state for finding in examine(Server(running.url, auth), tmp_path)}
    assert findings == {
        "key": "ok", "proxy": "ok", "disk": "ok", "metadata": "ok", "clock": "ok", "jwks": "warn", "token": "ok"
    }  # fmt: skip
    stranger = SmartBackendServices("nobody", running.private_key)
    states = {finding.name: finding.state for finding in examine(Server(running.url, stranger), tmp_path)}
    assert states["token"] == "fail"
    down = {finding.name: finding.state for finding in examine(Server("http://127.0.0.1:9/fhir"), tmp_path)}
    assert (down["key"], down["network"]) == ("warn", "fail")


def test_requests_are_held_against_the_preset() -> None:
    claims = bcda(client_id="i", client_secret="s")
    drugs = ab2d(client_id="i", client_secret="s", version=3)
    assert fit_request(ExportRequest(group="all"), claims).since is None
    assert fit_request(ExportRequest(types=("ExplanationOfBenefit",)), drugs).since == "2026-04-01T00:00:00.000Z"
    refused = [
        (ExportRequest(group="A9994"), claims), (ExportRequest(level="system"), claims), (ExportRequest(group="all"), drugs),
        (ExportRequest(types=("Observation",)), claims), (ExportRequest(elements=("id",)), claims),
        (ExportRequest(patients=("-1",)), claims),
    ]  # fmt: skip
    for request, server in refused:
        with pytest.raises(ConfigError) as caught:
            fit_request(request, server)
        assert "hiexchange servers" in str(caught.value.hint)
