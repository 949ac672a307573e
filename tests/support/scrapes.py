"""A scrape, as Prometheus reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Scrape"]


class Scrape:
    """The samples of one scrape.

    Args:
        text: What the page answered.
    """

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The one sample with these labels and no others; nothing counted yet is 0."""
        return self.by(name).get(frozenset(labels.items()), 0.0)

    def by(self, name: str) -> Mapping[frozenset[tuple[str, str]], float]:
        """All samples of a name, by their labels."""
        return {
            frozenset(sample.labels.items()): sample.value
            for sample in self.samples
            if sample.name == f"contenthub_webhook_{name}"
        }

    def counts(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """What was counted at least once, by the values of these labels, summed over all others."""
        found: Counter[tuple[str, ...]] = Counter()
        for key, value in self.by(name).items():
            found[tuple(dict(key)[label] for label in labels)] += value  # type: ignore[assignment]  # floats count, too
        return {key: value for key, value in found.items() if value}

    @property
    def names(self) -> set[str]:
        """The names of all samples, without those of prometheus-client's own."""
        return {sample.name for sample in self.samples if sample.name.startswith("contenthub_webhook_")}

    @property
    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        """Every series that this scrape makes Prometheus keep."""
        return {(sample.name, frozenset(sample.labels.items())) for sample in self.samples}
