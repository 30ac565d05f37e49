"""How good an index and an encoder are: ground truth and metrics, numpy only."""

from .bootstrap import Bootstrap
from .evaluate import evaluate_embeddings, evaluate_ranking
from .exact import exact_top_k
from .metrics import ann_recall, hit_rate_at_k, recall_at_k

__all__ = [
    "Bootstrap",
    "ann_recall",
    "evaluate_embeddings",
    "evaluate_ranking",
    "exact_top_k",
    "hit_rate_at_k",
    "recall_at_k",
]
