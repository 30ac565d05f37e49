"""Metrics of the server, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from storage.schema import COLLECTIONS

from .snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server, apart from those of any other in the process.

    Attributes:
        requests: By route, method and status.
        seconds: From the request's headers to the answer's end, by route and class of the status: `2xx`, `4xx`.
        under_way: Requests being worked on.
        at_work: Those of them whose body is whole; read by threads that work only while there are none.
        refused: By reason: `full`, `token`, `host`, `origin`, `body`, `time`.
        batches: Queries that went through one call, by stage: `text`, `image`, `search`.
        known_texts: Text queries whose vector was still known.
        compared: Searches put aside to be compared with the exact search, by outcome: `measured`, `dropped`.
        comparing: Seconds of processor time that this took.
        fallback: By direction, how many operating points wider it is searched than was measured to be enough.
    """

    def __init__(self) -> None:
        self.at_work = 0
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._registry = registry
        self.requests = Counter(
            "twinlens_requests", "Requests answered", ["route", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "twinlens_request_seconds",
            "Seconds from a request to its answer",
            ["route", "status"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.under_way = Gauge("twinlens_requests_under_way", "Requests being worked on", registry=registry)
        self.refused = Counter("twinlens_refused", "Requests refused by a limit", ["reason"], registry=registry)
        self.batches = Histogram(
            "twinlens_batch_queries", "Queries that went through one call", ["stage"], buckets=_SIZES, registry=registry
        )
        self.known_texts = Counter("twinlens_known_texts", "Text queries that needed no encoder", registry=registry)
        self._version = Gauge("twinlens_index_version", "Version of the index that is current", registry=registry)
        self._items = Gauge("twinlens_index_items", "Items in the index", ["collection"], registry=registry)
        self._swaps = Counter("twinlens_index_swaps", "Versions that became current", registry=registry)
        self._failures = Counter("twinlens_index_swap_failures", "Versions that could not be opened", registry=registry)

        self.compared = Counter(
            "twinlens_compared_searches", "Searches to compare with the exact search", ["outcome"], registry=registry
        )
        self.comparing = Counter(
            "twinlens_comparing_seconds", "Processor time spent on comparing searches", registry=registry
        )
        self.fallback = Gauge(
            "twinlens_operating_point_fallback",
            "Operating points wider than measured",
            ["direction"],
            registry=registry,
        )
        cell = ["direction", "ann_recall", "k"]
        self._recall = tuple(
            Gauge(f"twinlens_measured_ann_recall{name}", text, cell, registry=registry)
            for name, text in (
                ("", "Share of the exact hits that searches found"),
                ("_low", "Lower end of its interval"),
                ("_high", "Upper end of its interval"),
                ("_queries", "Searches that it is the mean of"),
            )
        )

    def show_recall(self, labels: Sequence[str], mean: float, low: float, high: float, queries: int) -> None:
        """Show what searches found, by direction, the recall asked for, and the depth."""
        for gauge, value in zip(self._recall, (mean, low, high, queries), strict=True):
            gauge.labels(*labels).set(value)

    def forget_recall(self, labels: Sequence[str] | None = None) -> None:
        """Show no longer what searches found, with these labels or with any."""
        for gauge in self._recall:
            if labels is None:
                gauge.clear()
            else:
                gauge.remove(*labels)

    def swapped(self, snapshot: Snapshot) -> None:
        """Count a version that became the current one."""
        self._version.set(snapshot.number)
        self._swaps.inc()
        for collection in COLLECTIONS:
            self._items.labels(collection).set(snapshot.count(collection))

    def failed(self) -> None:
        """Count a version that could not be opened."""
        self._failures.inc()

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)
