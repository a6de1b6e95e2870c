"""Find each payer member in the exchange's patient index, without ever mixing two people up.

Reading order: :mod:`.normalize` (one value), :mod:`.prepare` (a table), :mod:`.compare` (candidate
pairs and levels), :mod:`.rules` (cascade and guards), :mod:`.weights` (bits), :mod:`.link` (the verb).
"""

from hiexchange.matching.link import match
from hiexchange.matching.review import DECISION
from hiexchange.matching.weights import Weights, load_weights

__all__ = ["DECISION", "Weights", "load_weights", "match"]
