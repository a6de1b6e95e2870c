"""The numbers and permissions of the client, in one value. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hiexchange.errors import ConfigError

AT_LEAST_ONE = (
    "workers_start", "workers_max", "token_attempts", "kickoff_attempts", "connect_attempts", "delete_attempts",
    "file_attempts", "body_attempts",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Policy:
    """Every number and permission of the client; the defaults suit servers nobody controls."""

    connect_timeout_s: float = 10
    write_timeout_s: float = 30
    read_timeout_s: float = 120
    """Idle time between bytes; there is no total timeout."""
    metadata_timeout_s: float = 10
    """Time for the whole CapabilityStatement, without which an export goes on."""
    stall_floor_bytes_s: float = 1000
    stall_window_s: float = 300
    """A body slower than the floor over this window is aborted and fetched again."""
    workers_start: int = 4
    workers_max: int = 16
    rate: tuple[int, float] | None = None
    """Requests per seconds, such as ``(3000, 300)``; the preset's when None."""
    backoff_min_s: float = 1
    backoff_max_s: float = 120
    token_attempts: int = 5
    kickoff_attempts: int = 6
    connect_attempts: int = 4
    """Kick-offs for which no connection could be made; fewer, since somebody may be watching."""
    delete_attempts: int = 3
    file_attempts: int = 8
    body_attempts: int = 3
    """Downloads of one file that arrive whole but fail a check (servers with a quota count them)."""
    fresh_404_attempts: int = 5
    fresh_404_window_s: float = 120
    refusals_max: int = 5
    """Consecutive 401 answers over all files after which the run stops, resumable."""
    poll_min_s: float = 2
    poll_factor: float = 1.5
    poll_max_s: float = 60
    jitter: float = 0.1
    """Share by which poll waits are lengthened at random."""
    poll_cap_s: float = 3600
    """Longest wait between polls, whatever the server asks for."""
    wait_cap_s: float = 600
    """The same for everything that is not a poll."""
    busy_wait_s: float = 60
    """First wait after a kick-off refused with 429 and no usable Retry-After."""
    deadline_s: float = 7 * 86400
    poll_error_budget: int = 30
    """Consecutive answers that say "later": of a job with a transient code, of a file without a Retry-After."""
    confirmation_wait_s: float = 30
    vanish_grace_s: float = 60
    redirects_max: int = 5
    url_bytes_max: int = 4096
    max_rejected: int = 0
    """Lines of one job that may be no JSON; they go to ``rejected.ndjson``."""
    max_line_bytes: int = 256 << 20
    max_file_bytes: int = 200 << 30
    max_ratio: int = 1100
    """Decoded over received bytes; deflate itself cannot pass 1032."""
    max_attachment_bytes: int = 1 << 30
    stop_grace_s: float = 5
    strict: bool = False
    """Fail on what is otherwise a warning: a wrong type in a file."""
    adapt: bool = False
    """Send a refused kick-off once more without the parameter the server named."""
    accept_partial: bool = False
    expected_resources: int | None = None
    """Resources of the last comparable run."""
    collapse_floor: float = 0.0
    """Hold the watermark when a run has fewer resources than this share of the expected."""
    stale_guard: bool = False
    overlap_s: float = 0
    """Seconds taken off a new watermark, so that consecutive windows overlap."""
    cancel_on_deadline: bool = False
    """Delete a job at the server that is not complete in time; by default it can be waited for again."""
    store_patients: bool = False
    verify_committed: str = "size"
    """What resume checks on committed files: ``size`` or ``full`` (hash again)."""
    allowed_hosts: tuple[str, ...] = ()
    token_origins: tuple[str, ...] = ()
    allow_http: bool = False
    """Let a server that is not on this machine be visited without TLS."""

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing would be tried."""
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"the policy's {name} is 1 or more", said=str(getattr(self, name)))
