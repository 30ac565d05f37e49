"""How good an index and an encoder are: ground truth and metrics, numpy only."""

from .bootstrap import Bootstrap
from .evaluate import evaluate_embeddings, evaluate_ranking, evaluate_within
from .hubs import HubCorrection
from .metrics import ann_recall, hit_rate_at_k, recall_at_k
from .neighbors import exact_top_k
from .protocol import Protocol

__all__ = [
    "Bootstrap",
    "HubCorrection",
    "Protocol",
    "ann_recall",
    "evaluate_embeddings",
    "evaluate_ranking",
    "evaluate_within",
    "exact_top_k",
    "hit_rate_at_k",
    "recall_at_k",
]
