"""A view: checked when it is made, its schema known before it runs, run batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from hiexchange.definitions import Definitions
from hiexchange.errors import ConfigError, FHIRPathError, ViewError
from hiexchange.fhirpath import Environment, Part, environment, parse, tree
from hiexchange.fhirpath.check import Checker, Shape
from hiexchange.fhirpath.kinds import kind_of, resolve
from hiexchange.fhirpath.needs import Wanted
from hiexchange.views.contained import ContainedReader
from hiexchange.views.definition import Column, Constant, Definition, Select, read_definition
from hiexchange.views.prune import needed
from hiexchange.views.run import Plan, run_batch
from hiexchange.views.schema import arrow_type
from hiexchange.views.source import batches


@dataclass(frozen=True, eq=False)
class View:
    """A ViewDefinition that has passed its checks."""

    definition: Definition
    fhir_version: str = "4.0.1"
    now: datetime | None = None
    """Value of ``now()`` and ``today()`` in paths."""

    def __post_init__(self) -> None:
        """Check every path and type.

        Raises:
            ViewError: The resource type does not exist, or a column is no single value.
            FHIRPathError: A path names an unknown function, constant or type.
        """
        if self.definition.resource not in self._definitions.resources:
            raise ViewError(f"FHIR {self.fhir_version} has no resource {self.definition.resource!r}")
        _ = self._checked

    @classmethod
    def from_json(
        cls, given: Mapping[str, Any] | str | bytes | Path, *, fhir_version: str = "4.0.1", now: datetime | None = None
    ) -> View:
        """Return the view of a ViewDefinition: a mapping, JSON text, or the path of a file.

        Raises:
            ViewError: It is not a ViewDefinition; see the class for what else is checked.
        """
        return cls(read_definition(load_json(given)), fhir_version, now)

    @cached_property
    def _definitions(self) -> Definitions:
        return Definitions.load(self.fhir_version)

    @cached_property
    def _checked(self) -> _Checked:
        return _Checked(self.definition, self._definitions)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said about the paths: elements the definitions do not know, comparisons that never hold."""
        return tuple(dict.fromkeys(self._checked.checker.warnings))

    @property
    def name(self) -> str:
        """Name of the view, or its resource type."""
        return self.definition.name or self.definition.resource

    def functions(self) -> frozenset[str]:
        """Return the names of the FHIRPath functions that the paths call."""
        nodes = (node for path in self.definition.paths() for node in tree.walk(parse(path)))
        return frozenset(node.name for node in nodes if isinstance(node, tree.Call))

    def is_primitive(self, type: str) -> bool:
        """Say whether a FHIR type is a primitive in the view's FHIR version."""
        return self._definitions.is_primitive(type)

    def schema(self) -> pa.Schema:
        """Return the Arrow schema of the result; known without data."""
        return self._checked.schema

    def run(self, source: Any) -> pa.Table:
        """Return the view's rows.

        Args:
            source: A lake, a lake table, a ``pyarrow.Table`` in the lake's layout, anything with
                ``__arrow_c_stream__``, or NDJSON (a path, a folder, several paths).

        Raises:
            ViewError: A column holds several values in one row, or a value does not fit its type.
        """
        return pa.Table.from_batches(list(self.stream(source)), schema=self.schema())

    def stream(self, source: Any) -> Iterator[pa.RecordBatch]:
        """Yield the view's rows batch by batch, in memory bounded by one batch of the source."""
        plan = Plan(self.definition.select, self.definition.where, self.schema())
        env = self._environment()
        for batch in batches(source, self.definition.resource, self.fhir_version, self._wanted):
            if batch.num_rows:
                yield run_batch(plan, batch, self.definition.resource, env)

    @cached_property
    def _wanted(self) -> Wanted:
        return needed(self.definition, self._definitions)

    def _environment(self) -> Environment:
        constants = {constant.name: _scalar(constant) for constant in self.definition.constants}
        return environment(
            self._definitions,
            variables=constants,
            now=self.now or datetime.now(UTC),
            contained=ContainedReader(self.fhir_version),
        )


