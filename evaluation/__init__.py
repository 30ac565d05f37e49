"""How good an index and an encoder are: ground truth and metrics, numpy only."""

from .exact import exact_top_k
from .metrics import ann_recall, hit_rate_at_k, recall_at_k

__all__ = ["ann_recall", "exact_top_k", "hit_rate_at_k", "recall_at_k"]
