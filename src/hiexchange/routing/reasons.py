"""Every reason code a decision may carry, in words. No word of it says who the patient is."""

from __future__ import annotations

REASONS: dict[str, str] = {
    # deliver
    "attributed": "a payer's roster attributes the person to this provider",
    # swallowed: the event is no news
    "unchanged": "nothing a recipient cares about changed",
    "duplicate": "the same message was already received",
    "test_patient": "a test patient or a message not meant for production",
    "bed_move": "a move within the facility",
    "cancelled_before_send": "cancelled before anyone was told",
    "superseded": "a newer version of the same event took its place",
    "merge": "two identifiers of one person were joined; a visit did not change",
    # unmatched, unattributed
    "no_person": "the patient of the message is not known to the exchange",
    "no_member": "no payer's member is linked to this person",
    "match_in_review": "a payer's member may be this person, but the link awaits review",
    "no_attribution": "no roster attributes the person to anyone on the day of the event",
    # held by the attribution row
    "suppressed": "the attribution is disputed or suppressed for this provider",
    "not_attributed_then": "the attribution did not hold at the time this subscriber's policy looks at",
    "other_organisation": "the roster attributes the person to this clinician at another organisation",
    "ambiguous_npi": "several organisations name this NPI and nothing says which is meant",
    "payer_opt_out": "the payer reports that the person opted out of sharing",
    "opted_out_of_payer": "the person opted out of sharing on behalf of this payer",
    "attribution_ended": "the attribution ended longer ago than the grace period",
    "stale_roster": "the roster is older than the exchange accepts",
    "beyond_back_fill": "newly attributed, but the event is older than the back-fill limit",
    # held by the gate
    "no_subscription": "attributed, but no subscription names this provider",
    "subscription_inactive": "the subscription is not in force",
    "before_subscription": "it happened before the subscriber's first subscription began",
    "opted_out": "the person opted out of the exchange",
    "no_opt_in": "the person has not opted in",
    "opted_out_of_provider": "the person opted out of sharing with this recipient",
    "unknown_label": "a security label is not known, so nobody may see the event",
    "refrain": "a security label forbids disclosure without a consent directive",
    "inline_labels": "parts of the source carry labels of their own",
    "access_restricted": "the sender restricted access to the visit (ARV)",
    "vip": "the sender marked the patient as needing special protection (PV1-16)",
    "above_ceiling": "the confidentiality is above what this recipient may see",
    "sensitive": "a sensitivity that this recipient's agreement does not admit",
    "part2_no_consent": "42 CFR Part 2 data without a consent that names this recipient",
    "part2_no_notice": "42 CFR Part 2 data, but this channel cannot carry the consent's statement",
    "self_visit": "the recipient's own visit",
    "deceased": "the person had died before the event",
    # held by the subscriber's preference
    "filtered_class": "the subscriber does not want this class of encounter",
    "filtered_trigger": "the subscriber does not want this kind of event",
    "filtered_diagnosis": "no diagnosis the subscriber asked for",
    "filtered_age": "outside the ages the subscriber asked for",
    "age_unknown": "the subscriber filters by age and the birth date is not known",
    "filtered_channel": "no channel of the subscriber carries this kind of event",
}
