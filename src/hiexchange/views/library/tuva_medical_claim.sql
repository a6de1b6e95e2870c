-- @name tuva_medical_claim
-- @title Tuva input layer: medical claims
-- @needs claim_header as header
-- @needs claim_line as line
-- @needs claim_diagnosis as diagnosis
-- @needs claim_procedure as procedure_row
-- @needs claim_care_team as care_team
-- @needs claim_amounts as amount
-- @needs coverage as coverage_row
-- @needs patient_demographics as person
-- @param data_source string
-- Columns and order of tuva-health/tuva at 6be34c7, models/input_layer/medical_claim.yml. One row a line of a
-- claim that is not a pharmacy claim; a claim without lines keeps one row. claim_id is the EOB's key (unique);
-- the payer's own claim id is in the view claim_header. Amounts are exact decimals where Tuva says float.
WITH claim AS (
    SELECT * FROM header WHERE claim_type IS DISTINCT FROM 'pharmacy' AND use IS DISTINCT FROM 'preauthorization'
),
coverage AS (
    SELECT * FROM coverage_row QUALIFY row_number() OVER (PARTITION BY coverage_id ORDER BY last_updated DESC NULLS LAST) = 1
),
diagnoses AS (
    SELECT
        claim_key,
        max(CASE WHEN system LIKE '%icd-10%' THEN 'icd-10-cm' WHEN system LIKE '%icd-9%' THEN 'icd-9-cm' END) AS code_type,
        list(code ORDER BY coalesce(type = 'admitting', false), coalesce(type <> 'principal', true), sequence, diagnosis_index) AS codes,
        list(poa ORDER BY coalesce(type = 'admitting', false), coalesce(type <> 'principal', true), sequence, diagnosis_index) AS poas
    FROM diagnosis WHERE code IS NOT NULL GROUP BY claim_key
),
procedures AS (
    SELECT
        claim_key,
        max(CASE WHEN system ILIKE '%icd10%' OR system ILIKE '%icd-10%' THEN 'icd-10-pcs' WHEN system ILIKE '%icd%' THEN 'icd-9-pcs' END) AS code_type,
        list(code ORDER BY sequence, procedure_index) AS codes,
        list(TRY_CAST(left(date, 10) AS DATE) ORDER BY sequence, procedure_index) AS dates
    FROM procedure_row WHERE code IS NOT NULL GROUP BY claim_key
),
rendering AS (
    SELECT line.claim_key, line.line_index, arg_min(care_team.npi, care_team.sequence) AS npi
    FROM line
    JOIN care_team ON care_team.claim_key = line.claim_key
        AND list_contains(line.care_team_sequences, care_team.sequence)
        AND care_team.role IN ('rendering', 'performing')
    GROUP BY ALL
)
SELECT
    claim.claim_key AS claim_id,
    coalesce(line.line_number, 1) AS claim_line_number,
    CASE WHEN claim.claim_type IN ('institutional', 'professional') THEN claim.claim_type ELSE 'undetermined' END AS claim_type,
    claim.patient_id AS person_id,
    coalesce(coverage.mbi, coverage.subscriber_id, claim.mbi, person.mbi, claim.patient_id) AS member_id,
    coalesce(coverage.payor_name, claim.insurer) AS payer,
    coalesce(coverage.plan_name, coverage.plan, claim.coverage_display) AS plan,
    TRY_CAST(left(claim.billable_start, 10) AS DATE) AS claim_start_date,
    TRY_CAST(left(claim.billable_end, 10) AS DATE) AS claim_end_date,
    TRY_CAST(left(coalesce(line.serviced_start, claim.billable_start), 10) AS DATE) AS claim_line_start_date,
    TRY_CAST(left(coalesce(line.serviced_end, line.serviced_start, claim.billable_end), 10) AS DATE) AS claim_line_end_date,
    TRY_CAST(left(claim.admission_start, 10) AS DATE) AS admission_date,
    TRY_CAST(left(claim.admission_end, 10) AS DATE) AS discharge_date,
    claim.admit_source AS admit_source_code,
    claim.admit_type AS admit_type_code,
    lpad(claim.discharge_status, 2, '0') AS discharge_disposition_code,
    line.place_of_service AS place_of_service_code,
    CASE WHEN length(claim.bill_type) >= 3 THEN claim.bill_type END AS bill_type_code,
    CASE WHEN claim.drg_code IS NOT NULL THEN 'ms-drg' END AS drg_code_type,
    claim.drg_code AS drg_code,
    line.revenue_code AS revenue_center_code,
    CAST(line.quantity AS DECIMAL(38, 6)) AS service_unit_quantity,
    line.hcpcs_code AS hcpcs_code,
    line.modifier_1 AS hcpcs_modifier_1,
    line.modifier_2 AS hcpcs_modifier_2,
    line.modifier_3 AS hcpcs_modifier_3,
    line.modifier_4 AS hcpcs_modifier_4,
    line.modifier_5 AS hcpcs_modifier_5,
    coalesce(rendering.npi, claim.rendering_npi) AS rendering_npi,
    line.tin AS rendering_tin,
    claim.provider_npi AS billing_npi,
    claim.provider_tin AS billing_tin,
    CASE WHEN claim.claim_type = 'institutional' THEN coalesce(claim.facility_npi, claim.provider_npi)
         ELSE claim.facility_npi END AS facility_npi,
    TRY_CAST(claim.payment_date AS DATE) AS paid_date,
    amount.paid AS paid_amount,
    amount.allowed AS allowed_amount,
    amount.charge AS charge_amount,
    amount.coinsurance AS coinsurance_amount,
    amount.copayment AS copayment_amount,
    amount.deductible AS deductible_amount,
    CASE WHEN amount.paid IS NOT NULL THEN amount.paid + coalesce(amount.coinsurance, 0) + coalesce(amount.copayment, 0)
        + coalesce(amount.deductible, 0) END AS total_cost_amount,
    diagnoses.code_type AS diagnosis_code_type,
    diagnoses.codes[1] AS diagnosis_code_1,
    diagnoses.codes[2] AS diagnosis_code_2,
    diagnoses.codes[3] AS diagnosis_code_3,
    diagnoses.codes[4] AS diagnosis_code_4,
    diagnoses.codes[5] AS diagnosis_code_5,
    diagnoses.codes[6] AS diagnosis_code_6,
    diagnoses.codes[7] AS diagnosis_code_7,
    diagnoses.codes[8] AS diagnosis_code_8,
    diagnoses.codes[9] AS diagnosis_code_9,
    diagnoses.codes[10] AS diagnosis_code_10,
    diagnoses.codes[11] AS diagnosis_code_11,
    diagnoses.codes[12] AS diagnosis_code_12,
    diagnoses.codes[13] AS diagnosis_code_13,
    diagnoses.codes[14] AS diagnosis_code_14,
    diagnoses.codes[15] AS diagnosis_code_15,
    diagnoses.codes[16] AS diagnosis_code_16,
    diagnoses.codes[17] AS diagnosis_code_17,
    diagnoses.codes[18] AS diagnosis_code_18,
    diagnoses.codes[19] AS diagnosis_code_19,
    diagnoses.codes[20] AS diagnosis_code_20,
    diagnoses.codes[21] AS diagnosis_code_21,
    diagnoses.codes[22] AS diagnosis_code_22,
    diagnoses.codes[23] AS diagnosis_code_23,
    diagnoses.codes[24] AS diagnosis_code_24,
    diagnoses.codes[25] AS diagnosis_code_25,
    diagnoses.poas[1] AS diagnosis_poa_1,
    diagnoses.poas[2] AS diagnosis_poa_2,
    diagnoses.poas[3] AS diagnosis_poa_3,
    diagnoses.poas[4] AS diagnosis_poa_4,
    diagnoses.poas[5] AS diagnosis_poa_5,
    diagnoses.poas[6] AS diagnosis_poa_6,
    diagnoses.poas[7] AS diagnosis_poa_7,
    diagnoses.poas[8] AS diagnosis_poa_8,
    diagnoses.poas[9] AS diagnosis_poa_9,
    diagnoses.poas[10] AS diagnosis_poa_10,
    diagnoses.poas[11] AS diagnosis_poa_11,
    diagnoses.poas[12] AS diagnosis_poa_12,
    diagnoses.poas[13] AS diagnosis_poa_13,
    diagnoses.poas[14] AS diagnosis_poa_14,
    diagnoses.poas[15] AS diagnosis_poa_15,
    diagnoses.poas[16] AS diagnosis_poa_16,
    diagnoses.poas[17] AS diagnosis_poa_17,
    diagnoses.poas[18] AS diagnosis_poa_18,
    diagnoses.poas[19] AS diagnosis_poa_19,
    diagnoses.poas[20] AS diagnosis_poa_20,
    diagnoses.poas[21] AS diagnosis_poa_21,
    diagnoses.poas[22] AS diagnosis_poa_22,
    diagnoses.poas[23] AS diagnosis_poa_23,
    diagnoses.poas[24] AS diagnosis_poa_24,
    diagnoses.poas[25] AS diagnosis_poa_25,
    procedures.code_type AS procedure_code_type,
    procedures.codes[1] AS procedure_code_1,
    procedures.codes[2] AS procedure_code_2,
    procedures.codes[3] AS procedure_code_3,
    procedures.codes[4] AS procedure_code_4,
    procedures.codes[5] AS procedure_code_5,
    procedures.codes[6] AS procedure_code_6,
    procedures.codes[7] AS procedure_code_7,
    procedures.codes[8] AS procedure_code_8,
    procedures.codes[9] AS procedure_code_9,
    procedures.codes[10] AS procedure_code_10,
    procedures.codes[11] AS procedure_code_11,
    procedures.codes[12] AS procedure_code_12,
    procedures.codes[13] AS procedure_code_13,
    procedures.codes[14] AS procedure_code_14,
    procedures.codes[15] AS procedure_code_15,
    procedures.codes[16] AS procedure_code_16,
    procedures.codes[17] AS procedure_code_17,
    procedures.codes[18] AS procedure_code_18,
    procedures.codes[19] AS procedure_code_19,
    procedures.codes[20] AS procedure_code_20,
    procedures.codes[21] AS procedure_code_21,
    procedures.codes[22] AS procedure_code_22,
    procedures.codes[23] AS procedure_code_23,
    procedures.codes[24] AS procedure_code_24,
    procedures.codes[25] AS procedure_code_25,
    procedures.dates[1] AS procedure_date_1,
    procedures.dates[2] AS procedure_date_2,
    procedures.dates[3] AS procedure_date_3,
    procedures.dates[4] AS procedure_date_4,
    procedures.dates[5] AS procedure_date_5,
    procedures.dates[6] AS procedure_date_6,
    procedures.dates[7] AS procedure_date_7,
    procedures.dates[8] AS procedure_date_8,
    procedures.dates[9] AS procedure_date_9,
    procedures.dates[10] AS procedure_date_10,
    procedures.dates[11] AS procedure_date_11,
    procedures.dates[12] AS procedure_date_12,
    procedures.dates[13] AS procedure_date_13,
    procedures.dates[14] AS procedure_date_14,
    procedures.dates[15] AS procedure_date_15,
    procedures.dates[16] AS procedure_date_16,
    procedures.dates[17] AS procedure_date_17,
    procedures.dates[18] AS procedure_date_18,
    procedures.dates[19] AS procedure_date_19,
    procedures.dates[20] AS procedure_date_20,
    procedures.dates[21] AS procedure_date_21,
    procedures.dates[22] AS procedure_date_22,
    procedures.dates[23] AS procedure_date_23,
    procedures.dates[24] AS procedure_date_24,
    procedures.dates[25] AS procedure_date_25,
    CASE line.network WHEN 'innetwork' THEN 1 WHEN 'outofnetwork' THEN 0 END AS in_network_flag,
    coalesce($data_source, 'fhir') AS data_source,
    claim.source_file AS file_name,
    CAST(claim.last_updated AS DATE) AS file_date,
    CAST(claim.last_updated AT TIME ZONE 'UTC' AS TIMESTAMP) AS ingest_datetime
FROM claim
LEFT JOIN line ON line.claim_key = claim.claim_key
LEFT JOIN amount ON amount.claim_key = claim.claim_key AND amount.level = 'line' AND amount.item_index = line.line_index
LEFT JOIN rendering ON rendering.claim_key = claim.claim_key AND rendering.line_index = line.line_index
LEFT JOIN diagnoses ON diagnoses.claim_key = claim.claim_key
LEFT JOIN procedures ON procedures.claim_key = claim.claim_key
LEFT JOIN coverage ON coverage.coverage_id = claim.coverage_id
LEFT JOIN person ON person.person_id = claim.patient_id
ORDER BY claim_id, claim_line_number
