"""Names of types, and what each FHIR primitive means to FHIRPath."""

from __future__ import annotations

import pyarrow as pa

from hiexchange.definitions import Definitions

SYSTEM = ("Boolean", "String", "Integer", "Long", "Decimal", "Date", "DateTime", "Time", "Quantity")
"""Types of the System namespace."""

TYPE_INFO = pa.struct([("namespace", pa.string()), ("name", pa.string())])
"""What ``type()`` gives: a ``System.TypeInfo``."""

_KINDS = {
    "boolean": "Boolean",
    "integer": "Integer",
    "positiveInt": "Integer",
    "unsignedInt": "Integer",
    "integer64": "Integer",
    "decimal": "Decimal",
    "date": "Date",
    "dateTime": "DateTime",
    "instant": "DateTime",
    "time": "Time",
    "string": "String",
    "code": "String",
    "id": "String",
    "markdown": "String",
    "uri": "String",
    "url": "String",
    "canonical": "String",
    "oid": "String",
    "uuid": "String",
    "base64Binary": "String",
    "xhtml": "String",
    "Quantity": "Quantity",
    "SimpleQuantity": "Quantity",
    "MoneyQuantity": "Quantity",
    "Age": "Quantity",
    "Count": "Quantity",
    "Distance": "Quantity",
    "Duration": "Quantity",
    **{f"System.{name}": name for name in SYSTEM},
    "System.Long": "Integer",
}


def kind_of(type: str) -> str | None:
    """Return the System type a value of this type acts as in operators; None for complex ones."""
    return _KINDS.get(type)


def resolve(name: str, definitions: Definitions) -> str | None:
    """Return the full name of a type as users write it (``string``, ``FHIR.Patient``, ``System.Date``, ``String``)."""
    if name.startswith("FHIR."):
        return name[5:] if name[5:] in definitions else None
    if name.startswith("System."):
        return name if name[7:] in SYSTEM else None
    if name in definitions:
        return name
    return f"System.{name}" if name in SYSTEM else None


def conforms(type: str, wanted: str, definitions: Definitions) -> bool:
    """Say whether a value of ``type`` is a ``wanted``, subtypes included."""
    return type == wanted or definitions.is_a(type, wanted)
