"""The export job: start, wait, download, finish; resume from its folder after any stop.

Every step is journaled before what cannot be undone. The folder describes itself (``request.json``,
``journal.ndjson``, manifest pages, files), so that another process, or another day, goes on where
this one stopped: a finished file is never fetched twice, a second job never started.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hiexchange._files import folder_lock, storage_errors, write_bytes, write_json
from hiexchange._http import Auth, Policy, Session, now_utc
from hiexchange.bulk import assemble
from hiexchange.bulk.answers import read_object
from hiexchange.bulk.attachments import AttachmentReceipt, fetch_attachments
from hiexchange.bulk.download import Downloads
from hiexchange.bulk.ending import delete_job, renewed_links
from hiexchange.bulk.fit import fit_request
from hiexchange.bulk.folder import (
    partial_error,
    read_request,
    read_status,
    refuse_strangers,
    repair,
    same_server,
    server_from,
    unborn,
)
from hiexchange.bulk.journal import Journal
from hiexchange.bulk.kickoff import KickOffPhase
from hiexchange.bulk.log import ExportLog
from hiexchange.bulk.manifest import Manifest, join_pages, parse_manifest
from hiexchange.bulk.plan import PlannedFile, plan_files, renew
from hiexchange.bulk.polling import FATAL, Page, Poller, fetch_next, poll_rules
from hiexchange.bulk.protocol import PollRules
from hiexchange.bulk.rejects import Rejects
from hiexchange.bulk.request import ExportRequest
from hiexchange.bulk.result import ExportResult, JobStatus
from hiexchange.bulk.watermark import WatermarkStore
from hiexchange.errors import (
    ExportError,
    HIExchangeError,
    JobExpired,
    JobFailed,
    JobInterrupted,
    JobMismatch,
    JobVanished,
)
from hiexchange.events import Event, ExportFinished, PageReceived, Reporter, Warned, ignore
from hiexchange.servers import Server

VERSION = 1
RENEWALS = 3


class ExportJob:
    """One bulk export in one folder. Not to be used by two threads at once."""

    def __init__(self, server: Server, request: ExportRequest, folder: str | Path, *, on_event: Reporter) -> None:
        """Use :meth:`start`, :meth:`resume` or :meth:`adopt`."""
        self.server, self.request, self.folder = server, request, Path(folder)
        self._event_lock = threading.Lock()
        self._on_event = on_event
        self.journal = Journal(self.folder / "journal.ndjson")
        self.log = ExportLog(self.folder / "log.ndjson")
        self._session: Session | None = None
        # A manifest may list 50,000 files: it is read once.
        self._known_pages: list[Manifest] | None = None

    # Beginning --------------------------------------------------------------------------------

    @classmethod
    def start(
        cls, server: Server, request: ExportRequest, folder: str | Path, *, on_event: Reporter | None = None
    ) -> ExportJob:
        """Kick off an export, or go on with the one in ``folder`` if it is of the same request.

        Args:
            server: Where.
            request: What.
            folder: Where the job lives; created.
            on_event: Hears of progress; may be called from worker threads, one event at a time.

        Raises:
            JobMismatch: The folder belongs to another request or server.
            JobLocked: Another process works in it.
            KickOffRejected, AuthError, ServerUnavailable, ProtocolViolation: See their texts.
        """
        place = Path(folder)
        request = fit_request(request, server)
        if (place / "request.json").exists():
            return cls.resume(place, server=server, request=request, on_event=on_event)
        refuse_strangers(place)
        with storage_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        job = cls(server, request, place, on_event=on_event or ignore)
        with closing_on_error(job), job._working():
            job._write_request()
            job._kick_off()
        return job

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        *,
        auth: Auth | None = None,
        server: Server | None = None,
        request: ExportRequest | None = None,
        policy: Policy | None = None,
        on_event: Reporter | None = None,
    ) -> ExportJob:
        """Go on with the job in ``folder``; the normal path after any stop.

        Args:
            folder: The job's folder.
            auth: The credential, which is never stored.
            server: Instead of ``auth``; must be the one the job was started with.
            request: Needed again when it named patients; must equal the stored one.
            policy: Numbers to change.
            on_event: Hears of progress.

        Raises:
            ConfigError: There is no job in the folder.
            JobMismatch, JobLocked, JournalCorrupt: See their texts.
            JobFailed, JobVanished, JobExpired: The job had ended so.
        """
        place = Path(folder)
        stored = read_request(place)
        server = same_server(stored, server) if server else server_from(stored, auth, policy)
        if request is not None and (different := request.differences(stored["request"])):
            raise JobMismatch(
                "the folder belongs to another request",
                where=str(place),
                said=f"different: {', '.join(different)}",
                hint="use another folder for another request",
            )
        job = cls(
            server, request or ExportRequest.from_canonical(stored["request"]), place, on_event=on_event or ignore
        )
        with closing_on_error(job), job._working():
            job._raise_if_over()
            repair(job.folder, job.journal, full=job.server.policy.verify_committed == "full", report=job._report)
            if job.journal.state.phase in ("planned", "intent"):
                job._kick_off()
        return job

    @classmethod
    def adopt(
        cls,
        server: Server,
        status_url: str,
        folder: str | Path,
        *,
        request: ExportRequest | None = None,
        on_event: Reporter | None = None,
    ) -> ExportJob:
        """Take over a job that runs at the server: a lost folder, or one started elsewhere."""
        place = Path(folder)
        if (place / "request.json").exists():
            raise JobMismatch("the folder holds a job already", where=str(place), hint="resume it, or use another")
        refuse_strangers(place)
        with storage_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        job = cls(server, request or ExportRequest(level="system"), place, on_event=on_event or ignore)
        with closing_on_error(job), job._working():
            job._connect().permit(status_url, token=server.auth is not None)
            job._write_request()
            job.journal.write("accepted", status_url=status_url, adopted=True)
        return job

    # Phases -----------------------------------------------------------------------------------

    def wait(self, deadline_s: float | None = None) -> Manifest:
        """Poll until the server has prepared every file, and return the manifest of all pages.

        Args:
            deadline_s: Seconds to wait at most; the policy's by default.

        Raises:
            JobFailed, JobVanished, JobExpired, JobTimeout, AuthError, ProtocolViolation.
        """
        with self._working():
            self._wait(deadline_s)
            return self.manifest()

    def download(self, *, workers: int | None = None, accept_partial: bool | None = None) -> ExportResult:
        """Fetch and prove every file that is not committed yet.

        Args:
            workers: Threads; by default the governor decides (4, up to 16).
            accept_partial: Return a partial result instead of raising; the policy's by default.

        Raises:
            PartialExport: Some files could not be had; ``.result`` holds what was.
            StorageError: The disk; free space and resume.
        """
        with self._working():
            if self.journal.state.phase in ("planned", "intent", "polling"):
                self._wait(None)
            if self.journal.state.phase == "complete":
                self._download(workers)
            result = self._result()
            accepted = self.server.policy.accept_partial if accept_partial is None else accept_partial
            if result.partial and not accepted:
                raise partial_error(result, self.journal.state.failure_kinds)
            if self.journal.state.phase == "complete":
                assemble.write_receipt(self.folder, result)
                self.journal.write("downloaded", partial=result.partial)
                self._downloaded(result)
            return result

    def _downloaded(self, result: ExportResult) -> None:
        begun = self.journal.state.intent_at or self.journal.state.accepted_at or now_utc()
        seconds = (now_utc() - begun).total_seconds()
        self._report(ExportFinished(len(result.receipts), result.resources, result.size_bytes, seconds))
        self.log.write(
            "export_complete",
            files=len(result.receipts),
            resources=result.resources,
            bytes=result.size_bytes,
            attachments=None,
            duration=round(seconds * 1000),
        )

    def fetch_attachments(self) -> list[AttachmentReceipt]:
        """Fetch the documents that the exported resources point to; failures are listed, not raised."""
        with self._working():
            files = sorted((self.folder / "output").glob("*.ndjson"))
            receipts = list(
                fetch_attachments(
                    self.folder,
                    iter(files),
                    self._connect(),
                    requires_token=self.manifest().requires_access_token,
                )
            )
            rows = [{name: getattr(item, name) for name in item.__slots__} for item in receipts]
            write_json(self.folder / "attachments.json", rows)
            return receipts

    def mark_ingested(self, store: WatermarkStore | None = None) -> None:
        """Say that the data were taken over (twice is harmless); with ``store``, commit the watermark there.

        Raises:
            ExportError: Not everything is downloaded.
        """
        with self._working():
            if self.journal.state.phase == "downloaded":
                self.journal.write("ingested")
            if self.journal.state.phase not in ("ingested", "finished"):
                raise ExportError("the export is not downloaded yet", where=str(self.folder))
            if store is not None and not self.journal.state.watermark_done:
                result = self._result()
                if result.watermark is not None:
                    store.commit(*result.watermark, run_id=self.folder.name)
                self.journal.write("watermark", key=result.watermark and result.watermark[0])

    def finish(self) -> None:
        """Delete the job at the server, once the data were taken over. Doing it twice is harmless.

        Raises:
            ExportError: :meth:`mark_ingested` has not been called.
        """
        with self._working():
            if self.journal.state.phase == "finished":
                return
            if self.journal.state.phase != "ingested":
                raise ExportError(
                    "the data have not been taken over yet, so the job stays at the server",
                    where=str(self.folder),
                    hint="ingest the result and call mark_ingested() first",
                )
            if self.server.preset.delete == "after_ingest":
                self._delete()
            self.journal.write("finished")
        self.close()

    def cancel(self) -> None:
        """Delete the job at the server now; committed files stay."""
        with self._working():
            self._delete()
            self.journal.write("cancelled")
        self.close()

    def stop(self) -> None:
        """Ask a running wait or download, in another thread, to stop; nothing is lost."""
        if self._session is not None:
            self._session.stopped.set()

    def close(self) -> None:
        """Close connections and the journal's file."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self.journal.close()

    def __enter__(self) -> ExportJob:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def status(self) -> JobStatus:
        """Return where the job stands; no network."""
        return read_status(self.folder)

    def manifest(self) -> Manifest:
        """Return the manifest of all pages known.

        Raises:
            ExportError: There is none yet.
        """
        pages = self._pages()
        if not pages:
            raise ExportError("the server has not given a manifest yet", where=str(self.folder))
        return join_pages(pages)

    # Inside -----------------------------------------------------------------------------------

    def _report(self, event: Event) -> None:
        with self._event_lock:
            self._on_event(event)

    def _report_and_keep(self, event: Event) -> None:
        """Report; a warning also stays with the job, for the result."""
        if isinstance(event, Warned):
            self.journal.write("warned", sync=False, message=event.message)
        self._report(event)

    def _connect(self) -> Session:
        if self._session is None:
            self._session = self.server.connect(types=self.request.types, on_event=self._report_and_keep)
            weakref.finalize(self, self._session.close)
        return self._session

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Hold the folder's lock, and journal an interruption."""
        with folder_lock(self.folder, what="job folder"):
            self._known_pages = None
            self.log.export_id = self.journal.refresh().status_url or self.log.export_id
            try:
                yield
            except JobInterrupted:
                self.journal.write("interrupted")
                raise
            except HIExchangeError as error:
                self.log.write("client_error", error=f"{error.code} {error.what}")
                raise
            except KeyboardInterrupt:
                self.journal.write("interrupted")
                raise
            finally:
                if self._session is not None:
                    self._session.stopped.clear()
                self.journal.close()

    def _write_request(self) -> None:
        if (self.folder / "request.json").exists():
            raise JobMismatch("another process has just begun a job here", where=str(self.folder), hint="run it again")
        for stray in unborn(self.folder):
            stray.unlink()
        stored = self.request.canonical(patients=self.server.policy.store_patients)
        server = {"url": self.server.url, "preset": self.server.preset.name, "version": self.server.version}
        write_json(self.folder / "request.json", {"format": VERSION, "server": server, "request": stored})

    def _kick_off(self) -> None:
        phase = KickOffPhase(
            self._connect(),
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

    def _wait(self, deadline_s: float | None) -> None:
        state = self.journal.state
        if state.phase in ("planned", "intent"):
            self._kick_off()
        if state.phase != "polling":
            return
        limit = deadline_s if deadline_s is not None else self.server.preset.deadline_s or self.server.policy.deadline_s
        try:
            if not state.static:
                self._poller().until_complete(limit, self._take_page)
            self._follow_links()
        except (JobFailed, JobVanished, JobExpired) as error:
            self.journal.write("failed", kind=type(error).__name__, reason=error.said or "")
            raise
        self._complete()

    def _complete(self) -> None:
        self.journal.write("complete")
        manifest = self.manifest()
        self.log.write("status_complete", transactionTime=manifest.transaction_time)
        self.log.write(
            "manifest_complete",
            transactionTime=manifest.transaction_time,
            totalOutputFileCount=len(manifest.output),
            totalDeletedFileCount=len(manifest.deleted),
            totalErrorFileCount=len(manifest.outcome),
            totalManifests=len(self.journal.state.pages),
        )

    def _poller(self) -> Poller:
        state = self.journal.state
        assert state.status_url is not None
        return Poller(
            self._connect(),
            state.status_url,
            self._rules(),
            self.server.preset,
            report=self._report,
            log=self.log,
            accepted_at=state.accepted_at or now_utc(),
        )

    def _rules(self) -> PollRules:
        return poll_rules(
            self.server.policy,
            self.server.preset,
            separate_status=self.journal.state.separate_status,
            allow_partial=self.request.allow_partial,
        )

    def _take_page(self, page: Page) -> None:
        """Keep a page as received, then journal it; the status URL's own page may grow a ``next`` link."""
        manifest = self._parse(page)
        number = next((n for n, url in self.journal.state.pages.items() if url == page.url), None)
        number = number or len(self.journal.state.pages) + 1
        self._known_pages = None
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
            self._report(Warned(text))
        self._report(PageReceived(number, sum(1 for _ in manifest.files())))

    def _follow_links(self) -> None:
        while self.journal.state.more:
            url = self.journal.state.more[0]
            self._connect().permit(url, token=False)
            self._take_page(fetch_next(self._connect(), url))

    def _parse(self, page: Page) -> Manifest:
        return parse_manifest(
            read_object(page.content), url=page.url, integrity=self.server.preset.integrity, expires=page.expires
        )

    def _pages(self) -> list[Manifest]:
        if self._known_pages is None:
            self._known_pages = assemble.read_pages(self.folder, self.journal.state.pages, self.server.preset.integrity)
        return self._known_pages

    def _download(self, workers: int | None) -> None:
        planned, warnings = plan_files(self._pages())
        planned = renew(planned, self.journal.state.urls)
        for text in warnings:
            self._report(Warned(text))
        done = self.journal.state.files
        for name in {"output", *(Path(file.file).parent.name for file in planned)}:
            (self.folder / name).mkdir(exist_ok=True)
        missing = [file for file in planned if file.file not in done]
        rejected = sum(data.get("rejected_lines", 0) for data in done.values())
        downloads = Downloads(
            folder=self.folder,
            session=self._connect(),
            journal=self.journal,
            preset=self.server.preset,
            report=self._report,
            rejects=Rejects(self.folder / "rejected.ndjson", already=rejected),
            log=self.log,
            dated=self.request.since is not None or self.server.policy.stale_guard,
        )
        for _ in range(RENEWALS):
            downloads.run(missing, workers=workers)
            if self._connect().stopped.is_set():
                raise JobInterrupted("the job was asked to stop", where=str(self.folder), hint="resume it")
            expired, downloads.expired = downloads.expired, []
            if not expired:
                return
            missing = self._renewed(expired)
            if not missing:
                break
        self._expired(expired)

    def _expired(self, files: list[PlannedFile]) -> None:
        """Give up on links that could not be renewed; with nothing to show for it the job is over."""
        for file in files:
            self.journal.write("file_failed", file=file.file, reason="the link has expired")
        if not self.journal.state.files:
            self.journal.write("failed", kind="JobExpired", reason="every link has expired")
            self._raise_if_over()

    def _renewed(self, expired: list[PlannedFile]) -> list[PlannedFile]:
        """Return the expired files whose links the server renewed."""
        if self.journal.state.static:
            return []
        urls = renewed_links(self._connect(), self._poller(), expired, parse=self._parse, report=self._report)
        if urls:
            self.journal.write("renewed", urls=urls)
        return renew([file for file in expired if file.file in urls], urls)

    def _result(self) -> ExportResult:
        return assemble.result(self.folder, self.journal.state, self._pages(), self.server, self.request, now=now_utc())

    def _raise_if_over(self) -> None:
        fatal = self.journal.state.fatal
        if self.journal.state.phase == "failed" and fatal is not None:
            kinds: Mapping[str, type[HIExchangeError]] = {kind.__name__: kind for kind in FATAL.values()}
            raise kinds.get(fatal[0], JobFailed)(
                "the job had ended at the server",
                where=str(self.folder),
                said=fatal[1] or None,
                hint="start the export anew in another folder; committed files stay",
            )
        if self.journal.state.phase == "cancelled":
            raise JobFailed("the job was cancelled", where=str(self.folder), hint="start the export anew")

    def _delete(self) -> None:
        url = self.journal.state.status_url
        problem = delete_job(self._connect(), url) if url is not None else None
        if problem:
            self._report(Warned(f"the job could not be deleted at the server ({problem})"))
            self.journal.write("warned", message=f"DELETE failed: {problem}")


@contextmanager
def closing_on_error(job: ExportJob) -> Iterator[None]:
    """Close the connections of a job that the caller will never get to see."""
    try:
        yield
    except BaseException:
        job.close()
        raise
