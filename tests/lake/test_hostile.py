"""Odd lines, each with the answer the reference asks for; a neighbour never pays for them."""

# ruff: noqa: E501  (JSON lines are whole)

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.lake import decode, restore

GOOD = b'{"resourceType":"Patient","id":"-1","active":true,"name":[{"family":"A","given":["B"]}]}'
REFUSED = {
    "malformed": (b'{"resourceType":"Patient","id":"x",,}', "not-json"),
    "truncated": (b'{"resourceType":"Patient","id":"x","name":[{"fam', "truncated"),
    "truncated_at_brace": (b'{"resourceType":"Patient","id":"x","name":[{"family":"A"}', "truncated"),
    "array": (b'[{"resourceType":"Patient"}]', "not-object"),
    "number": (b"5", "not-object"),
    "bad_utf8": (b'{"resourceType":"Patient","id":"x","gender":"\xff\xfe"}', "bad-utf8"),
    "overlong_utf8": (b'{"resourceType":"Patient","id":"x","gender":"\xc0\xaf"}', "bad-utf8"),
    "raw_surrogate_bytes": (b'{"resourceType":"Patient","id":"x","gender":"\xed\xa0\x80"}', "bad-utf8"),
    "lone_surrogate": (b'{"resourceType":"Patient","id":"x","gender":"\\ud800"}', "lone-surrogate"),
    "lone_surrogate_in_contained": (b'{"resourceType":"Patient","id":"x","contained":[{"s":"\\ud800"}]}', "lone-surrogate"),
    "lone_low_surrogate": (b'{"resourceType":"Patient","id":"x","gender":"\\udc00"}', "lone-surrogate"),
    "duplicate_key": (b'{"resourceType":"Patient","id":"x","id":"y"}', "duplicate-key"),
    "duplicate_nested_key": (b'{"resourceType":"Patient","id":"x","name":[{"family":"A","family":"B"}]}', "duplicate-key"),
    "duplicate_of_unknown": (b'{"resourceType":"Patient","id":"x","foo":1,"foo":2}', "duplicate-key"),
    "other_type": (b'{"resourceType":"Observation","id":"x"}', "wrong-resource-type"),
    "no_type": (b'{"id":"x"}', "wrong-resource-type"),
    "two_documents": (b'{"resourceType":"Patient","id":"x"}{"resourceType":"Patient","id":"y"}', "not-json"),
    "control_character": (b'{"resourceType":"Patient","id":"x\x01"}', "not-json"),
    "leading_zero": (b'{"resourceType":"Patient","id":"x","multipleBirthInteger":01}', "not-json"),
    "nan": (b'{"resourceType":"Patient","id":"x","multipleBirthInteger":NaN}', "not-json"),
    "single_quotes": (b"{'resourceType':'Patient','id':'x'}", "not-json"),
    "comment": (b'{"resourceType":"Patient","id":"x"}//', "not-json"),
    "comma_before_brace": (b'{"resourceType":"Patient","id":"x","maritalStatus":{"text":"a",},"active":true}', "not-json"),
    "comma_before_bracket": (b'{"resourceType":"Patient","id":"x","name":[{"given":["a","b", ]}]}', "not-json"),
    "infinity_for_text": (b'{"resourceType":"Patient","id":"x","gender":-Infinity}', "not-json"),
    "nan_among_texts": (b'{"resourceType":"Patient","id":"x","name":[{"given":["a",NaN]}]}', "not-json"),
    "decimal_with_leading_zero": (b'{"resourceType":"Patient","id":"x","extension":[{"url":"u","valueDecimal":01.5}]}', "not-json"),
    "decimal_ending_in_point": (b'{"resourceType":"Patient","id":"x","extension":[{"url":"u","valueDecimal":1.}]}', "not-json"),
    "decimal_with_a_letter": (b'{"resourceType":"Patient","id":"x","extension":[{"url":"u","valueDecimal":1.5x}]}', "not-json"),
    "escaped_duplicate": (b'{"resourceType":"Patient","id":"x","\\u0069d":"y"}', "duplicate-key"),
    "deep": (b'{"resourceType":"Patient","id":"x","extension":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too-deep"),
}  # fmt: skip
KEPT = {
    "new_field": (b'{"resourceType":"Patient","id":"x","foo":{"a":[1,2.50]}}', "/foo"),
    "scalar_for_array": (b'{"resourceType":"Patient","id":"x","name":"A"}', "/name"),
    "array_for_scalar": (b'{"resourceType":"Patient","id":"x","gender":["male"]}', "/gender"),
    "object_for_text": (b'{"resourceType":"Patient","id":"x","gender":{"a":1}}', "/gender"),
    "text_for_object": (b'{"resourceType":"Patient","id":"x","maritalStatus":"M"}', "/maritalStatus"),
    "text_for_boolean": (b'{"resourceType":"Patient","id":"x","active":"true"}', "/active"),
    "number_for_text": (b'{"resourceType":"Patient","id":"x","gender":5}', "/gender"),
    "integer_out_of_range": (b'{"resourceType":"Patient","id":"x","multipleBirthInteger":3000000000}', "/multipleBirthInteger"),
    "integer_with_point": (b'{"resourceType":"Patient","id":"x","multipleBirthInteger":1.0}', "/multipleBirthInteger"),
    "integer_as_text": (b'{"resourceType":"Patient","id":"x","multipleBirthInteger":"5"}', "/multipleBirthInteger"),
    "explicit_null": (b'{"resourceType":"Patient","id":"x","gender":null}', "/gender"),
    "nested_null": (b'{"resourceType":"Patient","id":"x","name":[{"family":"A","text":null}]}', "/name/0/text"),
    "empty_object": (b'{"resourceType":"Patient","id":"x","maritalStatus":{}}', "/maritalStatus"),
    "empty_array": (b'{"resourceType":"Patient","id":"x","name":[]}', "/name"),
    "spaced_empties": (b'{"resourceType":"Patient","id":"x","name":[{ "family":"A"},{ }]}', "/name/1"),
    "array_of_text_for_text": (b'{"resourceType":"Patient","id":"x","gender":["a","b"]}', "/gender"),
    "array_among_texts": (b'{"resourceType":"Patient","id":"x","name":[{"given":["a",["b"]]}]}', "/name/0/given/1"),
    "object_among_texts": (b'{"resourceType":"Patient","id":"x","name":[{"given":["a",{}]}]}', "/name/0/given/1"),
    "spaced_array_for_text": (b'{"resourceType":"Patient","id":"x","gender":  ["a"]}', "/gender"),
    "boolean_for_text": (b'{"resourceType":"Patient","id":"x","gender":true}', "/gender"),
    "number_for_boolean": (b'{"resourceType":"Patient","id":"x","active":1}', "/active"),
    "text_among_objects": (b'{"resourceType":"Patient","id":"x","name":[{"family":"A"},"b"]}', "/name/1"),
    "name_in_other_case": (b'{"resourceType":"Patient","id":"x","Gender":"male"}', "/Gender"),
    "marked_name": (b'{"resourceType":"Patient","id":"x","extension":[{"url":"u","\x7fueDecimal":"1.5"}]}', "/extension/0/\x7fueDecimal"),
    "text_for_decimal": (b'{"resourceType":"Patient","id":"x","extension":[{"url":"u","valueDecimal":"1.5"}]}', "/extension/0/valueDecimal"),
    "contained_spelled_with_escapes": (b'{"resourceType":"Patient","id":"x","cont\\u0061ined":""}', "/contained"),
    "contained_is_text": (b'{"resourceType":"Patient","id":"x","contained":"[1]"}', "/contained"),
    "ill_typed_item": (b'{"resourceType":"Patient","id":"x","name":[{"given":["a",5]}]}', "/name/0/given/1"),
    "only_odd_below": (b'{"resourceType":"Patient","id":"x","name":[{"foo":1}]}', "/name"),
    "name_with_slash_and_tilde": (b'{"resourceType":"Patient","id":"x","a/b~c":1}', "/a~1b~0c"),
    "number_in_identifier_value": (b'{"resourceType":"Patient","id":"x","identifier":[{"system":"s","value":1.50}]}', "/identifier/0/value"),
    "contained_not_an_array": (b'{"resourceType":"Patient","id":"x","contained":{"resourceType":"Basic"}}', "/contained"),
    "contained_empty": (b'{"resourceType":"Patient","id":"x","contained":[]}', "/contained"),
    "sibling_of_nothing": (b'{"resourceType":"Patient","id":"x","_name":[{"id":"1"}]}', "/_name"),
    "id_is_a_number": (b'{"resourceType":"Patient","id":5}', "/id"),
}  # fmt: skip


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("case", REFUSED)
def test_line_is_refused_and_neighbours_stay(case, fast, encoded):
    line, reason = REFUSED[case]
    alone = encoded(GOOD + b"\n", "Patient", fast=fast)
    result = encoded(GOOD + b"\n" + line + b"\n" + GOOD + b"\n", "Patient", fast=fast)
    (bad,) = result.rejects
    assert (bad.reason, bad.line, bad.offset, bad.raw) == (reason, 2, len(GOOD) + 1, line)
    assert result.batch.num_rows == 2
    assert result.batch.slice(0, 1).equals(alone.batch)
    assert result.batch["__hx_line"].to_pylist() == [1, 3]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("case", KEPT)
def test_odd_member_is_kept_and_comes_back(case, fast, encoded, restored):
    line, pointer = KEPT[case]
    result = encoded(GOOD + b"\n" + line + b"\n" + GOOD + b"\n", "Patient", fast=fast)
    assert not result.rejects
    back = restored(result.batch, "Patient")
    assert restore.equal(back[1], line)
    assert restore.equal(back[0], GOOD)
    assert restore.equal(back[2], GOOD)
    texts = result.batch["__unmapped"].to_pylist()
    assert texts[0] is None
    assert list(json.loads(texts[1])) == [pointer]


KNOWN = b'{"resourceType":"Patient","id":"-9","active":true,"gender":"g","language":"l","multipleBirthInteger":1,"maritalStatus":{"text":"t"},"contained":[{"resourceType":"Basic"}],"name":[{"family":"A","text":"t","given":["B"]}],"identifier":[{"system":"s","value":"v"}],"extension":[{"url":"u","valueDecimal":1.5}]}'


BALANCED = b'{"resourceType":"Patient","id":"x","gender":["a","b"],"language":5}'
"""A text too few beside a text too many."""


@pytest.mark.parametrize("case", [*KEPT, *REFUSED, "balanced"])
def test_odd_lines_are_the_same_when_their_columns_are_known(case, encoded):
    line = {**KEPT, **REFUSED, "balanced": (BALANCED, "")}[case][0]
    text = KNOWN + b"\n" + line + b"\n" + GOOD + b"\n"
    shape = encoded(KNOWN + b"\n", "Patient").shape
    fast, slow = (encoded(text, "Patient", fast=way, shape=shape) for way in (True, False))
    assert fast.batch.equals(slow.batch)
    assert fast.slow_lines == 1
    assert fast.unmapped == slow.unmapped
    assert [bad.reason for bad in fast.rejects] == [bad.reason for bad in slow.rejects]


ACCEPTED = {
    "escaped_json_in_text": b'{"resourceType":"Observation","id":"x","status":"{\\"value\\":1.50,\\"a\\":null}"}',
    "doubly_escaped": b'{"resourceType":"Observation","id":"x","status":"\\\\\\"value\\\\\\":1.50"}',
    "decimal_spellings": b'{"resourceType":"Observation","id":"x","referenceRange":[{"low":{"value":1.00},"high":{"value":1e3}},{"low":{"value":-0},"high":{"value":100}}]}',
    "blanks_round_the_colon": b'{ "resourceType" : "Observation", "id" : "x" ,"valueQuantity" : { "value" : 1.50 , "unit":"a"} }',
    "blanks_after_separators": b'{"resourceType": "Observation", "id": "x", "valueQuantity": {"value": 1.50, "unit": "[lb_av]"}, "identifier": [{"value": "[a, ]"}]}',
    "commas_in_text": b'{"resourceType":"Observation","id":"x","status":"a,} b, ] \\":[","valueQuantity":{"value":-0.0}}',
    "long_number": b'{"resourceType":"Observation","id":"x","valueQuantity":{"value":1.2345678901234567890123456789}}',
    "long_number_with_blank": b'{"resourceType": "Observation", "id": "x", "valueQuantity": {"value": -1234567890123456789012345678.5}}',
    "backslash_before_quote": b'{"resourceType":"Observation","id":"x","status":"C:\\\\","valueQuantity":{"value":1.5,"unit":"\\\\\\""}}',
    "exponents": b'{"resourceType":"Observation","id":"x","referenceRange":[{"low":{"value":-1.5E-7},"high":{"value":0e+0}}]}',
    "crlf": b'{"resourceType":"Observation","id":"x","valueQuantity":{"value":2.0}}\r',
    "trailing_blanks": b'  {"resourceType":"Observation","id":"x"}  ',
    "line_separators": '{"resourceType":"Observation","id":"x","status":"a\u2028b\u0085c"}'.encode(),
    "nul_escape": b'{"resourceType":"Observation","id":"x","status":"a\\u0000b"}',
    "surrogate_pair": b'{"resourceType":"Observation","id":"x","status":"\\ud83d\\ude00"}',
    "tag_character": '{"resourceType":"Observation","id":"x","status":"\ue0001.5","valueQuantity":{"value":1.50}}'.encode(),
    "huge_exponent": b'{"resourceType":"Observation","id":"x","valueQuantity":{"value":1e400}}',
    "many_digits": b'{"resourceType":"Observation","id":"x","valueQuantity":{"value":1234567890123456789012345678901234567890.5}}',
    "sampled_data_and_quantity": b'{"resourceType":"Observation","id":"x","component":[{"valueSampledData":{"origin":{"value":0},"period":10,"factor":2.612,"dimensions":1,"data":"E"}}]}',
    "numeric_text": b'{"resourceType":"Observation","id":"x","identifier":[{"value":"5"}],"valueQuantity":{"value":5}}',
    "contained_with_odd_things": b'{"resourceType":"Observation","id":"x","contained":[ {"resourceType":"Foo","a":null,"v":1.50,"s":"\\u00e9"} ]}',
    "contained_text_in_a_string": b'{"resourceType":"Observation","id":"x","status":"\\"contained\\":[1]","contained":[1]}',
    "contained_empty_in_contained": b'{"resourceType":"Observation","id":"x","contained":[{"contained":[{"a":1}]}],"status":"final"}',
}  # fmt: skip


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("case", ACCEPTED)
def test_legal_oddity_round_trips_typed(case, fast, encoded, restored):
    line = ACCEPTED[case]
    plain = b'{"resourceType":"Observation","id":"-2","valueQuantity":{"value":7.10}}'
    result = encoded(plain + b"\n" + line + b"\n" + plain, "Observation", fast=fast)
    assert not result.rejects
    assert result.batch["__unmapped"].null_count == 3
    back = restored(result.batch, "Observation")
    assert restore.equal(back[1], line)
    assert restore.equal(back[2], plain)


def test_numeric_annotation_is_exact_or_null(encoded):
    numbers = [
        "1.00",
        "1e3",
        "0.0000001",
        "1.0000000",
        "-5",
        "12345678901234567890123456.5",
        "123456789012345678901234567",
    ]
    text = b"".join(
        b'{"resourceType":"Observation","id":"%d","valueQuantity":{"value":%s}}\n' % (index, number.encode())
        for index, number in enumerate(numbers)
    )
    quantity = encoded(text, "Observation").batch["valueQuantity"]
    assert [row["value"] for row in quantity.to_pylist()] == numbers
    found = [None if row["__value_numeric"] is None else str(row["__value_numeric"]) for row in quantity.to_pylist()]
    assert found == [
        "1.000000",
        "1000.000000",
        None,
        "1.000000",
        "-5.000000",
        "12345678901234567890123456.500000",
        None,
    ]


def test_dates_become_their_interval(encoded):
    dates = [
        "2020",
        "2020-02",
        "2020-02-29",
        "2020-02-29T10:00:00Z",
        "2020-02-29T10:00:00.123+02:00",
        "2019-12-31T23:59",
        "x",
    ]
    text = b"".join(
        b'{"resourceType":"Observation","id":"%d","effectiveDateTime":"%s"}\n' % (index, date.encode())
        for index, date in enumerate(dates)
    )
    batch = encoded(text, "Observation").batch
    found = [
        (start and start.isoformat(timespec="milliseconds"), end and end.isoformat(timespec="milliseconds"))
        for start, end in zip(
            batch["__effectiveDateTime_start"].to_pylist(), batch["__effectiveDateTime_end"].to_pylist(), strict=True
        )
    ]
    assert found == [
        ("2020-01-01T00:00:00.000+00:00", "2020-12-31T23:59:59.999+00:00"),
        ("2020-02-01T00:00:00.000+00:00", "2020-02-29T23:59:59.999+00:00"),
        ("2020-02-29T00:00:00.000+00:00", "2020-02-29T23:59:59.999+00:00"),
        ("2020-02-29T10:00:00.000+00:00", "2020-02-29T10:00:00.999+00:00"),
        ("2020-02-29T08:00:00.123+00:00", "2020-02-29T08:00:00.123+00:00"),
        ("2019-12-31T23:59:00.000+00:00", "2019-12-31T23:59:59.999+00:00"),
        (None, None),
    ]


def test_dates_of_a_line_do_not_depend_on_its_neighbours(encoded):
    line = b'{"resourceType":"Observation","id":"1","issued":"2020-02-29 10:00:00Z","effectiveDateTime":"2020-02-29T10:00:00+0200"}\n'
    other = b'{"resourceType":"Observation","id":"2","issued":"2020","effectiveDateTime":"2020"}\n'
    alone, both = encoded(line, "Observation").batch, encoded(line + other, "Observation").batch
    assert both.slice(0, 1).equals(alone)


@given(st.lists(st.binary(max_size=5), max_size=4).map(b"\xc3\xa9".join))
def test_utf8_is_judged_as_python_does(text):
    try:
        text.decode()
    except UnicodeDecodeError:
        assert not decode._is_utf8(text)
    else:
        assert decode._is_utf8(text)


@pytest.mark.parametrize("text", [b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf5\x80\x80\x80"])
def test_utf8_of_surrogates_and_overlong_forms_is_refused(text):
    assert not decode._is_utf8(text)


def test_twenty_megabyte_line_is_a_row(encoded, restored):
    big = b'{"resourceType":"Binary","id":"-1","contentType":"a","data":"' + b"QUJD" * 5_000_000 + b'"}'
    small = b'{"resourceType":"Binary","id":"-2","contentType":"a"}'
    result = encoded(small + b"\n" + big + b"\n" + small + b"\n", "Binary")
    assert result.slow_lines == 0
    assert restored(result.batch, "Binary")[1].count(b"QUJD") == 5_000_000


def test_members_deeper_than_the_cap_are_kept_as_text(encoded, restored):
    inner = b'{"linkId":"x"}'
    for _ in range(40):
        inner = b'{"linkId":"y","item":[' + inner + b"]}"
    line = b'{"resourceType":"Questionnaire","id":"1","item":[' + inner + b"]}"
    for fast in (True, False):
        result = encoded(line + b"\n", "Questionnaire", fast=fast)
        assert result.unmapped
        assert restore.equal(restored(result.batch, "Questionnaire")[0], line)


def test_patient_key_comes_from_the_compartment_reference(encoded):
    references = [
        "Patient/a",
        "https://x.example/fhir/Patient/b",
        "Patient/c/_history/2",
        "urn:uuid:d",
        "Group/e",
        "#f",
    ]
    text = b"".join(
        b'{"resourceType":"Observation","id":"%d","subject":{"reference":"%s"}}\n' % (index, reference.encode())
        for index, reference in enumerate(references)
    )
    assert encoded(text, "Observation").batch["__hx_patient"].to_pylist() == ["a", "b", "c", "d", None, None]


@pytest.mark.parametrize("ident", [b"", b'"id":"",', b'"id":5,'])
def test_resource_without_id_is_keyed_by_its_content(ident, encoded):
    line = b'{"resourceType":"Patient",' + ident + b'"active":true}\n'
    other = line.replace(b"true", b"false")
    first, both = encoded(line, "Patient").batch["__hx_key"], encoded(other + line, "Patient").batch["__hx_key"]
    assert first[0].as_py().startswith("sha256:")
    assert both[0].as_py() != both[1].as_py() == first[0].as_py()
