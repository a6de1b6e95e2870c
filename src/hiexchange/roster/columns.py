"""Which column of a file feeds which column of MEMBER."""

from __future__ import annotations

from hiexchange.roster.issues import refusal
from hiexchange.roster.layout import Layout
from hiexchange.roster.synonyms import SYNONYMS, folded

PROVIDERS = {"provider_npi", "provider_tin", "org_id"}


def sources(layout: Layout, header: list[str], width: int, *, file: str) -> dict[str, list[int]]:
    """Return, for each MEMBER column the file feeds, the numbers (from 1) of its columns.

    Raises:
        RosterError: A header stands twice, or a required column is absent.
    """
    places: dict[str, int] = {}
    twice = []
    for number, name in enumerate(header, 1):
        if name and folded(name) in places:
            twice.append(str(number))
        places.setdefault(folded(name), number)
    if twice:
        raise refusal(
            "duplicate_header",
            f"the header names a column twice (column {', '.join(twice)})",
            file=file,
            hint="ask the payer which of the two is meant",
            number="HX-503",
        )
    cut = [name for name, rule in layout.columns.items() if rule.start and rule.width]
    found: dict[str, list[int]] = {name: [number] for number, name in enumerate(cut, 1)}
    for target, rule in layout.columns.items():
        wanted = rule.join or ((rule.source,) if isinstance(rule.source, str) else rule.source)
        numbers = [at for name in wanted if (at := _place(name, places, width))]
        if numbers and not (rule.join and len(numbers) < len(rule.join)):
            found[target] = numbers if rule.join else numbers[:1]
    if layout.synonyms:
        used = {number for numbers in found.values() for number in numbers}
        for header_name, place in places.items():
            usual = SYNONYMS.get(header_name)
            if usual and usual not in found and place not in used and usual not in _constant_targets(layout):
                found[usual] = [place]
    if "member_id" not in found and "mbi" in found and layout.synonyms:
        found["member_id"] = found["mbi"]
    _refuse_missing(layout, found, file)
    return found


def _place(name: str, places: dict[str, int], width: int) -> int | None:
    if name.isdigit() and 1 <= int(name) <= width:
        return int(name)
    return places.get(folded(name))


def _constant_targets(layout: Layout) -> set[str]:
    return {name for name, rule in layout.columns.items() if rule.constant is not None}


def _refuse_missing(layout: Layout, found: dict[str, list[int]], file: str) -> None:
    constants = _constant_targets(layout)
    missing = [
        name for name, rule in layout.columns.items() if rule.required and name not in found and name not in constants
    ]
    if "member_id" not in found and "member_id" not in missing:
        missing.append("member_id")
    if missing:
        raise refusal(
            "missing_column",
            f"the file lacks the column of {', '.join(sorted(missing))}",
            file=file,
            hint="compare the header with the layout: `hiexchange roster infer` proposes one",
            number="HX-503",
        )
    if not PROVIDERS & (set(found) | constants):
        raise refusal(
            "missing_column",
            "the file has no column of a provider: no NPI, no tax id, no organisation",
            file=file,
            hint="map one of provider_npi, provider_tin, org_id in the layout, or give it as a constant",
            number="HX-503",
        )


def place_of(layout: Layout, target: str, header: list[str], width: int) -> int | None:
    """Return the number (from 1) of the file's column that feeds one column, or None."""
    cut = [name for name, rule in layout.columns.items() if rule.start and rule.width]
    if target in cut:
        return cut.index(target) + 1
    rule = layout.columns.get(target)
    if rule is None:
        return None
    places = {folded(name): number for number, name in reversed(list(enumerate(header, 1)))}
    wanted = (rule.source,) if isinstance(rule.source, str) else rule.source
    return next((place for name in wanted if (place := _place(name, places, width))), None)
