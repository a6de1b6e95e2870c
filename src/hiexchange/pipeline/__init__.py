"""Settings -> objects -> the whole route. The only library room that knows many stages.

:func:`pull` is one export into a lake; :func:`run` goes from the Bulk FHIR server to the providers'
inboxes, the measures and the report. Both are safe to repeat: a finished export is not fetched
again, an accepted roster is not read again, and nothing is sent twice.
"""

from __future__ import annotations

from hiexchange.pipeline.export import PullResult, pull
from hiexchange.pipeline.result import RunResult, Stage
from hiexchange.pipeline.route import run, write_report

__all__ = ["PullResult", "RunResult", "Stage", "pull", "run", "write_report"]
