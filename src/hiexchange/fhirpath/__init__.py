"""FHIRPath 2.0 over Arrow columns: every expression runs for all rows at once.

    parse("name.where(use = 'official').family")     the syntax tree
    evaluate(node, frame)                            a Collection: values and the row of each

Pure: no I/O, no clock. ``today()`` and ``now()`` read the environment's ``now``.
"""

from hiexchange.fhirpath.columns import Collection, Part
from hiexchange.fhirpath.evaluate import environment, walk
from hiexchange.fhirpath.frame import Environment, Frame
from hiexchange.fhirpath.parse import parse

__all__ = ["Collection", "Environment", "Frame", "Part", "environment", "parse", "walk"]
