"""The export job: start, wait, download, finish; resume from its folder after any stop.

Every step is journaled before what cannot be undone. The folder describes itself (``request.json``,
``journal.ndjson``, manifest pages, files), so that another process, or another day, goes on where
this one stopped: a finished file is never fetched twice, a second job never started.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hiexchange._files import folder_lock, storage_errors, write_json
from hiexchange._http import Auth, Policy
from hiexchange.bulk.fit import fit_request
from hiexchange.bulk.folder import (
    partial_error,
    patients_left_out,
    read_request,
    read_status,
    refuse_strangers,
    repair,
    same_server,
    server_from,
)
from hiexchange.bulk.journal import Journal
from hiexchange.bulk.manifest import Manifest
from hiexchange.bulk.phases import Phases
from hiexchange.bulk.request import ExportRequest
from hiexchange.bulk.result import ExportResult, JobStatus
from hiexchange.bulk.watermark import WatermarkStore
from hiexchange.errors import ConfigError, ExportError, HIExchangeError, JobInterrupted, JobMismatch
from hiexchange.events import Reporter, Warned, ignore
from hiexchange.servers import Server

if TYPE_CHECKING:
    from hiexchange.bulk.attachments import AttachmentReceipt


class ExportJob:
    """One bulk export in one folder. Not to be used by two threads at once."""

    def __init__(self, server: Server, request: ExportRequest, folder: str | Path, *, on_event: Reporter) -> None:
        """Use :meth:`start`, :meth:`resume` or :meth:`adopt`."""
        self.server, self.request, self.folder = server, request, Path(folder)
        self._phases = Phases(server, request, self.folder, on_event=on_event)
        weakref.finalize(self, self._phases.close)

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
        job = cls._in_new_folder(server, request, place, on_event)
        with closing_on_error(job), job._working() as phases:
            phases.connect()  # what is wrong with a certificate or the address shows before there is a job
            phases.write_request()
            phases.kick_off()
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
            ConfigError: There is no job in the folder, or its patients are needed again.
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
        with closing_on_error(job), job._working() as phases:
            phases.raise_if_over()
            if phases.state.phase == "finished":
                phases.report(Warned("this export was finished before and is not made again: use another folder"))
            elif phases.state.phase != "ingested":  # from then on the files are the caller's
                repair(place, phases.journal, full=server.policy.verify_committed == "full", report=phases.report)
            if phases.state.phase == "planned" and stored.get("adopts"):
                phases.take_over(stored["adopts"])
            if phases.state.phase in ("planned", "intent"):
                if request is None and patients_left_out(stored):
                    raise ConfigError(
                        "the export is of some patients, whose ids are not stored, and has not been accepted yet",
                        where=str(place),
                        hint="give the request again: ExportJob.resume(folder, request=…)",
                    )
                phases.kick_off()
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
        """Take over a job that runs at the server: a lost folder, or one started elsewhere.

        Without ``request``, which says what it was asked for, its watermark is held.

        Raises:
            JobMismatch: The folder holds something else.
            PolicyViolation: The URL may not be visited, or may not have the token.
        """
        place = Path(folder)
        if (place / "request.json").exists():
            if read_request(place).get("adopts") == status_url:
                return cls.resume(place, server=server, request=request, on_event=on_event)
            raise JobMismatch("the folder holds a job already", where=str(place), hint="resume it, or use another")
        job = cls._in_new_folder(server, request or ExportRequest(level="system"), place, on_event)
        with closing_on_error(job), job._working() as phases:
            phases.connect().permit(status_url, token=server.auth is not None)
            phases.write_request(adopts=status_url, known=request is not None)
            phases.take_over(status_url)
        return job

    @classmethod
    def _in_new_folder(
        cls, server: Server, request: ExportRequest, place: Path, on_event: Reporter | None
    ) -> ExportJob:
        refuse_strangers(place)
        with storage_errors(place):
            try:
                place.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, FileNotFoundError) as error:  # a link to nowhere; a place like /proc
                raise ConfigError("the folder cannot be made", where=str(place), said=error.strerror) from None
        return cls(server, request, place, on_event=on_event or ignore)

    # Phases -----------------------------------------------------------------------------------

    def wait(self, deadline_s: float | None = None) -> Manifest:
        """Poll until the server has prepared every file, and return the manifest of all pages.

        Args:
            deadline_s: Seconds to wait at most; the policy's by default.

        Raises:
            JobFailed, JobVanished, JobExpired, JobTimeout, AuthError, ProtocolViolation.
        """
        with self._working() as phases:
            phases.wait(deadline_s)
            return phases.plan().manifest

    def download(self, *, workers: int | None = None, accept_partial: bool | None = None) -> ExportResult:
        """Fetch and prove every file that is not committed yet.

        Args:
            workers: Threads, as many as the policy allows at most; by default the governor decides (4, up to 16).
            accept_partial: Return a partial result instead of raising; the policy's by default.

        Raises:
            PartialExport: Some files could not be had; ``.result`` holds what was.
            StorageError: The disk; free space and resume.
            ConfigError: A number of workers that makes no sense.
        """
        most = self.server.policy.workers_max
        if workers is not None and not 1 <= workers <= most:
            raise ConfigError(f"workers is 1 to {most}, not {workers}", hint="Policy(workers_max=…) allows more")
        with self._working() as phases:
            phases.wait(None)
            if phases.state.phase == "complete":
                phases.download(workers)
            result = phases.result()
            accepted = self.server.policy.accept_partial if accept_partial is None else accept_partial
            if result.partial and not accepted:
                raise partial_error(result, phases.state.failure_kinds)
            if phases.state.phase == "complete":
                phases.downloaded(result)
            return result

    def fetch_attachments(self) -> list[AttachmentReceipt]:
        """Fetch the documents that the exported resources point to; failures are listed, not raised."""
        from hiexchange.bulk.attachments import fetch_attachments  # most exports have none

        with self._working() as phases:
            files = sorted((self.folder / "output").glob("*.ndjson"))
            requires_token = phases.plan().manifest.requires_access_token
            receipts = list(
                fetch_attachments(self.folder, iter(files), phases.connect(), requires_token=requires_token)
            )
            rows = [{name: getattr(item, name) for name in item.__slots__} for item in receipts]
            write_json(self.folder / "attachments.json", rows)
            return receipts

    def mark_ingested(self, store: WatermarkStore | None = None) -> None:
        """Say that the data were taken over (twice is harmless); with ``store``, commit the watermark there.

        Raises:
            ExportError: Not everything is downloaded.
        """
        with self._working() as phases:
            if phases.state.phase == "downloaded":
                phases.journal.write("ingested")
            if phases.state.phase not in ("ingested", "finished"):
                raise ExportError("the export is not downloaded yet", where=str(self.folder))
            if store is not None and not phases.state.watermark_done:
                watermark = phases.result().watermark
                if watermark is not None:
                    store.commit(*watermark, run_id=self.folder.name)
                phases.journal.write("watermark", key=watermark and watermark[0])

    def finish(self) -> None:
        """Delete the job at the server, once the data were taken over. Doing it twice is harmless.

        Raises:
            ExportError: :meth:`mark_ingested` has not been called.
        """
        with self._working() as phases:
            if phases.state.phase == "finished":
                return
            if phases.state.phase != "ingested":
                raise ExportError(
                    "the data have not been taken over yet, so the job stays at the server",
                    where=str(self.folder),
                    hint="ingest the result and call mark_ingested() first",
                )
            if self.server.preset.delete == "after_ingest":
                phases.delete()
            phases.journal.write("finished")
        self.close()

    def cancel(self) -> None:
        """Delete the job at the server now; committed files stay.

        Raises:
            ExportError: The job is finished.
        """
        with self._working() as phases:
            if phases.state.phase == "finished":
                raise ExportError("the job is finished: there is nothing to cancel", where=str(self.folder))
            phases.delete()
            phases.journal.write("cancelled")
        self.close()

    def stop(self) -> None:
        """Ask a running wait or download, in another thread, to stop; nothing is lost."""
        if self._phases.session is not None:
            self._phases.session.stopped.set()

    def close(self) -> None:
        """Close connections and the journal's file."""
        self._phases.close()

    def __repr__(self) -> str:
        return f"ExportJob({str(self.folder)!r}, {self.journal.state.phase})"

    def __enter__(self) -> ExportJob:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def journal(self) -> Journal:
        """The job's journal, for looking at."""
        return self._phases.journal

    def status(self) -> JobStatus:
        """Return where the job stands; no network."""
        return read_status(self.folder)

    def manifest(self) -> Manifest:
        """Return the manifest of all pages known.

        Raises:
            ExportError: There is none yet.
        """
        return self._phases.plan().manifest

    @contextmanager
    def _working(self) -> Iterator[Phases]:
        """Hold the folder's lock, and journal an interruption."""
        phases = self._phases
        with folder_lock(self.folder, what="job folder"):
            phases.refresh()
            try:
                yield phases
            except (JobInterrupted, KeyboardInterrupt):
                phases.journal.write("interrupted")
                raise
            except HIExchangeError as error:
                phases.log.write("client_error", error=f"{error.code} {error.what}")
                raise
            finally:
                if phases.session is not None:
                    phases.session.stopped.clear()
                phases.journal.close()


@contextmanager
def closing_on_error(job: ExportJob) -> Iterator[None]:
    """Close the connections of a job that the caller will never get to see."""
    try:
        yield
    except BaseException:
        job.close()
        raise
