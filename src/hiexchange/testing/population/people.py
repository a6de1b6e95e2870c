"""Invented people in households, practices and practitioners."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from random import Random

LETTERS = "ACDEFGHJKMNPQRTUVWXY"  # MBI letters: no S L O I B Z (CMS, MBI format)
ALPHANUMERIC = LETTERS + "0123456789"

FIRST = {
    "female": (
        "Abril Adaline Amara Anneke Beatrix Bronwen Calla Camila Cecily Dahlia Delphine Edith Eliza Elowen "
        "Esther Fern Flora Freya Gemma Greta Hazel Helena Ines Ingrid Iris Joanna Josephine Juniper Katherine "
        "Lavinia Leona Lidia Linnea Mabel Marguerite Marisol Matilda Nadia Nerys Odette Olive Ottilie Paloma "
        "Petra Phoebe Ramona Rosalind Sabine Saskia Selma Sylvia Thea Tilda Ursula Valentina Vera Wilhelmina "
        "Winona Yara Zelda"
    ).split(),
    "male": (
        "Abel Alaric Ambrose Anselm Arvid Barnaby Bastian Benedict Caspian Cedric Conrad Cormac Dashiell "
        "Desmond Edmund Elias Emeric Evander Fabian Felix Florian Gideon Gregor Hugo Ignatius Isidore Jasper "
        "Joaquin Kasimir Lambert Leander Linus Lorcan Magnus Malachi Mateo Matthias Mordecai Nestor Nico "
        "Octavio Orson Oswin Percival Quentin Rafael Roderick Rufus Santiago Silas Stellan Thaddeus Tobias "
        "Ulric Valerio Viggo Walden Xavier Yorick"
    ).split(),
}
NICKNAMES = {
    "Katherine": "Kate", "Josephine": "Josie", "Wilhelmina": "Mina", "Matilda": "Tilly", "Edith": "Edie",
    "Benedict": "Ben", "Matthias": "Matt", "Thaddeus": "Tad", "Tobias": "Toby", "Percival": "Percy", "Edmund": "Ned",
}  # fmt: skip
_HEADS = (
    "Ash Bar Bex Bram Cal Carn Dal Dun El Fair Fen Gar Gal Hal Har Hol Kes Kin Lan Lor Mar Mel Nor Oak "
    "Pem Quin Ral Ren Sal Sel Tan Thor Ul Ver Wal Wes Win Yar Zan Zel"
).split()
_MIDDLES = ("a ber den er ing lo man ner o per ra ster ten ver wi").split()
_TAILS = ("by combe den dale ford gate ham ley low mere mont more ridge shaw stead ston ton well wick worth").split()
STREETS = (
    "Alder Beech Birch Cedar Chestnut Cypress Dogwood Elm Hawthorn Hickory Juniper Linden Locust Magnolia "
    "Maple Oak Pecan Pine Poplar Sumac Sycamore Walnut Willow Yew"
).split()
STREET_KINDS = ("Street", "Avenue", "Road", "Lane", "Drive", "Court")
CITIES = (
    ("Little Rock", "72201"), ("Little Rock", "72204"), ("Conway", "72032"), ("Fayetteville", "72701"),
    ("Fort Smith", "72901"), ("Jonesboro", "72401"), ("Pine Bluff", "71601"), ("Bentonville", "72712"),
    ("Hot Springs", "71901"), ("Texarkana", "71854"), ("El Dorado", "71730"), ("Searcy", "72143"),
)  # fmt: skip
RACES = (
    ("2106-3", "White"),
    ("2054-5", "Black or African American"),
    ("2028-9", "Asian"),
    ("1002-5", "American Indian or Alaska Native"),
)


@dataclass(frozen=True, slots=True)
class Person:
    """One person as the exchange's patient index holds it; ``number`` is unique and positive."""

    number: int
    first: str
    last: str
    suffix: str
    sex: str
    born: date
    line: str
    city: str
    zip: str
    phone: str
    race: tuple[str, str]
    hispanic: bool
    language: str
    kind: str = "plain"
    """``plain``, ``twin``, ``senior``, ``junior``, ``namesake``, ``namesake-elsewhere``."""
    indexed: bool = True
    """False: on a roster only, unknown to the patient index."""
    extras: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Patient.id: negative, as CMS' sandboxes number synthetic beneficiaries."""
        return f"-{10_000_000 + self.number}"

    @property
    def mbi(self) -> str:
        """A Medicare Beneficiary Identifier of the synthetic form (``S`` second)."""
        digits = self.number
        places: list[str] = []
        for alphabet in (
            "0123456789",
            "0123456789",
            LETTERS,
            LETTERS,
            "0123456789",
            ALPHANUMERIC,
            LETTERS,
            "0123456789",
        ):
            digits, index = divmod(digits, len(alphabet))
            places.append(alphabet[index])
        return f"1S{ALPHANUMERIC[digits % len(ALPHANUMERIC)]}" + "".join(reversed(places))

    @property
    def ssn4(self) -> str:
        """Last four digits of an SSN that begins with 999."""
        return f"{self.number * 7919 % 10_000:04d}"


