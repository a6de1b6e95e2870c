"""Validate a sample of a load with the models of ``fhir.resources``; reported, never blocking.

The models cover STU3, R4B and R5; R4 resources are checked with those of R4B, whose resources here
are the same but for a few types. Messages name the place and the kind of fault, never the value.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

MODELS = {
    "3.0.2": "fhir.resources.STU3",
    "4.0.1": "fhir.resources.R4B",
    "4.3.0": "fhir.resources.R4B",
    "5.0.0": "fhir.resources",
}


@dataclass(frozen=True)
class Validation:
    """What a sample of one type showed."""

    checked: int
    failed: int
    faults: dict[str, int] = field(default_factory=dict)
    """{place and kind: how often}, most frequent first."""


def validate(lines: Iterable[bytes], resource: str, version: str) -> Validation:
    """Check resources against the models of their FHIR version.

    Args:
        lines: JSON texts of one type.
        resource: The type.
        version: FHIR version.
    """
    from pydantic import ValidationError

    try:
        model = getattr(importlib.import_module(f"{MODELS[version]}.{resource.lower()}"), resource)
    except ImportError:
        return Validation(0, 0, {f"no model of {resource}": 1})
    checked = failed = 0
    faults: Counter[str] = Counter()
    for line in lines:
        checked += 1
        try:
            model.model_validate(json.loads(line))
        except ValidationError as error:
            failed += 1
            # "input" and "msg" hold values of the resource: only place and kind are taken.
            faults.update(
                {
                    f"{'.'.join('*' if isinstance(part, int) else str(part) for part in fault['loc'])}: {fault['type']}"
                    for fault in error.errors(include_input=False, include_url=False, include_context=False)
                }
            )
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            # The models stumble over members of the wrong JSON type, and contained resources of unknown types.
            failed += 1
            faults[f"the models can't read it: {type(error).__name__}"] += 1
    return Validation(checked, failed, dict(faults.most_common(20)))
