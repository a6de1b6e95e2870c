"""SQL on FHIR v2: flat tables out of resources, defined in JSON, run over Arrow.

    view("patient_demographics", lake)                 a shipped view
    View.from_json(path).run(lake)                     your own
    View.from_json(path).schema()                      known before it runs

The evaluator is ``hiexchange.fhirpath``; this package adds the row structure, schemas and the library.
"""

from hiexchange.views.check import Finding, check_view
from hiexchange.views.definition import Column, Definition, Select
from hiexchange.views.library import load_view, view, view_names
from hiexchange.views.output import write_rows
from hiexchange.views.sqlquery import SQLQuery
from hiexchange.views.view import View

__all__ = [
    "Column",
    "Definition",
    "Finding",
    "SQLQuery",
    "Select",
    "View",
    "check_view",
    "load_view",
    "view",
    "view_names",
    "write_rows",
]