@dataclass(frozen=True, slots=True)
class Practice:
    """A practice or hospital, with its clinicians' NPIs."""

    number: int
    name: str
    hospital: bool
    npis: tuple[str, ...]
    tin: str

    @property
    def id(self) -> str:
        """Organization.id."""
        return f"-{900_000 + self.number}"

    @property
    def subscriber(self) -> str:
        """Id of its subscription in the demo's configuration."""
        return f"practice-{self.number}"


def npi(base: int) -> str:
    """Return a ten-digit NPI whose check digit is right (Luhn over 80840 + NPI)."""
    body = f"1{base:08d}"
    total = 24 + sum(
        sum(divmod(int(digit) * 2, 10)) if place % 2 == 0 else int(digit) for place, digit in enumerate(reversed(body))
    )
    return body + str(-total % 10)


def practices(population: int) -> tuple[list[Practice], list[Practice]]:
    """Return practices (one a hundred people, at least six) and hospitals (one in eight)."""
    number_of_practices = max(6, population // 100)
    clinics = [
        Practice(
            n, f"{STREETS[n % len(STREETS)]} {'Family Medicine' if n % 2 else 'Primary Care'} {n}", False,
            tuple(npi(99_900_000 + n * 3 + k) for k in range(3)), f"99{n:07d}",
        )
        for n in range(1, number_of_practices + 1)
    ]  # fmt: skip
    hospitals = [
        Practice(
            100_000 + n, f"{CITIES[n % len(CITIES)][0]} Regional Hospital {n}", True,
            tuple(npi(98_000_000 + n * 3 + k) for k in range(2)), f"98{n:07d}",
        )
        for n in range(1, max(2, number_of_practices // 8) + 1)
    ]  # fmt: skip
    return clinics, hospitals


def household(rng: Random, first_number: int, year: int) -> list[Person]:
    """Return the people of one household, numbered from ``first_number``."""
    surname = _surname(rng)
    city, zip_code = rng.choice(CITIES)
    line = f"{rng.randint(100, 9899)} {rng.choice(STREETS)} {rng.choice(STREET_KINDS)}"
    phone = f"501{rng.randint(2_000_000, 9_999_999)}"
    race = rng.choices(RACES, weights=(70, 18, 6, 6))[0]
    hispanic = rng.random() < 0.1
    language = "es" if hispanic and rng.random() < 0.5 else "en"
    people: list[Person] = []

    def add(born: date, *, sex: str | None = None, first: str | None = None, **more: str) -> Person:
        sex = sex or rng.choice(("female", "male"))
        person = Person(
            number=first_number + len(people),
            first=first or _unused_first(rng, sex, people),
            last=surname if rng.random() < 0.85 or more else _surname(rng),
            suffix=more.get("suffix", ""),
            sex=sex,
            born=born,
            line=line,
            city=city,
            zip=zip_code,
            phone=phone,
            race=race,
            hispanic=hispanic,
            language=language,
            kind=more.get("kind", "plain"),
        )
        people.append(person)
        return person

    def day(low: int, high: int) -> date:
        return date(year - rng.randint(low, high), 1, 1) + timedelta(days=rng.randint(0, 364))

    for _ in range(rng.choices((1, 2), weights=(30, 70))[0]):
        add(day(24, 88))
    for _ in range(rng.choices((0, 1, 2, 3), weights=(50, 20, 20, 10))[0]):
        add(day(1, 17))
    if rng.random() < 0.04:
        born = day(2, 60)
        add(born, kind="twin")
        add(born, kind="twin")
    if rng.random() < 0.03:
        first = rng.choice(FIRST["male"])
        senior = add(day(50, 80), sex="male", first=first, kind="senior", suffix="Sr")
        add(
            senior.born + timedelta(days=rng.randint(8_000, 11_000)),
            sex="male",
            first=first,
            kind="junior",
            suffix="Jr",
        )
    return people


def namesakes(rng: Random, first_number: int, year: int) -> tuple[Person, Person]:
    """Return two people of different households with the same name, sex and birth date."""
    first = replace(household(rng, first_number, year)[0], kind="namesake", suffix="")
    city, zip_code = rng.choice(CITIES)
    second = replace(
        first,
        number=first_number + 1,
        kind="namesake-elsewhere",
        line=f"{rng.randint(100, 9899)} {rng.choice(STREETS)} {rng.choice(STREET_KINDS)}",
        city=city,
        zip=zip_code,
        phone=f"501{rng.randint(2_000_000, 9_999_999)}",
    )
    return first, second


def _surname(rng: Random) -> str:
    return rng.choice(_HEADS) + rng.choice(_MIDDLES) + rng.choice(_TAILS)


def _unused_first(rng: Random, sex: str, people: list[Person]) -> str:
    used = {person.first for person in people}
    return rng.choice([name for name in FIRST[sex] if name not in used])