class _Checked:
    """What the checks of a definition found: the schema and the warnings."""

    def __init__(self, definition: Definition, definitions: Definitions) -> None:
        variables = {constant.name: constant.type for constant in definition.constants}
        root = Shape((definition.resource,))
        self.checker = Checker(definitions, variables, root=root, warnings=list(definition.warnings))
        for at, path in enumerate(definition.where):
            shape = self._path(path, root, f"where[{at}]")
            if shape.types and not set(shape.types) & {"boolean", "System.Boolean"} and shape.known:
                raise ViewError(f"where[{at}] gives {shape.types[0]}, not true or false", where=path)
        fields = [entry for select in definition.select for entry in self._level(select, root)]
        self.schema = pa.schema(fields)

    def _level(self, select: Select, this: Shape) -> list[pa.Field]:
        if select.for_each is not None:
            this = self._path(select.for_each, this, "forEach").with_many(False)
        if select.repeat:
            this = self._closure(select.repeat, this)
        fields = [self._field(column, this) for column in select.columns]
        fields += [entry for below in select.selects for entry in self._level(below, this)]
        branches = [self._level(branch, this) for branch in select.union_all]
        for branch in branches[1:]:
            for one, other in zip(branches[0], branch, strict=True):
                if one.type != other.type:
                    raise ViewError(
                        f"the branches of unionAll give different types for {one.name}",
                        said=f"{one.type}, {other.type}",
                    )
        return fields + (branches[0] if branches else [])

    def _closure(self, paths: tuple[str, ...], this: Shape) -> Shape:
        """Return the types that ``repeat`` can reach."""
        found: dict[str, None] = {}
        level = this
        while True:
            shapes = [self._path(path, level, "repeat") for path in paths]
            fresh = [type for shape in shapes for type in shape.types if type not in found]
            if not fresh:
                return Shape(tuple(found))
            found.update(dict.fromkeys(fresh))
            level = Shape(tuple(fresh))

    def _field(self, column: Column, this: Shape) -> pa.Field:
        shape = self._path(column.path, this, f"column {column.name}")
        if column.type is not None and not self._is_type(column.type):
            raise ViewError(f"the column {column.name} has the type {column.type!r}, which FHIR does not know")
        type = column.type or (shape.types[0] if shape.types else "string")
        arrow = arrow_type(type, column.ansi_type)
        metadata = {"fhir": type, **({"doc": column.description} if column.description else {})}
        return pa.field(column.name, pa.list_(arrow) if column.collection else arrow, metadata=metadata)

    def _is_type(self, name: str) -> bool:
        # A primitive of another FHIR version may be declared too: integer64 in R4.
        return kind_of(name) is not None or resolve(name, self.checker.definitions) is not None

    def _path(self, path: str, this: Shape, where: str) -> Shape:
        try:
            return self.checker.check(parse(path), this)
        except FHIRPathError as error:
            error.where = error.where or f"{where}: {path}"
            raise


def load_json(given: Any) -> Any:
    """Return the JSON value of a text or a file; what is neither is returned as it is.

    Raises:
        ConfigError: The file cannot be read.
        ViewError: The text is not JSON.
    """
    if not isinstance(given, str | bytes | Path):
        return given
    if isinstance(given, Path):
        try:
            given = given.read_bytes()
        except OSError as error:
            raise ConfigError("the view cannot be read", where=str(given), said=error.strerror) from None
    try:
        return msgspec.json.Decoder(float_hook=str).decode(given)
    except msgspec.DecodeError as error:
        raise ViewError(f"the view is not JSON: {error}") from None


def _scalar(constant: Constant) -> Part:
    arrow = {bool: pa.bool_(), int: pa.int64()}.get(type(constant.value), pa.string())
    return Part(pa.scalar(constant.value, arrow), constant.type)
