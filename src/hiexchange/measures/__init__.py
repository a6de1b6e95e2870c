"""Digital quality measures over a lake: our own native ones, and official CQL/ELM bundles.

```python
run = evaluate("followup-7d", lake, period=(date(2026, 1, 1), date(2026, 12, 31)), run_id="2026")
run.table                     # MEASURE_RESULT rows
run.summary().rate            # with a Wilson interval
run.to_fhir()                 # summary MeasureReport
```

Nothing here downloads a measure, a value set or a code list.
"""

from __future__ import annotations

from hiexchange.measures.claims import completeness
from hiexchange.measures.evaluate import evaluate_all
from hiexchange.measures.measure import Measure
from hiexchange.measures.native import NativeMeasure, evaluate, measures
from hiexchange.measures.result import GroupSummary, MeasureRun, Summary, wilson

__all__ = [
    "GroupSummary",
    "Measure",
    "MeasureRun",
    "NativeMeasure",
    "Summary",
    "completeness",
    "evaluate",
    "evaluate_all",
    "measures",
    "wilson",
]
