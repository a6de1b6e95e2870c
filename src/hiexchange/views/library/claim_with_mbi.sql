-- @name claim_with_mbi
-- @title Claim headers with the beneficiary's MBI
-- @needs claim_header as claim
-- @needs patient_demographics as person
-- CMS claims name the Patient only; the MBI stands in the Patient resource.
SELECT coalesce(claim.mbi, person.mbi) AS mbi, claim.* EXCLUDE (mbi)
FROM claim
LEFT JOIN person ON person.person_id = claim.patient_id
ORDER BY claim.claim_key
