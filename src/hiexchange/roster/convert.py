"""Text columns to typed MEMBER columns by a layout: one generated SQL projection, run batch by batch.

Every rule of conversion and validation is an SQL expression over one row, so a batch of a million
rows costs one pass. A failed check sets one bit of ``flags``; only flagged rows become ISSUE rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

import duckdb
import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.roster.layout import COMPUTED, ColumnRule, Layout
from hiexchange.roster.synonyms import HALF_OPEN, folded
from hiexchange.tables import ATTRIBUTION_BASES, ATTRIBUTION_LEVELS, MEMBER

MBI_SYSTEM = "http://hl7.org/fhir/sid/us-mbi"
DATES = tuple(
    column.name for column in MEMBER.columns if pa.types.is_date32(column.type) and column.name not in COMPUTED
)
DATE_FORMATS = (
    *("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%Y-%m-%dT%H:%M:%S", "%m/%d/%Y %H:%M:%S"),
    *("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%g", "%Y-%m-%dT%H:%M:%SZ", "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p"),
)
NULLS = ("", "NULL", "N/A", "\\N", "NONE")
SEX = {"m": "male", "f": "female", "1": "male", "2": "female", "u": "unknown", "0": "unknown", "o": "other"} | {
    name: name for name in ("male", "female", "other", "unknown")
}
SHARING = dict.fromkeys(("y", "yes", "1", "true", "in", "opt-in", "optin", "opt in"), "opt-in") | dict.fromkeys(
    ("n", "no", "0", "false", "out", "opt-out", "optout", "opt out"), "opt-out"
)
CHANGES = {
    **dict.fromkeys(("new", "add", "added", "a"), "new"),
    **dict.fromkeys(("changed", "change", "c", "update"), "changed"),
    **dict.fromkeys(("nochange", "no change", "unchanged"), "nochange"),
    **dict.fromkeys(("dropped", "drop", "remove", "removed", "term", "terminated", "d", "inactive"), "dropped"),
    **dict.fromkeys(("cancelled", "canceled", "cancel", "void"), "cancelled"),
}

# CMS, "Understanding the MBI": C A AN N A AN N A A N N, letters without S L O I B Z. The one S that CMS
# uses itself, as second character, marks synthetic people.
_A = "[AC-HJKMNP-RT-Y]"
_AN = "[0-9AC-HJKMNP-RT-Y]"
MBI_PATTERN = f"[1-9](?:{_A}|S){_AN}[0-9]{_A}{_AN}[0-9]{_A}{_A}[0-9][0-9]"
HICN_PATTERN = "[0-9]{9}[A-Z][A-Z0-9]?|[A-Z]{1,3}(?:[0-9]{6}|[0-9]{9})"
# 0001-01-01 is what .NET writes for no date.
OPEN_PATTERN = "9999-?[0-9]{2}-?[0-9]{2}.*|[0-9]{1,2}[/-][0-9]{1,2}[/-]9999.*|0[0/.-]*|0001-?01-?01.*"

PLAIN = (
    *("line_of_business", "contract_id", "plan_id", "subscriber_id", "middle_name", "suffix", "address_line", "city"),
    *("zip", "phone", "email", "org_id", "location_id", "samhsa_pref"),
)
"""Columns taken over as trimmed text."""

_DIGIT = "(ascii(substr(s, {0}, 1)) - 48)"
_LUHN = " + ".join(
    f"({_DIGIT.format(i)} * 2 - CASE WHEN {_DIGIT.format(i)} > 4 THEN 9 ELSE 0 END)" if i % 2 else _DIGIT.format(i)
    for i in range(1, 11)
)
MACROS = (
    # 24 is what the prefix 80840 adds to the Luhn sum (45 CFR 162.406, NPI check digit).
    f"CREATE MACRO hx_npi(s) AS (regexp_full_match(s, '[12][0-9]{{9}}') AND (24 + {_LUHN}) % 10 = 0)",
    f"CREATE MACRO hx_open(s) AS regexp_full_match(s, '{OPEN_PATTERN}')",
    "CREATE MACRO hx_part(s) AS (strlen(s)::VARCHAR || ':' || s)",
)


@dataclass(frozen=True)
class Check:
    """One validation: rows for which ``sql`` is true get an ISSUE row."""

    sql: str
    code: str
    column: str
    message: str
    severity: str = "error"


@dataclass
class Plan:
    """How the text columns of one file become MEMBER columns."""

    sql: str
    checks: list[Check]
    constants: dict[str, object] = field(default_factory=dict)
    """MEMBER columns that have one value for the whole file, null included."""

    def errors_mask(self) -> int:
        """Return the bits of ``flags`` that refuse a row."""
        return sum(1 << bit for bit, check in enumerate(self.checks) if check.severity == "error")


def connect() -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB with the macros the projection uses."""
    con = quiet_connection()
    for macro in MACROS:
        con.execute(macro)
    return con


