"""What payers and hospitals write becomes what can be compared; what cannot be read becomes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.matching.normalize import family_name, given_name, same_name_pairs, street_address, suffix_code


@pytest.mark.parametrize(
    ("text", "whole", "lead", "suffix"),
    [
        ("José", "jose", "jose", None),
        ("MARY ANN", "maryann", "mary", None),
        ("Dr. Robert Jr.", "robert", "robert", "2"),
        ("O'Shea", "oshea", "oshea", None),
        ("Jean-Luc", "jeanluc", "jean", None),
        ("  ", None, None, None),
        (None, None, None, None),
        ("UNKNOWN", None, None, None),
        ("Unknown Unknown", None, None, None),
        ("XXXXX", None, None, None),
        ("Nameless", None, None, None),
        ("Fnu", None, None, None),
    ],
)
def test_given_names(text: str | None, whole: str | None, lead: str | None, suffix: str | None) -> None:
    name = given_name(text)
    assert (name.whole, name.lead, name.suffix) == (whole, lead, suffix)


@pytest.mark.parametrize(
    ("text", "sex"),
    [
        ("Baby Boy", "m"), ("BABYGIRL", "f"), ("Baby Girl Smith", "f"), ("BB", "m"), ("Newborn", None), ("Twin A", None),
        ("Anna's Baby", None), ("ANNA BABY", None), ("Boy of Anna", "m"), ("FEMALE NEWBORN", "f"), ("Liveborn", None),
    ],
)  # fmt: skip
def test_newborns_have_no_name_but_perhaps_a_sex(text: str, sex: str | None) -> None:
    name = given_name(text)
    assert (name.whole, name.baby, name.sex) == (None, True, sex)


def test_newborns_are_told_apart_by_their_letter() -> None:
    texts = ("Baby Boy A", "BABYBOY 1", "Twin B", "BABYGIRL2", "Baby Boy", "Baby Smith")
    assert [given_name(text).mark for text in texts] == ["a", "a", "b", "b", None, None]


@pytest.mark.parametrize(
    ("text", "whole", "parts", "suffix"),
    [
        ("García-López", "garcialopez", ("garcia", "lopez"), None),
        ("Garcia Lopez", "garcialopez", ("garcia", "lopez"), None),
        ("de la Cruz", "delacruz", ("cruz",), None),
        ("O’Brien", "obrien", (), None),
        ("Smith Jr.", "smith", (), "2"),
        ("Van Dyke III", "vandyke", ("dyke",), "3"),
        ("Groß", "gross", (), None),
        ("Jr Smith", "smith", (), "2"),
        ("SMITHJR", "smith", (), "2"),
        ("Smith V", "smith", (), "5"),
        ("Fujii", "fujii", (), None),
        ("Unknown Unknown", None, (), None),
    ],
)
def test_family_names(text: str, whole: str, parts: tuple[str, ...], suffix: str | None) -> None:
    name = family_name(text)
    assert (name.whole, tuple(part for part in name.parts if name.whole != "obrien"), name.suffix) == (
        whole,
        parts,
        suffix,
    )


def test_suffixes_are_generations_and_degrees_are_not() -> None:
    assert [suffix_code(text) for text in ("Jr.", "II", "Senior", "III", "MD", None)] == [
        "2",
        "2",
        "1",
        "3",
        None,
        None,
    ]
    assert [suffix_code(text) for text in ("Jr MD", "The Second", "M.D.", "J.R.", "Esq, III")] == [
        "2",
        "2",
        None,
        "2",
        "3",
    ]


@pytest.mark.parametrize("pair", [("robert", "bob"), ("margaret", "peggy"), ("sara", "sarah"), ("jose", "joseph")])
def test_one_persons_names(pair: tuple[str, str]) -> None:
    assert pair in same_name_pairs() and pair[::-1] in same_name_pairs()


@pytest.mark.parametrize(
    "pair",
    [("ella", "bella"), ("christian", "christopher"), ("daniel", "danielle"), ("maria", "marie"), ("jayden", "kayden")],
)
def test_names_of_two_people(pair: tuple[str, str]) -> None:
    assert pair not in same_name_pairs()


@pytest.mark.parametrize(
    ("text", "number", "core", "unit"),
    [
        ("123 North Oak Street Apt 4B", "123", "oak", "4b"),
        ("123 N. OAK ST #4B", "123", "oak", "4b"),
        ("PO Box 12 Conway AR", "12", "pobox", None),
        ("P.O. Box 12", "12", "pobox", None),
        ("RR 2 Box 15", "15", "rr 2", None),
        ("homeless", None, None, None),
        ("4 fifth avenue", "4", "5th", None),
        ("500 Martin Luther King Jr Blvd", "500", "martinlutherkingjr", None),
        ("100 St James Pl Ste 200", "100", "stjames", "200"),
    ],
)
def test_street_addresses(text: str, number: str | None, core: str | None, unit: str | None) -> None:
    street = street_address(text)
    assert (street.number, street.core, street.unit) == (number, core, unit)


@given(st.text(max_size=60))
def test_no_text_is_refused(text: str) -> None:
    given_name(text)
    family_name(text)
    suffix_code(text)
    street_address(text)


@given(st.text(alphabet="abcdefghij -'", max_size=20))
def test_case_does_not_matter(text: str) -> None:
    assert given_name(text) == given_name(text.upper())
    assert family_name(text) == family_name(text.upper())
