"""``hiexchange demo``: the whole route on a synthetic population, compared with what was planted."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiexchange._files import read_json
from hiexchange.cli import render
from hiexchange.cli._progress import reporter
from hiexchange.cli.run import summary

if TYPE_CHECKING:
    from hiexchange.pipeline import RunResult
    from hiexchange.testing.bulk_server import BulkServer
    from hiexchange.testing.population import Difference, Population

DIFFERS = 7
FAULTS = ("token_expired_at_kickoff", "gzip_members", "body_short")
"""What the demo's server does wrong: it refuses a fresh token, cuts a file short, sends gzip in members."""
WEEK = timedelta(days=7)
FOLLOWUP = "followup-7d"
OF_PATIENTS = ("social-need-screening", "data-completeness")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("demo")
    def demo(
        folder: Annotated[Path, typer.Option(help="Where everything is written; made anew.")] = Path("hiexchange-demo"),
        patients: Annotated[int, typer.Option(min=20, help="How many patients.")] = 500,
        seed: Annotated[int, typer.Option(help="Same seed, same people.")] = 7,
    ) -> None:
        """Run the whole route on synthetic people, offline. Compare every stage with the planted truth; exit code 7 if one differs."""
        from hiexchange import config, pipeline
        from hiexchange.errors import ConfigError
        from hiexchange.testing.bulk_server import BulkServer
        from hiexchange.testing.population import generate

        begin = time.perf_counter()
        if folder.exists() and any(folder.iterdir()) and not (folder / "truth").is_dir():
            raise ConfigError(
                "the folder holds something else", where=str(folder), hint="give a new one: the demo makes its own anew"
            )
        (folder / "truth").mkdir(parents=True, exist_ok=True)  # by this the folder is known again, even after Ctrl-C
        shutil.rmtree(folder / "out", ignore_errors=True)
        population = generate(folder, patients=patients, seed=seed)
        with BulkServer(population.fhir, auth="smart", faults=FAULTS) as server:
            render.out(f"hiexchange demo   seed {seed} · {patients:,} patients · FHIR R4 · {server.url}")
            known_at = datetime(population.year + 1, 1, 5, 12, tzinfo=UTC)
            settings = config.load(write_settings(population, server, known_at))
            result = pipeline.run(settings, on_event=reporter())
            summary(result)
            settings = config.load(write_settings(population, server, known_at + WEEK))
            again = pipeline.run(settings, on_event=reporter())
        again.truth = [*compare(population, again), _once(result, again)]
        pipeline.write_report(again, "hiexchange demo")
        render.out(f" {'week on':<8}  {_later(result, again)}")
        render.out(" truth     " + " · ".join(f"{name} {text}" for name, text, _ in again.truth))
        render.out(f" total     {time.perf_counter() - begin:.1f} s")
        render.out(f" look      {folder}/out/inbox/ is what each practice received; then, for example,")
        render.out(f"           hiexchange lake tables --lake {folder}/out/lake")
        render.out(f"           hiexchange view run encounter --limit 3 --lake {folder}/out/lake")
        render.out(f"           hiexchange deliver log --outbox {folder}/out/outbox.sqlite")
        if not all(right for _, _, right in again.truth) or not again.identity_holds:
            raise typer.Exit(DIFFERS)


