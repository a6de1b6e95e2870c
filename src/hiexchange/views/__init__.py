"""SQL on FHIR v2: flat tables out of resources, defined in JSON, run over Arrow.

    view("patient_demographics", lake)                 a shipped view
    View.from_json(path).run(lake)                     your own
    View.from_json(path).schema()                      known before it runs

The evaluator is ``hiexchange.fhirpath``; this package adds the row structure, schemas and the library.
"""

from hiexchange.views.definition import Column, Definition, Select
from hiexchange.views.library import load_view, view, view_names
from hiexchange.views.view import View

__all__ = ["Column", "Definition", "Select", "View", "load_view", "view", "view_names"]
