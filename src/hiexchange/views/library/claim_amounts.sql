-- @name claim_amounts
-- @title Amounts of claim lines by measure
-- @needs claim_adjudication as adjudication
-- One row a line (line_number null: the claim itself) with charge, allowed, paid, coinsurance, copayment,
-- deductible, as payers of CARIN Blue Button and CMS code them. A payer may give one measure under several
-- categories; the list ranks them, and the amounts of the best rank present are added (a lower rank is the same
-- money split otherwise). Categories that are
-- not listed are added up as `other`: nothing vanishes. Text amounts are exact; sums are DECIMAL(38,18).
-- Codes: `cms` are CMS variables (BFD v2: lower case; v3: upper case), `std` the categories of
-- hl7.terminology adjudication 4.0.1 and C4BBAdjudication 2.1.0 (CARIN Blue Button).
WITH codes (kind, code, measure, rank) AS (
    VALUES
        ('cms', 'line_sbmtd_chrg_amt', 'charge', 1),
        ('cms', 'rev_cntr_tot_chrg_amt', 'charge', 1),
        ('cms', 'tot_rx_cst_amt', 'charge', 1),
        ('cms', 'CLM_LINE_SBMT_CHRG_AMT', 'charge', 1),
        ('cms', 'TOT_RX_CST_AMT', 'charge', 1),
        ('cms', 'clm_tot_chrg_amt', 'charge', 1),
        ('cms', 'CLM_SBMT_CHRG_AMT', 'charge', 1),
        ('cms', 'line_alowd_chrg_amt', 'allowed', 1),
        ('cms', 'tot_rx_cst_amt', 'allowed', 1),
        ('cms', 'CLM_LINE_ALOWD_CHRG_AMT', 'allowed', 1),
        ('cms', 'TOT_RX_CST_AMT', 'allowed', 1),
        ('cms', 'CLM_ALOWD_CHRG_AMT', 'allowed', 1),
        ('cms', 'line_nch_pmt_amt', 'paid', 1),
        ('cms', 'rev_cntr_pmt_amt_amt', 'paid', 1),
        ('cms', 'cvrd_d_plan_pd_amt', 'paid', 1),
        ('cms', 'CLM_LINE_CVRD_PD_AMT', 'paid', 1),
        ('cms', 'line_coinsrnc_amt', 'coinsurance', 1),
        ('cms', 'rev_cntr_coinsrnc_wge_adjstd_c', 'coinsurance', 1),
        ('cms', 'CLM_LINE_MDCR_COINSRNC_AMT', 'coinsurance', 1),
        ('cms', 'CLM_LINE_INSTNL_ADJSTD_AMT', 'coinsurance', 1),
        ('cms', 'CLM_MDCR_COINSRNC_AMT', 'coinsurance', 1),
        ('cms', 'ptnt_pay_amt', 'copayment', 1),
        ('cms', 'line_bene_ptb_ddctbl_amt', 'deductible', 1),
        ('cms', 'rev_cntr_cash_ddctbl_amt', 'deductible', 1),
        ('cms', 'rev_cntr_blood_ddctbl_amt', 'deductible', 1),
        ('cms', 'CLM_LINE_MDCR_DDCTBL_AMT', 'deductible', 1),
        ('cms', 'CLM_LINE_BLOOD_DDCTBL_AMT', 'deductible', 1),
        ('cms', 'CLM_MDCR_DDCTBL_AMT', 'deductible', 1),
        ('std', 'submitted', 'charge', 2),
        ('std', 'eligible', 'allowed', 2),
        ('std', 'benefit', 'paid', 2),
        ('std', 'paidtoprovider', 'paid', 3),
        ('std', 'paidtopatient', 'paid', 3),
        ('std', 'coinsurance', 'coinsurance', 2),
        ('std', 'copay', 'copayment', 2),
        ('std', 'paidbypatient', 'copayment', 3),
        ('std', 'deductible', 'deductible', 2)
),
amounts AS (
    SELECT
        row_number() OVER () AS id,
        claim_key, item_index, line_number, level, category, payer_category,
        CAST(amount AS DECIMAL(38, 18)) AS amount
    FROM adjudication
    WHERE amount IS NOT NULL
),
coded AS (
    -- A category with a CMS variable is read by that alone: CMS files several under one standard code.
    SELECT amounts.*, coalesce(codes.measure, 'other') AS measure, coalesce(codes.rank, 9) AS rank
    FROM amounts
    LEFT JOIN codes ON
        CASE WHEN amounts.payer_category IS NULL THEN codes.kind = 'std' AND codes.code = amounts.category
             ELSE codes.kind = 'cms' AND codes.code = amounts.payer_category END
),
best AS (
    SELECT *, min(rank) OVER (PARTITION BY claim_key, level, item_index, measure) AS best FROM coded
)
SELECT
    claim_key, level, item_index, line_number,
    sum(amount) FILTER (measure = 'charge') AS charge,
    sum(amount) FILTER (measure = 'allowed') AS allowed,
    sum(amount) FILTER (measure = 'paid') AS paid,
    sum(amount) FILTER (measure = 'coinsurance') AS coinsurance,
    sum(amount) FILTER (measure = 'copayment') AS copayment,
    sum(amount) FILTER (measure = 'deductible') AS deductible,
    sum(amount) FILTER (measure = 'other') AS other
FROM best
WHERE rank = best
GROUP BY ALL
ORDER BY claim_key, level, item_index
