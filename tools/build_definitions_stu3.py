"""Compile the STU3 element table from the models of ``fhir.resources`` (PyPI, BSD licence).

    pip download --no-deps fhir.resources==8.3.0 && unzip fhir_resources-*.whl
    python tools/build_definitions_stu3.py fhir/resources/STU3

The models are generated from the STU3 (3.0.2) definitions, one class a type or backbone element. They
are read as text (``ast``), not imported: importing takes long and gives no more.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path
from typing import Any

from build_definitions import Packed, write

VERSION = "3.0.2"
PRIMITIVES = (
    "base64Binary", "boolean", "code", "date", "dateTime", "decimal", "id", "instant", "integer", "markdown", "oid",
    "positiveInt", "string", "time", "unsignedInt", "uri", "xhtml",
)  # fmt: skip
DERIVED = {"code": "string", "id": "string", "markdown": "string", "oid": "uri"}
SPELLED = {name[0].upper() + name[1:]: name for name in PRIMITIVES}
NOT_TYPES = {"FHIRPrimitiveExtension", "FHIRAbstractModel", "FHIRResourceModel"}


def classes(folder: Path) -> dict[str, ast.ClassDef]:
    """Return every model class by its name."""
    found: dict[str, ast.ClassDef] = {}
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith(("fhir", "__")) and path.name != "fhirabstractbase.py":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name not in NOT_TYPES:
                found[node.name] = node
    return found


def fields(node: ast.ClassDef) -> list[tuple[str, list[Any]]]:
    """Return (element, [types, many, choice, required]) in the order the serialiser writes them."""
    order = elements_sequence(node)
    found: dict[str, list[Any]] = {}
    for item in node.body:
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Call)):
            continue
        assert isinstance(item.target, ast.Name)
        options = {keyword.arg: keyword.value for keyword in item.value.keywords}
        extra = literal_keys(options.get("json_schema_extra"))
        if "element_property" not in extra:
            continue
        alias = options.get("alias")
        name = alias.value if isinstance(alias, ast.Constant) else item.target.id
        kind = annotated_type(item.annotation)
        many = "List" in ast.dump(item.annotation)
        stem = extra.get("one_of_many")
        if isinstance(stem, ast.Constant):
            found.setdefault(stem.value, [[], 0, 1, 0])[0].append(kind)
        else:
            found[name] = [[kind], int(many), 0, int("element_required" in extra)]
    return sorted(found.items(), key=lambda pair: order.get(pair[0], order.get(spelled(pair), len(order))))


def spelled(field: tuple[str, list[Any]]) -> str:
    """Return the JSON member name of a choice element's first type."""
    name, (types, *_) = field
    return name + types[0][0].upper() + types[0][1:]


def literal_keys(node: ast.expr | None) -> dict[Any, ast.expr]:
    """Return the items of a dict display by their constant keys."""
    if not isinstance(node, ast.Dict):
        return {}
    return {key.value: item for key, item in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)}


def annotated_type(annotation: ast.expr) -> str:
    """Return the FHIR type in an annotation such as ``typing.List[fhirtypes.ReferenceType] | None``."""
    for leaf in ast.walk(annotation):
        if isinstance(leaf, ast.Attribute) and leaf.attr.endswith("Type"):
            kind = leaf.attr.removesuffix("Type")
            return SPELLED.get(kind, kind)
    return "boolean"  # the only type the models spell with Python's own name


def elements_sequence(node: ast.ClassDef) -> dict[str, int]:
    """Return the position of each JSON member, from the class's own list."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "elements_sequence":
            returned = [leaf.value for leaf in ast.walk(item) if isinstance(leaf, ast.Return)]
            assert isinstance(returned[0], ast.List)
            return {leaf.value: index for index, leaf in enumerate(returned[0].elts) if isinstance(leaf, ast.Constant)}
    return {}


def compile_types(folder: Path) -> Packed:
    """Return the table of ``build_definitions.compile_types`` for STU3."""
    models = classes(folder)
    parents = {name: base_of(node) for name, node in models.items()}
    table: Packed = {name: ["primitive", DERIVED.get(name, "Element"), {}] for name in PRIMITIVES}
    paths: dict[str, str] = {}

    def kind_of(name: str) -> str:
        while name:
            if name == "Resource":
                return "resource"
            name = parents.get(name, "")
        return "complex"

    def add(model: str, path: str, kind: str) -> None:
        paths[model] = path
        elements: dict[str, list[Any]] = {}
        table[path] = [kind, parents[model], elements]
        for name, (types, many, choice, required) in fields(models[model]):
            resolved = []
            for each in types:
                if is_backbone(each) and each not in paths:
                    add(each, f"{path}.{name}", "backbone")
                resolved.append(paths.get(each, each))
            elements[name] = [resolved, many, choice, required]

    def is_backbone(name: str) -> bool:
        return name in models and name not in tops

    names = sorted(models)
    referenced = {kind for node in models.values() for _, spec in fields(node) for kind in spec[0]}
    # A backbone's class name starts with the name of the type that holds it and lives in its file.
    tops = {name for name in names if first_in_file(folder, name)} | (set(names) - referenced)
    for name in names:
        if name in tops:
            add(name, name, kind_of(name))
    return table


def first_in_file(folder: Path, name: str) -> bool:
    return (folder / f"{name.lower()}.py").exists()


def base_of(node: ast.ClassDef) -> str:
    base = node.bases[0]
    name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
    return "" if name in {"FHIRAbstractModel", "FHIRResourceModel", "BaseModel"} else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    table = compile_types(options.folder)
    target = write(VERSION, table)
    resources = sum(kind == "resource" for kind, _, _ in table.values())
    sys.stdout.write(f"{target.name}: {len(table)} types, {resources} resources, {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
