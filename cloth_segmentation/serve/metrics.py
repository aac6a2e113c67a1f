"""Numbers for Prometheus."""

from contextlib import AbstractContextManager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from cloth_segmentation.segmenter import Segmenter

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PREFIX = "cloth_segmentation"


class Metrics:
    """What happened since the start, in a registry of its own."""

    def __init__(self, segment: Segmenter, places: int) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            f"{PREFIX}_requests", "Requests that were answered.", ["path", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            f"{PREFIX}_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            f"{PREFIX}_stage_seconds",
            "Time of a photo in a stage, the wait for it included: body, read, network, draw.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.answers = Counter(f"{PREFIX}_answers", "Photos that were segmented.", ["output"], registry=registry)
        self.batches = Histogram(
            f"{PREFIX}_batch_photos",
            "Photos that went through the network at once.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.taken = Gauge(f"{PREFIX}_places_taken", "Requests that have a place.", registry=registry)
        Gauge(f"{PREFIX}_places", "Requests that can have a place at once.", registry=registry).set(places)
        weights = {name: str(value) for name, value in segment.weights().items() if name in ("file", "sha256", "arch")}
        Info(f"{PREFIX}_weights", "The weights in use.", registry=registry).info(weights)

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Take the time of a stage."""
        timer: AbstractContextManager[Any] = self.stages.labels(name).time()
        return timer

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
