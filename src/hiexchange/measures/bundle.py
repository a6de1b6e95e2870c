"""A measure's FHIR content, read: Measure, Libraries with their ELM, ValueSets with their codes.

Reads one Bundle, a folder of JSON files (bundles or single resources, ``.gz`` too), or values already
in memory. Nothing is evaluated and nothing fetched; what is wrong is found by :mod:`.checks`.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hiexchange.errors import MeasureError
from hiexchange.measures.cql import library
from hiexchange.measures.cql.library import Library

Resource = Mapping[str, Any]

POPULATIONS = {
    "initial-population": "initial_population",
    "denominator": "denominator",
    "denominator-exclusion": "denominator_exclusion",
    "denominator-exception": "denominator_exception",
    "numerator": "numerator",
    "numerator-exclusion": "numerator_exclusion",
    "measure-population": "measure_population",
    "measure-population-exclusion": "measure_population_exclusion",
}
"""Population codes to columns of MEASURE_RESULT."""
OBSERVATIONS = {"measure-observation", "measure-population-observation"}
SCORINGS = {"proportion", "ratio", "continuous-variable", "cohort", "composite"}


@dataclass(frozen=True)
class Population:
    """One population of a group."""

    id: str
    """Its id in the Measure, or its code."""
    column: str
    """Column of MEASURE_RESULT."""
    expression: str
    """Define of the main library."""
    reference: str | None = None
    """Population it draws from, where a group has two initial populations."""


@dataclass(frozen=True)
class Observation:
    """One measure observation: a function called for each member of a population."""

    id: str
    expression: str
    reference: str | None
    """Id of the population whose members are observed."""
    method: str
    """Sum, Count, Average, Min, Max, Median."""


@dataclass(frozen=True)
class Stratifier:
    """One stratifier of a group."""

    id: str
    text: str
    expression: str
    applies_to: tuple[str, ...]
    """Population columns it cuts; empty for all."""


@dataclass(frozen=True)
class Group:
    """One population group."""

    id: str
    scoring: str
    basis: str
    improvement: str
    populations: tuple[Population, ...]
    observations: tuple[Observation, ...]
    stratifiers: tuple[Stratifier, ...]


@dataclass(frozen=True)
class Codes:
    """A value set as the bundle has it."""

    url: str
    version: str | None
    pairs: frozenset[tuple[str | None, str | None]] | None
    """None: neither an expansion nor a plain list of codes."""
    total: int | None
    """``expansion.total``, which may be more than the codes at hand."""
    count: int


@dataclass(frozen=True)
class Content:
    """Everything of one measure, by name."""

    measure: Resource
    groups: tuple[Group, ...]
    libraries: tuple[tuple[Resource, Library], ...]
    """(FHIR Library, its ELM)."""
    broken: tuple[str, ...]
    """Libraries whose ELM is absent or unreadable, by id."""
    value_sets: Mapping[str, Codes] = field(default_factory=dict)
    """By canonical URL."""
    supplemental: tuple[tuple[str, str, str], ...] = ()
    """(id, define, usage): supplemental data and risk adjustment."""


def resources(source: str | Path | Resource | Iterable[Resource]) -> Iterator[Resource]:
    """Yield the resources of a bundle, a file, a folder of files, or an iterable of them.

    Raises:
        MeasureError: A path does not exist or a file is not FHIR JSON.
    """
    if isinstance(source, Mapping):
        yield from _unpacked(source)
    elif isinstance(source, str | Path):
        path = Path(source)
        if not path.exists():
            raise MeasureError(
                "there is no such measure bundle",
                where=str(path),
                hint="give a Bundle file or a folder; our own measures are run by name: hiexchange.evaluate",
            )
        files = sorted(path.rglob("*.json*")) if path.is_dir() else [path]
        for file in files:
            if file.name.endswith((".json", ".json.gz")):
                yield from _unpacked(read_json(file))
    else:
        for resource in source:
            yield from _unpacked(resource)


def read_json(file: Path) -> Any:
    """Return the value of a JSON file, gzipped or not.

    Raises:
        MeasureError: It is not JSON.
    """
    try:
        data = file.read_bytes()
        return msgspec.json.decode(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (gzip.BadGzipFile, zlib.error, EOFError, msgspec.DecodeError):
        raise MeasureError("the file is not JSON", where=file.name) from None
    except OSError as error:
        raise MeasureError("the file cannot be read", where=str(file), said=error.strerror) from None


def _unpacked(resource: Any) -> Iterator[Resource]:
    if not isinstance(resource, Mapping):
        return
    if resource.get("resourceType") == "Bundle":
        for entry in resource.get("entry") or ():
            if isinstance(entry, Mapping) and isinstance(entry.get("resource"), Mapping):
                yield from _unpacked(entry["resource"])
    else:
        yield resource


def read(source: str | Path | Resource | Iterable[Resource], *, measure: str | None = None) -> Content:
    """Return a measure's content.

    Args:
        source: Bundle, file, folder, or resources.
        measure: Id or URL of the Measure to take when there are several.

    Raises:
        MeasureError: There is no Measure, or there are several and none was named.
    """
    found: dict[str, list[Resource]] = {}
    for resource in resources(source):
        found.setdefault(str(resource.get("resourceType")), []).append(resource)
    chosen = [
        item
        for item in found.get("Measure", [])
        if measure is None or measure in (item.get("id"), item.get("url"), item.get("name"))
    ]
    if len(chosen) != 1:
        names = ", ".join(sorted(str(item.get("id")) for item in found.get("Measure", [])))
        several = "the bundle has several Measures" if chosen else "the bundle has no Measure of that name"
        raise MeasureError(
            several if names else "there is no Measure resource in the bundle",
            where=str(source) if isinstance(source, str | Path) else None,
            hint=f"it has {names}; say which" if names else "give a measure's Bundle, or a folder of its resources",
        )
    libraries, broken = [], []
    for item in found.get("Library", []):
        elm = _elm(item)
        if elm is None:
            broken.append(str(item.get("id")))
        else:
            libraries.append((item, elm))
    return Content(
        measure=chosen[0],
        groups=tuple(_group(chosen[0], group, at) for at, group in enumerate(chosen[0].get("group") or (), 1)),
        libraries=tuple(libraries),
        broken=tuple(broken),
        value_sets=_value_sets(found.get("ValueSet", [])),
        supplemental=tuple(_supplemental(chosen[0])),
    )


def _elm(resource: Resource) -> Library | None:
    for content in resource.get("content") or ():
        if "elm+json" in str(content.get("contentType")) and content.get("data"):
            try:
                return library.read(base64.b64decode(content["data"]))
            except (binascii.Error, ValueError, MeasureError):
                return None
    return None


def _extension(item: Resource, *names: str) -> Any:
    """Return the value of the first extension whose URL ends in one of the names, old or new QM IG alike."""
    for extension in item.get("extension") or ():
        last = str(extension.get("url", "")).rpartition("/")[2]
        if last.removeprefix("cqfm-").removeprefix("cqm-") in names:
            return next((value for key, value in extension.items() if key.startswith("value")), None)
    return None


def _concept_code(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        return None
    return next((coding.get("code") for coding in value.get("coding") or () if coding.get("code")), value.get("code"))


def _group(measure: Resource, group: Resource, at: int) -> Group:
    scoring = _extension(group, "scoring") or _extension(measure, "scoring") or measure.get("scoring")
    basis = _extension(group, "populationBasis") or _extension(measure, "populationBasis") or "boolean"
    improvement = _extension(group, "improvementNotation") or measure.get("improvementNotation")
    populations = []
    observations: list[Observation] = []
    for item in group.get("population") or ():
        code = _concept_code(item.get("code")) or ""
        criteria = (item.get("criteria") or {}).get("expression") or ""
        reference = _extension(item, "criteriaReference")
        if code in OBSERVATIONS:
            method = _extension(item, "aggregateMethod") or "Count"
            # A ratio has two of one code: without ids of their own they are told apart by their place.
            name = item.get("id") or (f"{code}-{len(observations) + 1}" if observations else code)
            observations.append(Observation(name, criteria, reference, str(_concept_code(method) or method)))
        elif code in POPULATIONS:
            populations.append(Population(item.get("id") or code, POPULATIONS[code], criteria, reference))
    return Group(
        id=group.get("id") or f"group-{at}",
        scoring=_concept_code(scoring) or "proportion",
        basis=str(basis),
        improvement=_concept_code(improvement) or "increase",
        populations=tuple(populations),
        observations=tuple(observations),
        stratifiers=tuple(_stratifier(item, n) for n, item in enumerate(group.get("stratifier") or (), 1)),
    )


def _stratifier(item: Resource, at: int) -> Stratifier:
    applies = [
        _concept_code(extension.get("valueCodeableConcept"))
        for extension in item.get("extension") or ()
        if str(extension.get("url", "")).endswith("appliesTo")
    ]
    code = item.get("code") or {}
    return Stratifier(
        id=item.get("id") or f"stratifier-{at}",
        text=code.get("text") or _concept_code(code) or item.get("description") or "",
        expression=(item.get("criteria") or {}).get("expression") or "",
        applies_to=tuple(POPULATIONS[name] for name in applies if name in POPULATIONS),
    )


def _value_sets(items: list[Resource]) -> dict[str, Codes]:
    found: dict[str, Codes] = {}
    for item in items:
        url = str(item.get("url") or item.get("id"))
        codes = _codes(url, item)
        # The same set twice in a bundle: the fuller one.
        if url not in found or codes.count > found[url].count:
            found[url] = codes
    return found


def _codes(url: str, item: Resource) -> Codes:
    expansion = item.get("expansion")
    pairs: set[tuple[str | None, str | None]] | None = None
    total = None
    if isinstance(expansion, Mapping):
        pairs = set(_contained(expansion.get("contains") or ()))
        total = expansion.get("total")
    elif isinstance(item.get("compose"), Mapping):
        pairs = _composed(item["compose"])
    return Codes(url, item.get("version"), None if pairs is None else frozenset(pairs), total, len(pairs or ()))


def _contained(items: Iterable[Resource]) -> Iterator[tuple[str | None, str | None]]:
    for item in items:
        if item.get("code") is not None and not item.get("abstract"):
            yield item.get("system"), item.get("code")
        yield from _contained(item.get("contains") or ())


def _composed(compose: Resource) -> set[tuple[str | None, str | None]] | None:
    """Return the codes of a plain list; None when filters or other sets are involved."""
    pairs: set[tuple[str | None, str | None]] = set()
    for include in compose.get("include") or ():
        if include.get("filter") or include.get("valueSet") or not include.get("concept"):
            return None
        pairs |= {(include.get("system"), concept.get("code")) for concept in include["concept"]}
    for exclude in compose.get("exclude") or ():
        if exclude.get("filter") or exclude.get("valueSet") or not exclude.get("concept"):
            return None
        pairs -= {(exclude.get("system"), concept.get("code")) for concept in exclude["concept"]}
    return pairs


def _supplemental(measure: Resource) -> Iterator[tuple[str, str, str]]:
    for at, item in enumerate(measure.get("supplementalData") or (), 1):
        usages = [_concept_code(usage) for usage in item.get("usage") or ()]
        expression = (item.get("criteria") or {}).get("expression")
        if expression:
            yield (
                item.get("id") or f"sde-{at}",
                expression,
                next((usage for usage in usages if usage), "supplemental-data"),
            )
