"""Fetch every planned file with a few threads: retries, back-off, renewed links, isolated failures.

A file is retried by itself; one that cannot be had does not stop the others. What stops everything
is a full disk, a credential that is no longer accepted, or the caller.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hiexchange._files import sha256_text, storage_errors
from hiexchange._http import NoAnswer, Response, Session, beginning, now_utc, retry_after, shut_down
from hiexchange._urls import redact
from hiexchange.bulk.decode import Broken, NotOffered
from hiexchange.bulk.governor import Governor
from hiexchange.bulk.journal import Journal
from hiexchange.bulk.log import ExportLog, headers_of
from hiexchange.bulk.manifest import OutputFile
from hiexchange.bulk.organize import split_by_type
from hiexchange.bulk.plan import PlannedFile
from hiexchange.bulk.proof import Stopped, Terms
from hiexchange.bulk.prover import ProverOnCall
from hiexchange.bulk.rejects import Rejects
from hiexchange.bulk.result import FileReceipt
from hiexchange.bulk.transfer import Body, problem_with, receive, resources_in
from hiexchange.errors import AuthError
from hiexchange.events import FileDone, FileProgress, FileRetried, FileStarted, Reporter, Throttled, Warned
from hiexchange.servers import Preset

RETRY_CODES = {408, 425, 500, 502, 504, 520, 521, 522, 523, 524}
THROTTLE_CODES = {429, 503}
ERROR_TEXT = 4096
THROTTLES_SHARED = 3
EXPIRED = "the link has expired"
HEADERS = {"Accept": "application/fhir+ndjson", "Accept-Encoding": "gzip"}


class Again(Exception):
    """This attempt failed; another may help."""

    def __init__(self, reason: str, *, wait_s: float | None = None, free: bool = False, body: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        self.free = free
        self.body = body
        """The body ran to its end and was wrong: servers with a quota count such downloads."""


class GiveUp(Exception):
    """This file cannot be had; the others go on."""

    def __init__(self, reason: str, *, kind: str = "absent") -> None:
        super().__init__(reason)
        self.kind = kind
        """absent, integrity or exhausted."""


class Tries(msgspec.Struct):
    """How often one file was tried in this run."""

    attempts: int = 0
    bodies: int = 0
    absent: int = 0
    absent_since: float = 0.0
    without_token: bool = False
    identity: bool = False
    validator: str = ""
    """Strong ETag of the body last seen, where an attempt may go on with what an earlier one got."""
    kept: int = 0
    """Bytes got by an earlier attempt, to go on from."""
    throttled: int = 0
    """Answers that said "later" without saying when."""
    status: int | None = None
    headers: dict[str, str] | None = None
    """Status and headers of the last answer that was no file."""


@dataclass(slots=True)
class Downloads:
    """One download phase over the files still missing."""

    folder: Path
    session: Session
    journal: Journal
    preset: Preset
    report: Reporter
    rejects: Rejects
    log: ExportLog
    dated: bool = False
    governor: Governor = field(init=False)
    _prover: ProverOnCall = field(default_factory=ProverOnCall, init=False)
    _terms: Terms = field(init=False)
    expired: list[PlannedFile] = field(default_factory=list, init=False)
    _error: BaseException | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _refusals: int = field(default=0, init=False)
    _open: dict[int, Response] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        policy = self.session.policy
        self.governor = Governor(
            start=policy.workers_start,
            maximum=policy.workers_max,
            rate=policy.rate or self.preset.rate,
            stopped=self.session.stopped,
        )
        self._terms = Terms(policy, self.session.stopped.is_set, self.dated, self._prover)

    def run(self, files: Iterable[PlannedFile], *, workers: int | None = None) -> None:
        """Fetch ``files``; failures of single files are journaled, links that expired collected.

        Raises:
            StorageError, AuthError, PolicyViolation: What stops all of them.
            KeyboardInterrupt: After the threads have ended.
        """
        todo: queue.Queue[PlannedFile | None] = queue.Queue(maxsize=64)
        count = workers or self.session.policy.workers_max
        if workers:
            self.governor.limit = workers
        threads = [
            threading.Thread(target=self._work, args=(todo,), name=f"download-{number}", daemon=True)
            for number in range(count)
        ]
        try:
            for thread in threads:
                thread.start()
            for file in files:
                self._put(todo, file)
            for _ in threads:
                self._put(todo, None)
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.5)
        except BaseException:
            self._end([thread for thread in threads if thread.ident is not None])
            raise
        finally:
            self._prover.close()
        if self._error is not None:
            raise self._error

    def _put(self, todo: queue.Queue[PlannedFile | None], file: PlannedFile | None) -> None:
        while not self.session.stopped.is_set():
            try:
                todo.put(file, timeout=0.2)
            except queue.Full:
                continue
            return

    def _end(self, threads: list[threading.Thread]) -> None:
        """Stop: a grace period, then wake the threads that are blocked in a read."""
        self.session.stopped.set()
        deadline = time.monotonic() + self.session.policy.stop_grace_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            blocked = list(self._open.values())
        for response in blocked:
            shut_down(response)
        for thread in threads:
            thread.join(1.0)

    def _work(self, todo: queue.Queue[PlannedFile | None]) -> None:
        while not self.session.stopped.is_set():
            try:
                file = todo.get(timeout=0.2)
            except queue.Empty:
                continue
            if file is None:
                return
            try:
                self._fetch(file)
            except Stopped:
                return
            except BaseException as error:  # handed to the caller's thread by run()
                with self._lock:
                    self._error = self._error or error
                self.session.stopped.set()
                return

    def _fetch(self, file: PlannedFile) -> None:
        """Try one file until it is committed, or cannot be had."""
        tries = Tries()
        policy = self.session.policy
        before = self.journal.state.attempts.get(file.file, 0)
        while True:
            try:
                self._attempt(file, tries, before + tries.attempts + 1)
                return None
            except Again as again:
                tries.attempts += 0 if again.free else 1
                tries.bodies += again.body
                self._log_error(file, again.reason, tries)
                if tries.attempts >= policy.file_attempts or tries.bodies >= policy.body_attempts:
                    return self._give_up(file, again.reason, "integrity" if again.body else "absent")
                delay = self._backoff(tries.attempts) if again.wait_s is None else again.wait_s
                self.report(FileRetried(file.file, again.reason, delay))
                if self.session.wait(delay):
                    raise Stopped from None
            except GiveUp as error:
                self._log_error(file, str(error), tries)
                return self._give_up(file, str(error), error.kind)

    def _log_error(self, file: PlannedFile, message: str, tries: Tries) -> None:
        self.log.write(
            "download_error",
            fileUrl=redact(file.item.url),
            body=None,
            code=tries.status,
            message=message,
            responseHeaders=tries.headers,
        )

    def _backoff(self, attempt: int) -> float:
        policy = self.session.policy
        longest = min(policy.backoff_max_s, policy.backoff_min_s * 2.0 ** max(0, attempt - 1))
        return longest * random.uniform(0.5, 1.0)

    def _give_up(self, file: PlannedFile, reason: str, kind: str) -> None:
        if reason == EXPIRED:
            with self._lock:
                self.expired.append(file)
            return
        if file.item.kind == "outcome":
            # BCDA lists error files that are not there; what they would say is lost, the data is not.
            self.journal.write("warned", message=f"{file.file} could not be fetched: {reason}")
            self.report(Warned(f"{file.file} could not be fetched: {reason}"))
            if self.preset.error_entries_may_404:
                return
        self.journal.write("file_failed", file=file.file, reason=reason, kind=kind)

    def _attempt(self, file: PlannedFile, tries: Tries, number: int) -> None:
        part = self.folder / f"{file.file}.part"
        self.journal.write("started", sync=False, file=file.file, attempt=number)
        self.report(FileStarted(file.file, number))
        self.log.write(
            "download_request",
            fileUrl=redact(file.item.url),
            itemType={"outcome": "error"}.get(file.item.kind, file.item.kind),
            resourceType=file.item.type,
        )
        with self.governor.slot():
            if self.session.stopped.is_set():
                raise Stopped
            try:
                body = self._receive(file, part, tries)
            except NoAnswer as error:
                self._keep(part, tries)
                if self.session.stopped.is_set():
                    raise Stopped from None
                if error.fatal:
                    raise
                raise Again(error.what, body=False) from None
            except NotOffered as error:
                if tries.identity:
                    raise GiveUp(str(error)) from None
                tries.identity = True
                raise Again(str(error), wait_s=0.0) from None
            except Broken as error:
                part.unlink(missing_ok=True)
                if "stall" in str(error):
                    self.governor.slower()
                raise Again(str(error), body="gzip" in str(error) or "grows" in str(error)) from None
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        self._commit(file, part, body, number)
        self.governor.succeeded()

    def _receive(self, file: PlannedFile, part: Path, tries: Tries) -> Body:
        item = file.item
        response = self._request(file, tries)
        kept = part.with_suffix(".kept.part")
        with self._lock:
            self._open[id(response)] = response
        try:
            self._judge(response, file, tries)
            if goes_on := response.status_code == 206:
                part.replace(kept)
            tries.validator, tries.kept = self._validator(response, item), 0
            body = receive(
                response,
                part,
                item,
                self._terms,
                kept=kept if goes_on else None,
                tell=lambda size: self.report(FileProgress(file.file, size)),
            )
        finally:
            kept.unlink(missing_ok=True)
            with self._lock:
                self._open.pop(id(response), None)
            response.close()
        if self.preset.download_quota:
            self.journal.write("received", file=file.file, times=self.journal.state.downloads.get(file.file, 0) + 1)
        return body

    def _request(self, file: PlannedFile, tries: Tries) -> Response:
        token = self._token_for(file) and not tries.without_token
        tries.status = tries.headers = None
        if self.preset.download_quota and (
            self.journal.state.downloads.get(file.file, 0) >= self.preset.download_quota
        ):
            raise GiveUp(
                f"it was downloaded {self.preset.download_quota} times, all the server allows", kind="exhausted"
            )
        headers = dict(HEADERS)
        if tries.identity or self._may_go_on(file.item):
            headers["Accept-Encoding"] = "identity"
        if tries.kept:
            headers |= {"Range": f"bytes={tries.kept}-", "If-Range": tries.validator}
        return self.session.send("GET", file.item.url, token=token, headers=headers, stream=True)

    def _may_go_on(self, item: OutputFile) -> bool:
        """Say whether a cut body may be continued: only where the server is known to do it right, and a checksum
        proves the whole."""
        return self.preset.range == "safe" and item.checksum is not None

    def _validator(self, response: Response, item: OutputFile) -> str:
        """Return the strong ETag of a body that may be continued (RFC 9110 section 13.1.5), or nothing."""
        etag = response.headers.get("etag", "")
        plain = "content-encoding" not in response.headers
        return etag if plain and etag.startswith('"') and self._may_go_on(item) else ""

    @staticmethod
    def _keep(part: Path, tries: Tries) -> None:
        """Keep what a cut attempt got if the next may go on from there; remove it otherwise."""
        got = part.stat().st_size if tries.validator and part.exists() else 0
        if got:
            tries.kept = got
        else:
            part.unlink(missing_ok=True)

    def _token_for(self, file: PlannedFile) -> bool:
        """Decide about the token: never where the manifest says it is not needed."""
        if self.session.auth is None or file.requires_token is False:
            return False
        if file.requires_token is None:
            return self.session.in_token_scope(file.item.url)
        return True

    def _judge(self, response: Response, file: PlannedFile, tries: Tries) -> None:
        """Return if the answer is a body to read; raise what to do otherwise."""
        status = response.status_code
        if status == 200:
            self._refusals = 0
            return
        tries.status, tries.headers = status, headers_of(response)
        if status == 204 and not file.item.count:
            return
        if status == 206:
            # The total a server names is never trusted, only where its part begins.
            if tries.kept and response.headers.get("content-range", "").startswith(f"bytes {tries.kept}-"):
                return
            asked, tries.kept = bool(tries.kept), 0
            raise Again("another part was sent than asked for" if asked else "a part was sent instead of the whole")
        if status in THROTTLE_CODES:
            raise self._throttled(response, tries)
        text = beginning(response, ERROR_TEXT).lower()
        if status == 401 or (status in self.preset.refused_codes and "expired" not in text):
            raise self._refused(response)
        if status == 410 or (status == 403 and "expired" in text):
            raise GiveUp(EXPIRED)
        if status == 404:
            raise self._absent(tries)
        if status == 400 and "invalidargument" in text and not tries.without_token:
            # A presigned storage link refuses a second credential; the reverse is never tried.
            tries.without_token = True
            self.report(Warned(f"{file.file}: storage refused the token, fetched without it"))
            raise Again("storage refused the token", wait_s=0.0, free=True)
        if status == 500 and "maximum number" in text:
            raise GiveUp("the server hands out no more downloads of it", kind="exhausted")
        if status in RETRY_CODES:
            raise Again(f"HTTP {status}")
        if status == 416 and tries.kept:
            tries.kept = 0
            raise Again("the server cannot go on where the file was cut", wait_s=0.0)
        raise GiveUp(f"HTTP {status}")

    def _throttled(self, response: Response, tries: Tries) -> Again:
        """Be silent for as long as the server asks, free of budget.

        One that does not say how long is asked less and less often; a file of which it goes on like that is the
        trouble itself, so that in the end only this file waits, and its tries are counted.
        """
        policy = self.session.policy
        asked = retry_after(response.headers, now_utc())
        if asked is None:
            tries.throttled += 1
        wait = min(asked if asked is not None else self._backoff(tries.throttled), policy.wait_cap_s)
        if asked is not None or tries.throttled <= THROTTLES_SHARED:
            self.governor.throttle(wait)
        self.report(Throttled(wait, clamped=asked is not None and asked > policy.wait_cap_s))
        free = tries.throttled <= policy.poll_error_budget
        return Again(f"HTTP {response.status_code}", wait_s=wait, free=free)

    def _refused(self, response: Response) -> BaseException:
        with self._lock:
            self._refusals += 1
            many = self._refusals >= self.session.policy.refusals_max
        if self.session.auth is None or many:
            return AuthError(
                "the server refuses the token for files, a new one too",
                where=redact(str(response.request.url)),
                said=f"HTTP {response.status_code}",
                hint="renew the credential, then `hiexchange export resume`: finished files are kept",
                resumable=True,
            )
        return Again(f"HTTP {response.status_code}")

    def _absent(self, tries: Tries) -> Exception:
        """Judge a 404: fresh links may need a moment (BCDA)."""
        policy = self.session.policy
        tries.absent += 1
        tries.absent_since = tries.absent_since or time.monotonic()
        aged = time.monotonic() - tries.absent_since > policy.fresh_404_window_s
        if tries.absent >= policy.fresh_404_attempts or aged:
            return GiveUp("HTTP 404")
        return Again("HTTP 404", wait_s=policy.fresh_404_window_s / policy.fresh_404_attempts)

    def _commit(self, file: PlannedFile, part: Path, body: Body, number: int) -> None:
        """Journal the proof, then give the file its name."""
        policy = self.session.policy
        problem = problem_with(body, file.item, length_of=self.preset.length_of, strict=policy.strict)
        if problem is None and not self.rejects.take(file.file, body.check, policy.max_rejected):
            lines = body.check.lines + body.check.rejected
            problem = (
                f"{body.check.rejected:,} of {lines:,} lines are no FHIR resources, such as {body.check.first_reject}"
            )
        if problem is not None:
            part.unlink(missing_ok=True)
            raise Again(problem, body=True)
        receipt = self._receipt(file, body, number)
        if file.file.startswith("organized/"):
            # The parts come first: a journaled file always has them.
            counts = split_by_type(part, self.folder / "output", Path(file.file).stem)
            receipt = replace(receipt, types=counts, resources=sum(counts.values()))
        self.journal.write("verified", **receipt.to_data())
        with storage_errors(part):
            part.replace(self.folder / file.file)
        for note in body.notes:
            self.report(Warned(f"{file.file}: {note}"))
        self.log.write(
            "download_complete",
            fileUrl=redact(file.item.url),
            resourceCount=receipt.resources,
            fileSize=receipt.plain_bytes,
        )
        self.report(FileDone(file.file, receipt.resources, receipt.plain_bytes))

    @staticmethod
    def _receipt(file: PlannedFile, body: Body, number: int) -> FileReceipt:
        item: OutputFile = file.item
        check = body.check
        return FileReceipt(
            file=file.file,
            kind=item.kind,
            type=item.type,
            url_sha256=sha256_text(item.key),
            wire_bytes=body.wire_bytes,
            plain_bytes=body.plain_bytes,
            stored_bytes=body.stored_bytes,
            lines=check.lines,
            resources=resources_in(check, item),
            sha256=body.sha256,
            verified=tuple(dict.fromkeys(body.verified)),
            attempts=number,
            rejected_lines=check.rejected,
            types=dict(check.types),
            notes=tuple(body.notes),
            newest=check.newest,
            oldest=check.oldest,
        )
