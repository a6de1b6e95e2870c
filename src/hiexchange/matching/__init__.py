"""Find each payer member in the exchange's patient index, without ever mixing two people up.

Reading order: :mod:`.normalize` (one value), :mod:`.prepare` (a table), :mod:`.compare` (candidate
pairs and levels), :mod:`.rules` (cascade and guards), :mod:`.weights` (bits), :mod:`.audit` (the data's
objections), :mod:`.link` (the verb), :mod:`.review` and :mod:`.merge` (what people and the index say later).
"""

from hiexchange.matching.explain import Explanation, explain
from hiexchange.matching.link import match
from hiexchange.matching.merge import (
    DISCLOSURE,
    PERSON_XREF,
    all_records,
    close_superseded,
    contradicted,
    current,
    follow,
    misdirected,
    relink,
    survivors,
)
from hiexchange.matching.review import DECISION, new_decisions, precision_by_band, queue, read_decisions, write_queue
from hiexchange.matching.score import Policy
from hiexchange.matching.splinked import train_splink
from hiexchange.matching.train import blend, train
from hiexchange.matching.weights import Weights, load_weights

__all__ = [
    "DECISION",
    "DISCLOSURE",
    "PERSON_XREF",
    "Explanation",
    "Policy",
    "Weights",
    "all_records",
    "blend",
    "close_superseded",
    "contradicted",
    "current",
    "explain",
    "follow",
    "load_weights",
    "match",
    "misdirected",
    "new_decisions",
    "precision_by_band",
    "queue",
    "read_decisions",
    "relink",
    "survivors",
    "train",
    "train_splink",
    "write_queue",
]
