"""What happens at the server after its work is done: renewed links, and the DELETE at the end."""

from __future__ import annotations

from collections.abc import Callable

from hiexchange._http import NoAnswer, Session, retrying
from hiexchange.bulk.manifest import Manifest
from hiexchange.bulk.plan import PlannedFile, renewed_urls
from hiexchange.bulk.polling import Page, Poller, fetch_next
from hiexchange.errors import ExportError, ServerUnavailable
from hiexchange.events import Reporter, Warned

GONE = {200, 202, 204, 404, 410}
MAX_PAGES = 10_000


def renewed_links(
    session: Session,
    poller: Poller,
    expired: list[PlannedFile],
    *,
    parse: Callable[[Page], Manifest],
    report: Reporter,
) -> dict[str, str]:
    """Ask for the manifest again, since servers may renew links; return those that changed, by file."""
    report(Warned(f"{len(expired)} links have expired; the manifest is asked for again"))
    pages: list[Page] = []
    try:
        poller.until_complete(session.policy.deadline_s, pages.append)
    except ExportError as error:
        report(Warned(f"the links cannot be renewed: {error.what}"))
        return {}
    fresh = [parse(page) for page in pages]
    for manifest in fresh:  # grows while it is walked: linked pages have files too
        for url in manifest.links[: MAX_PAGES - len(fresh)]:
            session.permit(url, token=False)
            fresh.append(parse(fetch_next(session, url)))
    old = {file.file: file.item.url for file in expired}
    return {name: item.url for name, item in renewed_urls(expired, fresh).items() if item.url != old[name]}


def delete_job(session: Session, url: str) -> str | None:
    """Delete a job at the server; return what went wrong, or None. That it is gone already is fine."""

    def attempt() -> int:
        response = session.send("DELETE", url, token=session.auth is not None)
        if response.status_code >= 500 or response.status_code == 429:
            raise ServerUnavailable("the job cannot be deleted now", said=f"HTTP {response.status_code}")
        return response.status_code

    try:
        status = retrying(session, session.policy.delete_attempts, retry=_passing)(attempt)
    except ServerUnavailable as error:
        return error.said or error.what
    return None if status in GONE else f"HTTP {status}"


def _passing(error: BaseException) -> bool:
    return isinstance(error, ServerUnavailable) and not (isinstance(error, NoAnswer) and error.fatal)
