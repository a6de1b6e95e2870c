"""Stage 2 of the measure engine: defines evaluated for many subjects at once, over Arrow columns.

The ELM is the same, the results are the same as stage 1's; what columns cannot hold is left to stage 1,
define by define, and subject by subject where only one subject's data are odd.
"""
