"""The phases of one job, as a process that holds its folder works through them.

Kick-off, polling, manifest pages, downloads, the DELETE at the end: each journals before what cannot be
undone, and starts from what the journal says. :class:`hiexchange.bulk.job.ExportJob` is the handle that
callers have; it takes the folder's lock around every call.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiexchange._files import sync_folder, write_bytes, write_json
from hiexchange._http import Policy, Session, now_utc
from hiexchange.bulk import assemble
from hiexchange.bulk.answers import read_object
from hiexchange.bulk.download import Downloads
from hiexchange.bulk.ending import delete_job, renewed_links
from hiexchange.bulk.folder import read_request, reason_to_hold_always, require_room, unborn
from hiexchange.bulk.journal import JobState, Journal
from hiexchange.bulk.kickoff import KickOffPhase
from hiexchange.bulk.log import ExportLog
from hiexchange.bulk.manifest import Manifest, parse_manifest
from hiexchange.bulk.plan import Plan, PlannedFile, make_plan, renew, shortest_life_first
from hiexchange.bulk.polling import FATAL, Page, Poller, fetch_next, poll_rules
from hiexchange.bulk.rejects import Rejects
from hiexchange.bulk.request import ExportRequest
from hiexchange.bulk.result import ExportResult
from hiexchange.errors import (
    ExportError,
    HIExchangeError,
    JobExpired,
    JobFailed,
    JobInterrupted,
    JobMismatch,
    JobTimeout,
    JobVanished,
)
from hiexchange.events import Event, ExportFinished, PageReceived, Reporter, Warned
from hiexchange.servers import Server

VERSION = 1
RENEWALS = 3


class Phases:
    """Works in a job's folder, whose lock the caller holds."""

    def __init__(self, server: Server, request: ExportRequest, folder: Path, *, on_event: Reporter) -> None:
        """Read the journal; nothing is sent yet."""
        self.server, self.request, self.folder = server, request, folder
        self.journal = Journal(folder / "journal.ndjson")
        self.log = ExportLog(folder / "log.ndjson")
        self.session: Session | None = None
        self._event_lock = threading.Lock()
        self._on_event = on_event
        # A manifest may list 50,000 files: it is read once.
        self._plan: Plan | None = None

    @property
    def state(self) -> JobState:
        """What the journal adds up to."""
        return self.journal.state

    def refresh(self) -> None:
        """Read the journal again: another process may have gone on with the job."""
        self._plan = None
        self.log.export_id = self.journal.refresh().status_url or self.log.export_id

    def report(self, event: Event) -> None:
        """Tell the caller, one event at a time."""
        with self._event_lock:
            self._on_event(event)

    def _report_and_keep(self, event: Event) -> None:
        """Report; a warning also stays with the job, for the result."""
        if isinstance(event, Warned):
            self.journal.write("warned", sync=False, message=event.message)
        self.report(event)

    def connect(self) -> Session:
        """Return the session, opened on first use."""
        if self.session is None:
            self.session = self.server.connect(types=self.request.types, on_event=self._report_and_keep)
        return self.session

    # Beginning --------------------------------------------------------------------------------

    def write_request(self, *, adopts: str | None = None, known: bool = True) -> None:
        """Make the folder a job's: what was asked of whom, or which running job is taken over."""
        if (self.folder / "request.json").exists():
            raise JobMismatch("another process has just begun a job here", where=str(self.folder), hint="run it again")
        for stray in unborn(self.folder):
            stray.unlink()
        stored = self.request.canonical(patients=self.server.policy.store_patients)
        server = {"url": self.server.url, "preset": self.server.preset.name, "version": self.server.version}
        given: dict[str, Any] = {"adopts": adopts, "request_known": known} if adopts else {}
        write_json(self.folder / "request.json", {"format": VERSION, "server": server, "request": stored, **given})

    def take_over(self, status_url: str) -> None:
        """Go on with a job that runs at the server."""
        self.connect().permit(status_url, token=self.server.auth is not None)
        self.journal.write("accepted", status_url=status_url, adopted=True)

    def kick_off(self) -> None:
        """Ask for the export, unless a kick-off is known to have been accepted."""
        phase = KickOffPhase(
            self.connect(),
            self.request,
            self.server.preset,
            journal=self.journal,
            report=self._report_and_keep,
            log=self.log,
        )
        accepted = phase.run()
        if accepted.manifest is not None:
            # Kept before it is called accepted: there is no status URL to ask for it again.
            self._take_page(Page(self.server.url + self.request.path, accepted.manifest, None, last=True))
            self.journal.write("accepted", status_url=None)
            self._follow_links()
            self._complete()

    def raise_if_over(self) -> None:
        """Raise what ended the job, if something did."""
        fatal = self.state.fatal
        if self.state.phase == "failed" and fatal is not None:
            kinds: Mapping[str, type[HIExchangeError]] = {kind.__name__: kind for kind in FATAL.values()}
            raise kinds.get(fatal[0], JobFailed)(
                "the job had ended at the server",
                where=str(self.folder),
                said=fatal[1] or None,
                hint="start the export anew in another folder; committed files stay",
            )
        if self.state.phase == "cancelled":
            raise JobFailed("the job was cancelled", where=str(self.folder), hint="start the export anew")

    # Waiting ----------------------------------------------------------------------------------

    def wait(self, deadline_s: float | None) -> None:
        """Poll until the server has prepared every file, and take every page."""
        if self.state.phase in ("planned", "intent"):
            self.kick_off()
        state = self.state
        if state.phase != "polling":
            return
        limit = self._deadline() if deadline_s is None else deadline_s
        try:
            if not state.static:
                self._poller().until_complete(limit, self._take_page)
            self._follow_links()
        except (JobFailed, JobVanished, JobExpired) as error:
            self.journal.write("failed", kind=type(error).__name__, reason=error.said or "")
            raise
        except JobTimeout as error:
            if self.server.policy.cancel_on_deadline:
                self.delete()
                self.journal.write("cancelled")
                error.resumable, error.hint = False, "the job was cancelled at the server, as the policy says"
            raise
        self._complete()

    def _deadline(self) -> float:
        """Return how long to wait: what the policy says, or a slow server's own time where it says nothing."""
        said = self.server.policy.deadline_s
        return said if said != Policy().deadline_s else self.server.preset.deadline_s or said

    def _complete(self) -> None:
        self.journal.write("complete")
        manifest = self.plan().manifest
        self.log.write("status_complete", transactionTime=manifest.transaction_time)
        self.log.write(
            "manifest_complete",
            transactionTime=manifest.transaction_time,
            totalOutputFileCount=len(manifest.output),
            totalDeletedFileCount=len(manifest.deleted),
            totalErrorFileCount=len(manifest.outcome),
            totalManifests=len(self.state.pages),
        )

    def _poller(self) -> Poller:
        state = self.state
        assert state.status_url is not None
        rules = poll_rules(
            self.server.policy,
            self.server.preset,
            separate_status=state.separate_status,
            allow_partial=self.request.allow_partial,
        )
        return Poller(
            self.connect(),
            state.status_url,
            rules,
            self.server.preset,
            report=self.report,
            log=self.log,
            accepted_at=state.accepted_at or now_utc(),
        )

    def _take_page(self, page: Page) -> None:
        """Keep a page as received, then journal it; the status URL's own page may grow a ``next`` link."""
        manifest = self._parse(page)
        number = next((n for n, url in self.state.pages.items() if url == page.url), None)
        number = number or len(self.state.pages) + 1
        self._plan = None
        write_bytes(self.folder / f"manifest-{number:03}.json", page.content)
        self.journal.write("page", page=number, url=page.url, expires=page.expires, next=list(manifest.links))
        self.log.write(
            "status_page_complete",
            transactionTime=manifest.transaction_time,
            outputFileCount=len(manifest.output),
            deletedFileCount=len(manifest.deleted),
            errorFileCount=len(manifest.outcome),
        )
        for text in manifest.warnings:
            self.report(Warned(text))
        self.report(PageReceived(number, sum(1 for _ in manifest.files())))

    def _follow_links(self) -> None:
        while self.state.more:
            url = self.state.more[0]
            self.connect().permit(url, token=False)
            self._take_page(fetch_next(self.connect(), url))

    def _parse(self, page: Page) -> Manifest:
        return parse_manifest(
            read_object(page.content), url=page.url, integrity=self.server.preset.integrity, expires=page.expires
        )

    def plan(self) -> Plan:
        """Return all pages and the files they ask for.

        Raises:
            ExportError: There is no page yet.
        """
        if self._plan is None:
            if not self.state.pages:
                raise ExportError("the server has not given a manifest yet", where=str(self.folder))
            self._plan = make_plan(assemble.read_pages(self.folder, self.state, self.server.preset.integrity))
        return self._plan

    # Downloading ------------------------------------------------------------------------------

    def download(self, workers: int | None) -> None:
        """Fetch every file that is not committed; failures of single files are journaled."""
        plan = self.plan()
        planned = shortest_life_first(renew(plan.files, self.state.urls))
        for text in plan.warnings:
            self.report(Warned(text))
        done = self.state.files
        folders = {self.folder / "output", *((self.folder / file.file).parent for file in planned)}
        for folder in folders:
            folder.mkdir(exist_ok=True)
        missing = [file for file in planned if file.file not in done]
        require_room(self.folder, sum(file.item.size or file.item.length or 0 for file in missing))
        downloads = Downloads(
            folder=self.folder,
            session=self.connect(),
            journal=self.journal,
            preset=self.server.preset,
            report=self.report,
            rejects=Rejects(
                self.folder / "rejected.ndjson", already=sum(receipt.rejected_lines for receipt in done.values())
            ),
            log=self.log,
            dated=self.request.since is not None or self.server.policy.stale_guard,
        )
        for _ in range(RENEWALS):
            downloads.run(missing, workers=workers)
            if self.connect().stopped.is_set():
                raise JobInterrupted("the job was asked to stop", where=str(self.folder), hint="resume it")
            expired, downloads.expired = downloads.expired, []
            if not expired:
                break
            missing = self._renewed(expired)
            if not missing:
                break
        self._give_up(expired)
        for folder in folders:
            sync_folder(folder)

    def _give_up(self, expired: list[PlannedFile]) -> None:
        """Journal links that could not be renewed; with nothing to show for it the job is over."""
        for file in expired:
            self.journal.write("file_failed", file=file.file, reason="the link has expired")
        if expired and not self.state.files:
            self.journal.write("failed", kind="JobExpired", reason="every link has expired")
            self.raise_if_over()

    def _renewed(self, expired: list[PlannedFile]) -> list[PlannedFile]:
        """Return the expired files whose links the server renewed."""
        if self.state.static:
            return []
        urls = renewed_links(self.connect(), self._poller(), expired, parse=self._parse, report=self.report)
        if urls:
            self.journal.write("renewed", urls=urls)
        return renew([file for file in expired if file.file in urls], urls)

    def result(self) -> ExportResult:
        """Return what is committed, as a result."""
        hold = reason_to_hold_always(read_request(self.folder))
        return assemble.result(
            self.folder, self.state, self.plan(), self.server, self.request, now=now_utc(), hold=hold
        )

    def downloaded(self, result: ExportResult) -> None:
        """Call the download done: the receipt first, then the journal."""
        assemble.write_receipt(self.folder, result)
        self.journal.write("downloaded", partial=result.partial)
        begun = self.state.intent_at or self.state.accepted_at or now_utc()
        seconds = (now_utc() - begun).total_seconds()
        self.report(ExportFinished(len(result.receipts), result.resources, result.size_bytes, seconds))
        self.log.write(
            "export_complete",
            files=len(result.receipts),
            resources=result.resources,
            bytes=result.size_bytes,
            attachments=None,
            duration=round(seconds * 1000),
        )

    # Ending -----------------------------------------------------------------------------------

    def delete(self) -> None:
        """Delete the job at the server; that it cannot be is a warning."""
        url = self.state.status_url
        problem = delete_job(self.connect(), url) if url is not None else None
        if problem:
            self.report(Warned(f"the job could not be deleted at the server ({problem})"))
            self.journal.write("warned", message=f"DELETE failed: {problem}")

    def close(self) -> None:
        """Close connections and the journal's file."""
        if self.session is not None:
            self.session.close()
            self.session = None
        self.journal.close()
