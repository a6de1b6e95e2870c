"""Give payers their data back: intake receipt, matches, performance, scorecard, disputes, and a page."""

from __future__ import annotations

from hiexchange.feedback.compute import Feedback, misdirected, payer_feedback
from hiexchange.feedback.page import render
from hiexchange.feedback.suppress import shareable
from hiexchange.feedback.write import FORMATS, write

__all__ = ["FORMATS", "Feedback", "misdirected", "payer_feedback", "render", "shareable", "write"]
