-- @name tuva_eligibility
-- @title Tuva input layer: eligibility
-- @needs coverage as coverage
-- @needs patient_demographics as person
-- @param data_source string
-- Columns and order of tuva-health/tuva at 6be34c7, models/input_layer/eligibility.yml. One row a Coverage.
-- person_id is the Patient's key; the SSN is left out on purpose.
SELECT
    coverage.patient_id AS person_id,
    coalesce(coverage.mbi, coverage.subscriber_id, person.mbi, coverage.patient_id) AS member_id,
    coverage.subscriber_id AS subscriber_id,
    CASE WHEN person.sex IN ('male', 'female') THEN person.sex ELSE 'unknown' END AS gender,
    CASE person.race_code
        WHEN '1002-5' THEN 'american indian or alaska native'
        WHEN '2028-9' THEN 'asian'
        WHEN '2054-5' THEN 'black or african american'
        WHEN '2076-8' THEN 'native hawaiian or other pacific islander'
        WHEN '2106-3' THEN 'white'
        WHEN '2131-1' THEN 'other race'
        WHEN 'ASKU' THEN 'asked but unknown'
        WHEN 'UNK' THEN 'unknown'
    END AS race,
    TRY_CAST(person.birth_date AS DATE) AS birth_date,
    TRY_CAST(left(person.deceased_at, 10) AS DATE) AS death_date,
    CAST(person.deceased_at IS NOT NULL AS INTEGER) AS death_flag,
    TRY_CAST(left(coverage.period_start, 10) AS DATE) AS enrollment_start_date,
    TRY_CAST(left(coverage.period_end, 10) AS DATE) AS enrollment_end_date,
    coverage.payor_name AS payer,
    CASE
        WHEN coverage.payor_name ILIKE '%medicaid service%' OR coverage.payor_name ILIKE '%medicare%' THEN 'medicare'
        WHEN coverage.payor_name ILIKE '%medicaid%' THEN 'medicaid'
        ELSE 'commercial'
    END AS payer_type,
    coalesce(coverage.plan_name, coverage.plan, coverage.type_text) AS plan,
    coverage.original_reason_entitlement_code AS original_reason_entitlement_code,
    coverage.dual_status_code AS dual_status_code,
    coverage.medicare_status_code AS medicare_status_code,
    CAST(NULL AS VARCHAR) AS enrollment_status,
    CAST(NULL AS INTEGER) AS hospice_flag,
    CAST(NULL AS INTEGER) AS institutional_snp_flag,
    CAST(NULL AS INTEGER) AS long_term_institutional_flag,
    coverage.group_id AS group_id,
    coverage.group_name AS group_name,
    person.suffix AS name_suffix,
    person.first_name AS first_name,
    person.middle_name AS middle_name,
    person.last_name AS last_name,
    CAST(NULL AS VARCHAR) AS social_security_number,
    coverage.relationship AS subscriber_relation,
    person.address_line AS address,
    person.city AS city,
    person.state AS state,
    person.zip AS zip_code,
    person.phone AS phone,
    person.email AS email,
    person.ethnicity AS ethnicity,
    coalesce($data_source, 'fhir') AS data_source,
    coverage.source_file AS file_name,
    CAST(coverage.last_updated AS DATE) AS file_date,
    CAST(coverage.last_updated AT TIME ZONE 'UTC' AS TIMESTAMP) AS ingest_datetime
FROM coverage
LEFT JOIN person ON person.person_id = coverage.patient_id
ORDER BY person_id, member_id, coverage.coverage_id
