"""Settings -> objects -> the whole route. The only library room that knows many stages.

:func:`pull` is one export into a lake; :func:`run` goes from the Bulk FHIR server to the providers'
inboxes, the measures and the report. Both are safe to repeat: a finished export is not fetched
again, an accepted roster is not read again, and nothing is sent twice.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiexchange.pipeline.export import PullResult, pull
    from hiexchange.pipeline.result import RunResult, Stage
    from hiexchange.pipeline.route import run, write_report

__all__ = ["PullResult", "RunResult", "Stage", "pull", "run", "write_report"]

_HOME_OF = {
    "PullResult": "export",
    "RunResult": "result",
    "Stage": "result",
    "pull": "export",
    "run": "route",
    "write_report": "route",
}


def __getattr__(name: str) -> Any:
    # On first use: what reads only the inputs of a run must not load every stage.
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hiexchange.pipeline' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"hiexchange.pipeline.{_HOME_OF[name]}"), name)
    return value