def plan(
    layout: Layout,
    found: dict[str, list[int]],
    header: list[str],
    *,
    payer_id: str,
    as_of: date,
    begin: date,
    width: int,
) -> Plan:
    """Return the projection of one file.

    Args:
        layout: The layout, complete.
        found: What ``columns.sources`` returned.
        header: Header texts of the file.
        payer_id: Payer of rows that do not name one.
        as_of: The day the file speaks of.
        begin: Start of rows that name none: the as-of date, or the first day of a restatement.
        width: Number of text columns.
    """
    builder = _Builder(layout, found, header, payer_id=payer_id, as_of=as_of, begin=begin)
    return builder.plan(width)


class _Builder:
    """Collect one expression per MEMBER column, and the checks."""

    def __init__(
        self, layout: Layout, found: dict[str, list[int]], header: list[str], *, payer_id: str, as_of: date, begin: date
    ) -> None:
        self.layout = layout
        self.found = found
        self.header = header
        self.payer_id = payer_id
        self.as_of = f"DATE '{as_of.isoformat()}'"
        self.begin = f"DATE '{begin.isoformat()}'"
        self.checks: list[Check] = []
        self.texts: dict[str, str] = {}
        self.values: dict[str, str] = {}
        self.constants: dict[str, object] = {}

    def plan(self, width: int) -> Plan:
        for column in MEMBER.columns:
            if column.name not in COMPUTED:
                self.texts[column.name] = self.text(column.name)
        self.texts["ssn"], self.texts["full_name"] = self.text("ssn"), self.text("full_name")
        self.convert()
        self.check()
        texts = ", ".join(f"{sql} AS t_{name}" for name, sql in self.texts.items())
        values = ", ".join(f"{sql} AS {_q(name)}" for name, sql in self.values.items())
        whole = f"concat_ws(chr(31), {', '.join(f'c{number}' for number in range(1, width + 1))})"
        flags = " + ".join(
            f"(CASE WHEN {check.sql} THEN {1 << bit} ELSE 0 END)" for bit, check in enumerate(self.checks)
        )
        varying = [column.name for column in MEMBER.columns if column.name in self.values]
        kept = ", ".join(_q(name) for name in varying if name not in self.constants)
        provider = ", ".join(
            f"coalesce({name}, '')" for name in ("provider_npi", "provider_tin", "org_id", "contract_id", "plan_id")
        )
        sql = f"""
            SELECT row_no, {kept}, member_key, left(sha256(whole), 32) AS row_sha, hash(whole) AS h_row,
                hash(member_key, attribution_level, {provider}) AS h_key, hash(member_key) AS h_member,
                ({flags})::BIGINT AS flags
            FROM (SELECT *, sha256(hx_part(payer_id) || hx_part(member_id_system) || hx_part(member_id)) AS member_key
            FROM (SELECT *, {values} FROM (SELECT *, {texts}, {whole} AS whole FROM raw)))"""
        return Plan(sql, self.checks, self.constants)

    def text(self, target: str) -> str:
        """Return the SQL of a column's text, nulls recognised, codes mapped."""
        rule = self.layout.columns.get(target, ColumnRule())
        numbers = self.found.get(target)
        if not numbers:
            return _literal(rule.constant)
        nulls = ", ".join(_literal(text.upper()) for text in (*NULLS, *rule.nulls))
        parts = [f"(CASE WHEN upper(c{number}) IN ({nulls}) THEN NULL ELSE c{number} END)" for number in numbers]
        sql = parts[0] if len(parts) == 1 else f" || {_literal(rule.separator)} || ".join(parts)
        if rule.pad:
            sql = f"CASE WHEN strlen({sql}) < {rule.pad} THEN lpad({sql}, {rule.pad}, '0') ELSE {sql} END"
        if rule.codes:
            arms = " ".join(f"WHEN {_literal(code.casefold())} THEN {_literal(to)}" for code, to in rule.codes.items())
            sql = f"CASE lower({sql}) {arms} ELSE {sql} END"
        return f"coalesce({sql}, {_literal(rule.constant)})" if rule.constant is not None else sql

    def convert(self) -> None:
        """Write the typed expression of every column, constants apart."""
        for name in PLAIN:
            self.values[name] = f"t_{name}"
        self.values["payer_id"] = f"coalesce(t_payer_id, {_literal(self.payer_id)})"
        usual = _literal(MBI_SYSTEM) if self.id_is_mbi() else f"t_payer_id, {_literal(self.payer_id)}"
        self.values["member_id_system"] = f"coalesce(t_member_id_system, {usual})"
        self.values["member_id"] = _clean_id("t_member_id") if self.id_is_mbi() else "t_member_id"
        mbi = _clean_id("coalesce(t_mbi, t_member_id)" if self.id_is_mbi() else "t_mbi")
        self.values["mbi"] = f"CASE WHEN regexp_full_match({mbi}, '{MBI_PATTERN}') THEN {mbi} END"
        self.values["synthetic"] = f"coalesce(substr({mbi}, 2, 1) = 'S', false)"
        self.names()
        self.values["state"] = "upper(t_state)"
        self.values["sex"] = _mapped("t_sex", SEX)
        self.values["ssn4"] = (
            "CASE WHEN strlen(regexp_replace(t_ssn, '[^0-9]', '', 'g')) = 9 "
            "THEN right(regexp_replace(t_ssn, '[^0-9]', '', 'g'), 4) "
            "WHEN regexp_full_match(t_ssn4, '[0-9]{4}') THEN t_ssn4 END"
        )
        self.values["provider_npi"] = "t_provider_npi"
        self.values["provider_tin"] = "regexp_replace(t_provider_tin, '^([0-9]{2})-([0-9]{7})$', '\\1\\2')"
        level = (
            _literal(self.layout.list.level)
            if self.layout.list.level
            else (
                "CASE WHEN t_provider_npi IS NOT NULL THEN 'clinician' "
                "WHEN t_provider_tin IS NOT NULL THEN 'practice' ELSE 'org' END"
            )
        )
        self.values["attribution_level"] = f"coalesce(lower(t_attribution_level), {level})"
        self.values["basis"] = f"coalesce(lower(t_basis), {_literal(self.layout.list.basis)})"
        self.values["method_text"] = f"coalesce(t_method_text, {_literal(self.layout.list.method)})"
        for name in ("rank", "program_year"):
            self.values[name] = f"try_cast(t_{name} AS SMALLINT)"
        self.values["sharing_pref"] = _mapped("t_sharing_pref", SHARING)
        change = "payer_change_type"
        self.values[change] = f"coalesce({_mapped(f't_{change}', CHANGES)}, t_{change})"
        self.periods()
        self.take_constants()

    def names(self) -> None:
        rest = "trim(split_part(t_full_name, ',', 2))"
        self.values["last_name"] = "coalesce(t_last_name, nullif(trim(split_part(t_full_name, ',', 1)), ''))"
        self.values["first_name"] = f"coalesce(t_first_name, nullif(split_part({rest}, ' ', 1), ''))"

    def periods(self) -> None:
        for name in DATES:
            self.values[name] = self.day(name)
        gone = f"coalesce({_mapped('t_payer_change_type', CHANGES)}, '') IN ('dropped', 'cancelled')"
        sent_to, sent_from = self.values["valid_to"], self.values["valid_from"]
        self.values["sent_from"] = sent_from
        self.values["valid_to"] = (
            f"coalesce({sent_to}, CASE WHEN {_mapped('t_payer_change_type', CHANGES)} = 'dropped' THEN {self.as_of} "
            "ELSE DATE '9999-12-31' END)"
        )
        # Without a start the row speaks of the file's day; a row that only says when it ended, of that end.
        start = f"CASE WHEN {sent_to} IS NOT NULL AND ({gone} OR {sent_to} < {self.begin}) THEN {sent_to} ELSE {self.begin} END"
        self.values["valid_from"] = f"coalesce({sent_from}, {start})"

    def day(self, name: str) -> str:
        """Return the SQL of a date; open ends (9999, 0000) are null."""
        rule = self.layout.columns.get(name, ColumnRule())
        formats = (rule.format,) if isinstance(rule.format, str) and rule.format else rule.format or DATE_FORMATS
        text = f"t_{name}"
        sql = f"try_strptime({text}, [{', '.join(map(_literal, formats))}])"
        if any("%y" in form for form in formats):
            pivot = rule.pivot if rule.pivot is not None else 68
            short = f"year({sql}) % 100"
            century = f"CASE WHEN {short} <= {pivot} THEN 2000 ELSE 1900 END"
            sql = f"({sql} + to_years(({century} + {short} - year({sql}))::INTEGER))"
        else:
            # Otherwise 1/2/60 would be a day of the year 60.
            sql = f"(CASE WHEN year({sql}) >= 1000 THEN {sql} END)"
        sql = f"CASE WHEN hx_open({text}) THEN NULL ELSE try_cast({sql} AS DATE) END"
        if rule.month_end:
            sql = f"last_day({sql})"
        if name in ("valid_to", "coverage_to") and self.inclusive(name, rule):
            return f"({sql}) + 1"
        return sql

    def inclusive(self, name: str, rule: ColumnRule) -> bool:
        """Say whether an end date is the last day (as payers mean it) or the first day after."""
        if rule.inclusive is not None:
            return rule.inclusive
        numbers = self.found.get(name, [])
        return not (numbers and self.header and folded(self.header[numbers[0] - 1]) in HALF_OPEN)

    def take_constants(self) -> None:
        """Lift columns without a source out of the projection: they cost no memory as shared chunks."""
        fed = set(self.found)
        names = {"ssn", "full_name"} & fed
        derived = {"payer_id", "member_id", "member_id_system", "mbi", "synthetic", "attribution_level"}
        derived |= {"basis", "method_text", "valid_from", "valid_to"}
        derived |= {"first_name", "last_name"} if "full_name" in names else set()
        derived |= {"ssn4"} if "ssn" in names else set()
        for column in MEMBER.columns:
            name = column.name
            if name in self.values and name not in fed | derived:
                rule = self.layout.columns.get(name)
                if rule is None or rule.constant is None:
                    self.constants[name] = None
        if "payer_id" not in fed and self._no_constant("payer_id"):
            self.constants["payer_id"] = self.payer_id
            if "member_id_system" not in fed and self._no_constant("member_id_system"):
                self.constants["member_id_system"] = MBI_SYSTEM if self.id_is_mbi() else self.payer_id
        if "basis" not in fed and self._no_constant("basis"):
            self.constants["basis"] = self.layout.list.basis
        if "method_text" not in fed and self._no_constant("method_text"):
            self.constants["method_text"] = self.layout.list.method

    def check(self) -> None:
        """Write the checks. Their order fixes the bits of ``flags``."""
        self.check_ids()
        self.check_mbi()
        self.check_dates()
        self.check_codes()
        for name, rule in self.layout.columns.items():
            if rule.required and name != "member_id" and name in self.texts:
                self._add(f"t_{name} IS NULL", "missing_value", name, "a required value is absent")
        self.checks = [check for check in self.checks if not self._idle(check)]

    def check_ids(self) -> None:
        """Member, provider, and what must not stand in a row."""
        add = self._add
        add("member_id IS NULL", "missing_member_id", "member_id", "the row has no member id")
        add(
            "regexp_full_match(member_id, '[0-9]+([.][0-9]+)?[eE][+][0-9]+')",
            "scientific_notation",
            "member_id",
            "a spreadsheet turned the id into a rounded number",
        )
        add(
            "regexp_full_match(member_id, '[0-9]+[.]0+')",
            "decimal_id",
            "member_id",
            "a program turned the id into a decimal number",
        )
        add(
            "member_id[1] IN (chr(39), '=')",
            "spreadsheet_mark",
            "member_id",
            "the id carries a spreadsheet's mark of text",
        )
        add(
            "regexp_matches(member_id, '[\\x{A0}\\x{200B}-\\x{200F}\\x{2060}\\x{FEFF}]')",
            "invisible_character",
            "member_id",
            "the id holds a character that nobody sees",
        )
        add(
            "provider_npi IS NULL AND provider_tin IS NULL AND org_id IS NULL",
            "missing_provider",
            "provider_npi",
            "the row names no provider: no NPI, no tax id, no organisation",
        )
        npi = (
            "hx_npi(provider_npi)"
            if self.layout.list.npi == "checked"
            else "regexp_full_match(provider_npi, '[0-9]{10}')"
        )
        add(
            f"provider_npi IS NOT NULL AND NOT {npi}",
            "bad_npi",
            "provider_npi",
            "not an NPI: ten digits with a valid check digit",
        )
        add("NOT regexp_full_match(provider_tin, '[0-9]{9}')", "bad_tin", "provider_tin", "not a tax id: nine digits")
        add(
            "(t_ssn IS NOT NULL OR t_ssn4 IS NOT NULL) AND ssn4 IS NULL",
            "bad_ssn",
            "ssn4",
            "not an SSN or its last four digits; left empty",
            "warning",
        )
        add(
            "regexp_matches(whole, '[\\x00-\\x08\\x0B\\x0C\\x0E-\\x1A]')",
            "control_character",
            "member_id",
            "the row holds control characters",
        )

    def check_dates(self) -> None:
        """Days of the calendar, in a possible order."""
        add = self._add
        for name in DATES:
            if name in self.found:
                add(
                    f"t_{name} IS NOT NULL AND {'sent_from' if name == 'valid_from' else self._plain_day(name)} IS NULL "
                    f"AND NOT hx_open(t_{name})",
                    "bad_date",
                    name,
                    "not a date of the calendar in the layout's format",
                )
        add(
            "sent_from IS NOT NULL AND valid_to < valid_from",
            "inverted_period",
            "valid_to",
            "the end is before the start",
        )
        add(
            "sent_from IS NOT NULL AND valid_to = valid_from AND coalesce(payer_change_type, '') NOT IN ('dropped', 'cancelled')",
            "empty_period",
            "valid_to",
            "the period holds no day",
        )
        add("coverage_to <= coverage_from", "inverted_period", "coverage_to", "coverage ends before it starts")
        add(f"birth_on > {self.as_of}", "birth_in_future", "birth_on", "born after the file's as-of date")
        add(
            f"sent_from > {self.as_of} + 3660 OR year(sent_from) < 1900 OR year(birth_on) < 1850",
            "implausible_date",
            "valid_from",
            "a date is not plausible",
            "warning",
        )
        add("deceased_on < valid_from", "deceased", "deceased_on", "attributed after the date of death", "warning")

    def check_codes(self) -> None:
        """Codes and numbers that the layout or our own lists know."""
        add = self._add
        add("t_sex IS NOT NULL AND sex IS NULL", "unknown_code", "sex", "a sex code the layout does not map", "warning")
        add(
            "t_sharing_pref IS NOT NULL AND sharing_pref IS NULL",
            "unknown_code",
            "sharing_pref",
            "a sharing preference the layout does not map: refused, since it may be an opt-out",
        )
        levels, bases = (", ".join(map(_literal, names)) for names in (ATTRIBUTION_LEVELS, ATTRIBUTION_BASES))
        add(f"attribution_level NOT IN ({levels})", "unknown_code", "attribution_level", "not a level of attribution")
        add(f"basis NOT IN ({bases})", "unknown_code", "basis", "not a basis of attribution")
        for name in ("rank", "program_year"):
            add(f"t_{name} IS NOT NULL AND {name} IS NULL", "bad_number", name, "not a whole number")

    def check_mbi(self) -> None:
        text = "coalesce(t_mbi, t_member_id)" if self.id_is_mbi() else "t_mbi"
        bad = f"{text} IS NOT NULL AND mbi IS NULL"
        hicn = f"regexp_full_match({_clean_id(text)}, '{HICN_PATTERN}')"
        severity = "error" if self.id_is_mbi() else "warning"
        tail = "" if severity == "error" else "; left empty"
        self._add(f"{bad} AND {hicn}", "hicn", "mbi", f"an old HIC number, not an MBI{tail}", severity)
        self._add(
            f"{bad} AND NOT {hicn}", "bad_mbi", "mbi", f"not an MBI of 11 characters in CMS's form{tail}", severity
        )
        self._add(f"contains({text}, '-')", "mbi_dashes", "mbi", "an MBI with dashes; read without", "information")
        if self.layout.list.production:
            self._add("synthetic", "synthetic", "mbi", "a synthetic identifier in a production list")

    def id_is_mbi(self) -> bool:
        """Say whether members are known by their MBI: by the layout, or for want of another id."""
        rule = self.layout.columns.get("member_id_system")
        if rule is not None and rule.constant == MBI_SYSTEM:
            return True
        return "mbi" in self.found and self.found.get("member_id") == self.found["mbi"]

    def _plain_day(self, name: str) -> str:
        # valid_to is never null in MEMBER, so the check looks at the date as parsed.
        return f"({self.day(name)})" if name == "valid_to" else name

    def _no_constant(self, name: str) -> bool:
        rule = self.layout.columns.get(name)
        return rule is None or rule.constant is None

    def _idle(self, check: Check) -> bool:
        """Say whether the check's column can never fail because the file does not have it."""
        needs = {
            "sex",
            "provider_tin",
            "provider_npi",
            "rank",
            "program_year",
            "sharing_pref",
            "deceased_on",
            "coverage_to",
        }
        return check.code != "missing_provider" and check.column in needs and check.column in self.constants

    def _add(self, sql: str, code: str, column: str, message: str, severity: str = "error") -> None:
        self.checks.append(Check(f"coalesce({sql}, false)", code, column, message, severity))


def _mapped(text: str, codes: dict[str, str]) -> str:
    arms: dict[str, list[str]] = {}
    for code, value in codes.items():
        arms.setdefault(value, []).append(_literal(code))
    cases = " ".join(
        f"WHEN lower({text}) IN ({', '.join(keys)}) THEN {_literal(value)}" for value, keys in arms.items()
    )
    return f"(CASE {cases} END)"


def _clean_id(text: str) -> str:
    return f"upper(replace(replace({text}, '-', ''), ' ', ''))"


def _literal(text: str | None) -> str:
    return "NULL::VARCHAR" if text is None else "'" + text.replace("'", "''") + "'"


def _q(name: str) -> str:
    return f'"{name}"'
