"""A seeded synthetic population that knows its own truth.

Households of invented people with visits, observations and claims; practices, hospitals and
practitioners; two payers whose members overlap and who hand in rosters three times a year. Beside
the data stands what was planted: who each member is, who was attributed to whom on a day, which
notice each practice must get, which discharge was followed up. The truth is written down while the
data is made, by plain Python that shares no code with the stages it judges.

Resource ids are negative, MBIs carry ``S`` as second character, SSNs begin with 999: nobody real.
Memory is bounded: the population is made block by block, each from its own random stream, so the
people of a block are the same whatever the size of the whole.
"""

from __future__ import annotations

from hiexchange.testing.population.generate import Population, generate
from hiexchange.testing.population.truth import Difference, Truth

__all__ = ["Difference", "Population", "Truth", "generate"]
