-- @name tuva_pharmacy_claim
-- @title Tuva input layer: pharmacy claims
-- @needs claim_header as header
-- @needs claim_line as line
-- @needs claim_amounts as amount
-- @needs coverage as coverage_row
-- @needs patient_demographics as person
-- @param data_source string
-- Columns and order of tuva-health/tuva at 6be34c7, models/input_layer/pharmacy_claim.yml. One row a line of a
-- pharmacy claim. Quantities stay decimals where Tuva says integer: half tablets exist.
WITH claim AS (
    SELECT * FROM header WHERE claim_type = 'pharmacy'
),
coverage AS (
    SELECT * FROM coverage_row QUALIFY row_number() OVER (PARTITION BY coverage_id ORDER BY last_updated DESC NULLS LAST) = 1
)
SELECT
    claim.claim_key AS claim_id,
    coalesce(line.line_number, 1) AS claim_line_number,
    claim.patient_id AS person_id,
    coalesce(coverage.mbi, coverage.subscriber_id, claim.mbi, person.mbi, claim.patient_id) AS member_id,
    coalesce(coverage.payor_name, claim.insurer) AS payer,
    coalesce(coverage.plan_name, coverage.plan, claim.coverage_display) AS plan,
    claim.prescribing_npi AS prescribing_provider_npi,
    coalesce(claim.facility_npi, claim.provider_npi) AS dispensing_provider_npi,
    TRY_CAST(left(coalesce(line.serviced_start, claim.billable_start), 10) AS DATE) AS dispensing_date,
    line.ndc_code AS ndc_code,
    CAST(line.quantity AS DECIMAL(38, 6)) AS quantity,
    CAST(CAST(claim.days_supply AS DECIMAL(38, 6)) AS INTEGER) AS days_supply,
    CAST(CAST(claim.refills_authorized AS DECIMAL(38, 6)) AS INTEGER) AS refills,
    TRY_CAST(claim.payment_date AS DATE) AS paid_date,
    amount.paid AS paid_amount,
    amount.allowed AS allowed_amount,
    amount.charge AS charge_amount,
    amount.coinsurance AS coinsurance_amount,
    amount.copayment AS copayment_amount,
    amount.deductible AS deductible_amount,
    CASE line.network WHEN 'innetwork' THEN 1 WHEN 'outofnetwork' THEN 0 END AS in_network_flag,
    coalesce($data_source, 'fhir') AS data_source,
    claim.source_file AS file_name,
    CAST(claim.last_updated AS DATE) AS file_date,
    CAST(claim.last_updated AT TIME ZONE 'UTC' AS TIMESTAMP) AS ingest_datetime
FROM claim
LEFT JOIN line ON line.claim_key = claim.claim_key
LEFT JOIN amount ON amount.claim_key = claim.claim_key AND amount.level = 'line' AND amount.item_index = line.line_index
LEFT JOIN coverage ON coverage.coverage_id = claim.coverage_id
LEFT JOIN person ON person.person_id = claim.patient_id
ORDER BY claim_id, claim_line_number