def write_settings(population: Population, server: BulkServer, known_at: datetime) -> Path:
    """Write the configuration an operator would have written, and the demo's key beside it."""
    from hiexchange import _files
    from hiexchange.testing.population.settings import subscriptions

    _files.write_json(population.folder / "demo.jwk", server.private_key)
    year = population.year
    rosters = "\n".join(
        f'[[rosters]]\npath = "rosters/{path.name}"\nlayout = "layouts/{payer}.toml"\n'
        for payer, _, path in population.rosters()
    )
    measures = "\n".join(
        f'[[measures]]\nid = "{name}"\nperiod = [{year}-01-01, {year}-12-31]\noffset = "-06:00"\n'
        for name in (FOLLOWUP, *OF_PATIENTS)
    )
    path = population.folder / "hiexchange.toml"
    path.write_text(
        f"""\
# What `hiexchange demo` ran: `hiexchange run` does the same against any server and folder.
# The demo's own server ended with it. To run this file again, `hiexchange serve fhir --port 8400` in another window, and
# here url = "http://127.0.0.1:8400/fhir" without client_id and key.
output = "out"
known_at = "{known_at:%Y-%m-%dT%H:%M:%SZ}"

[servers.demo]
url = "{server.url}"
client_id = "{server.client_id}"
key = "file:demo.jwk"

[export]
group = "all"

{measures}
[feedback]
period = [{year}-01-01, {year}-12-31]

{rosters}
{subscriptions(list(population.tins))}""",
        encoding="utf-8",
    )
    return path


def compare(population: Population, result: RunResult) -> list[tuple[str, str, bool]]:
    """Return check, verdict in words, and whether it is right."""
    from hiexchange.attribution import active
    from hiexchange.testing.population.truth import rows

    truth = population.truth
    attributed = [
        (day, *row)
        for day in truth.check_days()
        for row in rows(active(result.attribution, day, result.known_at), "payer_id", "member_id", "provider_npi")
    ]
    keys = dict(
        zip(result.members["member_key"].to_pylist(), rows(result.members, "payer_id", "member_id"), strict=True)
    )
    links = ((*keys[key], band, person) for key, band, person in rows(result.links, "member_key", "band", "person_id"))
    by_class = truth.matching(links)
    events = result.routing.events if result.routing else None
    visits = {key: (visit, trigger) for key, visit, trigger in rows(events, "event_key", "encounter_id", "trigger")}
    sent = (
        (*visits[key], subscriber)
        for key, subscriber, state in rows(result.deliveries, "event_key", "subscriber_id", "state")
        if state == "acked"
    )
    followup, *of_patients = (run.table for run in result.measures)  # in the order of the settings
    episodes = rows(followup, "episode", "denominator", "denominator_exclusion", "numerator")
    measured = truth.measure((key.split("/")[-1], *counts) for key, *counts in episodes)
    for name, table in zip(OF_PATIENTS, of_patients, strict=True):
        measured += truth.of_patients(name, rows(table, "subject", "denominator", "numerator"))
    checks = {
        f"attribution at {len(truth.check_days())} dates": truth.attribution(attributed),
        f"matching in {len(by_class) - 1} classes": [item for found in by_class.values() for item in found],
        "routing": truth.routing(sent),
        f"{len(result.measures)} measures": measured,
    }
    return [(name, _verdict(found), not found) for name, found in checks.items()]


def _once(first: RunResult, again: RunResult) -> tuple[str, str, bool]:
    """Compare what lies in the practices' folders with the ledger: each notice is there once."""
    acked = _acked(again)
    manifests = (read_json(path) for path in (again.output / "inbox").rglob("*.manifest.json"))
    received = sum(manifest["rows"] for manifest in manifests)
    fresh = again.deliveries.num_rows - first.deliveries.num_rows
    right = received == acked and fresh == 0
    return "each notice once", "ok" if right else f"DIFFERS ({received} received, {acked} sent, {fresh} anew)", right


def _verdict(differences: list[Difference]) -> str:
    if not differences:
        return "ok"
    first = ", ".join(f"{item.kind} {item.key}" for item in differences[:3])
    return f"DIFFERS in {len(differences)} ({first})"


def _later(first: RunResult, again: RunResult) -> str:
    fresh = again.deliveries.num_rows - first.deliveries.num_rows
    sent = _acked(again) - _acked(first)
    return f"the same command again: {fresh} new notices, {sent:,} that were due in daily and weekly files sent"


def _acked(result: RunResult) -> int:
    states: list[str] = result.deliveries["state"].to_pylist()
    return states.count("acked")
