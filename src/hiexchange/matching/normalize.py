"""Turn what payers and hospitals write into what can be compared. Pure functions of one value.

Skip values ("Baby Boy", "Unknown", 1900-01-01, 999-999-9999) become ``None``: a placeholder that
agrees is no evidence. Each function is applied to distinct values only (see :mod:`.prepare`), so it may be
plain Python. Addresses follow USPS Publication 28 abbreviations, as far as comparing needs them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

_LETTERS = re.compile(r"[^a-z]+")
_WORDS = re.compile(r"[^a-z0-9#/]+")
_LATIN = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "æ": "ae", "Æ": "AE", "œ": "oe", "ı": "i"}
)

TITLES = {"mr", "mrs", "ms", "miss", "dr", "rev", "sister", "fr", "hon"}
PARTICLES = {
    "de",
    "la",
    "las",
    "los",
    "del",
    "da",
    "das",
    "do",
    "dos",
    "di",
    "van",
    "von",
    "der",
    "den",
    "el",
    "al",
    "le",
    "du",
    "y",
    "e",
    "bin",
    "ibn",
    "ter",
    "ten",
}
SUFFIXES = {
    "jr": "2", "junior": "2", "jnr": "2", "ii": "2", "2nd": "2", "second": "2", "2": "2",
    "sr": "1", "senior": "1", "snr": "1", "i": "1", "1st": "1", "1": "1",
    "iii": "3", "3rd": "3", "third": "3", "3": "3", "iv": "4", "4th": "4", "4": "4", "v": "5", "5th": "5", "5": "5",
}  # fmt: skip
_GLUED = re.compile(r"(.{3,})(jr|sr|iii)")
TRAILING_SUFFIXES = {"jr", "sr", "ii", "iii", "iv", "2nd", "3rd", "4th", "junior", "senior", "jnr", "snr"}
NO_NAME = {
    "unknown", "unk", "unkn", "unknwn", "none", "null", "na", "nn", "notgiven", "notknown", "noname", "nofirstname", "nolastname",
    "nfn", "nln", "fnu", "lnu", "test", "testpatient", "patient", "anonymous", "anon", "x", "xx", "xxx", "xxxx", "zzz", "zz", "zzztest",
    "unidentified", "trauma", "deceased", "refused", "declined",
    "newborn", "infant", "baby", "unnamed", "undefined", "nan", "missing", "blank",
    "firstname", "lastname", "first", "last", "pending", "tbd", "nameless", "fetus", "foetus", "stillborn", "donotuse", "duplicate", "void",
}  # fmt: skip
_REPEATED = re.compile(r"(.)\1{2,}")
_BABY = re.compile(
    r"(baby|newborn|infant|nb|bb|bg|boy|girl|male|female|twin|triplet|unnamed|bby)"
    r"(boy|girl|male|female|baby|newborn|infant|twin|triplet|of|[abcd1234])*"
)
_BABY_WORDS = {"baby", "newborn", "infant", "babyboy", "babygirl", "neonate", "liveborn"}
_CHILD_OF = {"boy", "girl", "male", "female", "twin", "son", "daughter", "child"}
_MARKS = {"a": "a", "b": "b", "c": "c", "d": "d", "1": "a", "2": "b", "3": "c", "4": "d"}
NO_ADDRESS = {
    "unknown",
    "homeless",
    "none",
    "general delivery",
    "no address",
    "no fixed address",
    "na",
    "n a",
    "undomiciled",
    "transient",
    "address unknown",
    "unk",
    "declined",
    "no permanent address",
    "bad address",
    "returned mail",
    "same",
    "test",
}


def fold(text: str | None) -> str:
    """Return lower-case ASCII-like text: accents stripped, ligatures spelled out."""
    if not text:
        return ""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.translate(_LATIN))
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).lower()


@dataclass(frozen=True, slots=True)
class Given:
    """A given name, ready to compare."""

    whole: str | None
    """All letters together: ``Mary Ann`` and ``Maryann`` are one name."""
    lead: str | None
    """The first word."""
    rest: str | None
    """Letters of the further words, a middle name written into the field."""
    suffix: str | None
    """A suffix written into the field."""
    baby: bool
    """The field says newborn instead of a name."""
    sex: str | None
    """``m`` or ``f`` as a placeholder tells it (``Baby Girl``)."""
    mark: str | None = None
    """Which of several newborns: ``a`` of ``Baby Boy A`` and ``Twin 1``."""


def given_name(text: str | None) -> Given:
    """Split a given-name field; placeholders give no name.

    Source: the placeholder list follows CDC RecordLinker's skip values.
    """
    words = [word for word in re.split(r"[^a-z0-9']+", fold(text)) if word]
    words = [word.replace("'", "") for word in words]
    while len(words) > 1 and words[0] in TITLES:
        words.pop(0)
    suffix = None
    if len(words) > 1 and words[-1] in TRAILING_SUFFIXES:
        suffix = SUFFIXES[words.pop()]
    joined = "".join(words)
    if _BABY.fullmatch(joined) or not _BABY_WORDS.isdisjoint(words) or (words[1:2] == ["of"] and words[0] in _CHILD_OF):
        female = "girl" in joined or "female" in joined or joined == "bg"
        male = "boy" in joined or "male" in joined or joined == "bb"
        last = words[-1] if len(words) > 1 else joined[-1] if joined[-1].isdigit() else ""
        return Given(None, None, None, suffix, True, "f" if female else "m" if male else None, _MARKS.get(last))
    words = [_LETTERS.sub("", word) for word in words]
    words = [word for word in words if word]
    whole = "".join(words)
    if not whole or _no_name(whole, words):
        return Given(None, None, None, suffix, False, None)
    lead = words[0]
    return Given(whole, lead, "".join(words[1:]) or None, suffix, False, None)


@dataclass(frozen=True, slots=True)
class Family:
    """A family name, ready to compare."""

    whole: str | None
    """All letters together, particles and hyphens included."""
    parts: tuple[str, ...]
    """The words of a compound name without particles, if there are several."""
    suffix: str | None
    """A suffix written into the field: ``Smith Jr``."""


def family_name(text: str | None) -> Family:
    """Split a family-name field into the whole, its parts and a suffix."""
    words = [word.replace("'", "") for word in re.split(r"[^a-z0-9']+", fold(text)) if word.strip("'")]
    suffix = None
    if len(words) > 1 and (words[-1] in TRAILING_SUFFIXES or words[-1] in ("v", "5th", "1st")):
        suffix = SUFFIXES[words.pop()]
    elif len(words) > 1 and words[0] in ("jr", "sr", "ii", "iii", "iv"):
        suffix = SUFFIXES[words.pop(0)]
    elif words and (glued := _GLUED.fullmatch(words[-1])):
        words[-1], suffix = glued[1], SUFFIXES[glued[2]]
    words = [word for word in (_LETTERS.sub("", word) for word in words) if word]
    whole = "".join(words)
    if not whole or _no_name(whole, words):
        return Family(None, (), suffix)
    parts = tuple(word for word in words if word not in PARTICLES and len(word) > 2)
    return Family(whole, parts if len(words) > 1 else (), suffix)


def _no_name(whole: str, words: list[str]) -> bool:
    """Say whether a name is a placeholder: one, several in a row, or one letter over and over."""
    return whole in NO_NAME or NO_NAME.issuperset(words) or _REPEATED.fullmatch(whole) is not None


@cache
def suffix_code(text: str | None) -> str | None:
    """Return the generation a suffix stands for: Jr and II are 2, Sr is 1; degrees give None."""
    words = re.findall(r"[a-z0-9]+", fold(text).replace(".", ""))
    codes = (SUFFIXES.get(word) for word in ("".join(words), *words))
    return next((code for code in codes if code), None)


@cache
def nicknames() -> dict[str, tuple[str, ...]]:
    """Return each known given name with the roots it can stand for.

    A root with a leading ``=`` is a spelling group. Two names are one if they share a root and are not both
    given names in their own right, or share a spelling group: see :data:`GIVEN`.
    """
    roots: dict[str, set[str]] = {}
    for line in _data("nicknames.txt"):
        root, *forms = (fold(word) for word in line.replace("= ", "=").split())
        for form in (root.removeprefix("="), *forms):
            roots.setdefault(form, set()).add(root)
    return {form: tuple(sorted(stems)) for form, stems in roots.items()}


@cache
def full_names() -> frozenset[str]:
    """Return the given names that have pet forms of their own."""
    return frozenset(fold(line.split()[0]) for line in _data("nicknames.txt") if not line.startswith("="))


@cache
def same_name_pairs() -> frozenset[tuple[str, str]]:
    """Return every ordered pair of different given names that may be one person's.

    A given name fits its forms and its spellings. Two forms of one name do not fit each other, nor do two given
    names that share a form: twins are called Ella and Bella, Christian and Christopher.
    """
    pairs = set()
    for line in _data("nicknames.txt"):
        words = [fold(word) for word in line.split()]
        if words[0] == "=":
            pairs |= {(one, other) for one in words[1:] for other in words[1:] if one != other}
        else:
            pairs |= {pair for form in words[1:] for pair in ((words[0], form), (form, words[0]))}
    given = full_names()
    spelled = {pair for pair in pairs if pair[0] in given and pair[1] in given}
    groups = [set(line.split()[1:]) for line in _data("nicknames.txt") if line.startswith("=")]
    return frozenset(pair for pair in pairs if pair not in spelled or any(set(pair) <= group for group in groups))


@dataclass(frozen=True, slots=True)
class Street:
    """A street address, ready to compare."""

    number: str | None
    """House number, or ``box`` number."""
    street: str | None
    """Street in USPS words with directions and type: ``n oak st``; ``pobox`` for a box."""
    core: str | None
    """The same without directions and type: ``oak``."""
    unit: str | None
    """Apartment or suite."""


_NOWHERE = Street(None, None, None, None)
_BOX = re.compile(r"\b(?:p ?o ?)?box ?#? ?([a-z]?\d+[a-z]?)")


def street_address(text: str | None) -> Street:
    """Split a street line. Unlike usaddress-scourgify it never raises: what it cannot read gives None.

    Source: USPS Publication 28, sections 213 (units), 232-237 (directions, suffixes), 28 (boxes), 24 (rural routes).
    """
    plain = " ".join(_WORDS.sub(" ", fold(text).replace(".", "")).split())
    if not plain or plain in NO_ADDRESS or plain.startswith(("homeless", "unknown", "general delivery", "no address")):
        return _NOWHERE
    if "box" in plain:
        rural = re.match(r"(?:rr|r r|rural route|rfd|hc|star route) ?#? ?(\d+)", plain)
        box = _BOX.search(plain)
        if box and not box.group(1).strip("0"):
            return _NOWHERE
        if rural and box:
            return Street(box.group(1), f"rr {rural.group(1)}", f"rr {rural.group(1)}", None)
        if box and not re.match(r"\d+ [a-z]+ (?!box)", plain):
            return Street(box.group(1), "pobox", "pobox", None)
    number, _, rest = plain.partition(" ")
    if not rest or not number[0].isdigit() or number[-2:] in ("st", "nd", "rd", "th"):
        return Street(None, *_split_street(plain))
    return Street(number, *_split_street(rest))


@lru_cache(maxsize=50_000)
def _split_street(plain: str) -> tuple[str | None, str | None, str | None]:
    """Return street, core and unit of a line without its number: streets repeat, so the answers are kept."""
    types, dirs, units, ordinals = _street_words()
    words = plain.split()
    if len(words) > 2 and re.fullmatch(r"1/2|[a-d]", words[0]):
        words.pop(0)
    unit = None
    for index, word in enumerate(words):
        if index and (
            word.startswith("#")
            or (word in units and index + 1 <= len(words) and (index + 1 < len(words) or word in {"ph", "fl"}))
        ):
            unit = "".join(words[index + (0 if word.startswith("#") else 1) :]).replace("#", "") or None
            words = words[:index]
            break
    words = [ordinals.get(word, word) for word in words]
    mapped = [types.get(word, dirs.get(word, word)) if len(words) > 1 else word for word in words]
    street = " ".join(mapped) or None
    core = list(mapped)
    if len(core) > 1 and core[-1] in _values(dirs):
        core.pop()
    if len(core) > 1 and core[-1] in _values(types):
        core.pop()
    if len(core) > 1 and core[0] in _values(dirs):
        core.pop(0)
    if " ".join(core) in NO_ADDRESS:
        return None, None, unit
    return street, "".join(core) or None, unit


@cache
def _street_words() -> tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, str]]:
    maps: dict[str, dict[str, str]] = {"type": {}, "dir": {}, "unit": {}, "ordinal": {}}
    for line in _data("streets.txt"):
        kind, short, *words = line.split()
        for word in (short, *words):
            maps[kind].setdefault(word, short)
    return maps["type"], maps["dir"], maps["unit"], maps["ordinal"]


_value_sets: dict[int, frozenset[str]] = {}


def _values(words: dict[str, str]) -> frozenset[str]:
    if id(words) not in _value_sets:
        _value_sets[id(words)] = frozenset(words.values())
    return _value_sets[id(words)]


def _data(name: str) -> list[str]:
    text = (files("hiexchange.matching") / "data" / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
