"""Our own measures: a declaration and one SQL statement each, over the tables of a lake.

They carry our ids, our wording and few codes (HL7 encounter classes, discharge dispositions): no
claim to be HEDIS or CMS measures. See ``docs/measures.md`` for each definition.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from hiexchange.errors import ConfigError, UnknownLayout
from hiexchange.measures.native import emergency, followup, notice, preventive, readmission
from hiexchange.measures.native.model import NativeMeasure, Source, run
from hiexchange.measures.result import MeasureRun

__all__ = ["NativeMeasure", "Source", "evaluate", "measures"]

_ALL = {
    measure.id: measure for room in (followup, readmission, emergency, preventive, notice) for measure in room.MEASURES
}


def measures() -> dict[str, NativeMeasure]:
    """Return the native measures by id."""
    return dict(_ALL)


def evaluate(
    measure: str | NativeMeasure,
    source: Source,
    *,
    period: tuple[date, date],
    run_id: str = "run",
    offset: timedelta = timedelta(0),
    parameters: Mapping[str, Any] | None = None,
) -> MeasureRun:
    """Evaluate a native measure over a lake.

    Args:
        measure: An id of :func:`measures`, or a definition of your own.
        source: A ``Lake``, or a mapping from FHIR type to an Arrow table in the lake's layout.
        period: First and last day of the measurement period, inclusive.
        run_id: Name of the evaluation, written into every row.
        offset: Offset from UTC in which calendar days are told apart; the default is UTC.
        parameters: Values for the measure's own parameters, such as ``visit_codes``.

    Returns:
        MEASURE_RESULT rows and what can be drawn from them.

    Raises:
        UnknownLayout: No measure of that id exists.
        ConfigError: Period, offset, source or a parameter cannot be used.
    """
    chosen = _named(measure) if isinstance(measure, str) else measure
    if parameters:
        unknown = set(parameters) - set(chosen.parameters)
        if unknown:
            raise ConfigError(
                f"the measure {chosen.id} has no parameter {sorted(unknown)[0]!r}",
                hint=f"it has {', '.join(sorted(chosen.parameters)) or 'none'}",
            )
        chosen = replace(chosen, parameters={**chosen.parameters, **parameters})
    return run(chosen, source, period=period, run_id=run_id, offset=offset)


def _named(name: str) -> NativeMeasure:
    if name not in _ALL:
        near = difflib.get_close_matches(name, _ALL, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(_ALL))}"
        raise UnknownLayout(f"there is no native measure {name!r}", hint=hint)
    found: NativeMeasure = _ALL[name]
    return found
