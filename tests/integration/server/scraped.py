"""What a server has counted, read as Prometheus does, and waiting until it is so."""

from __future__ import annotations

import time

from prometheus_client.parser import text_string_to_metric_families

WAIT_S = 20.0


class Page:
    """The metrics of a server at one moment."""

    def __init__(self, running, **options):
        status, headers, data = running.request("/metrics", **options)
        assert status == 200, data
        self.media_type = headers["content-type"]
        self.families = list(text_string_to_metric_families(data.decode()))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name, **labels):
        """Add up the samples of a name that have these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def labels(self):
        """All values of all labels, the histograms' bounds aside."""
        return {
            value
            for sample in self.samples
            for name, value in sample.labels.items()
            if name != "le"
        }


def eventually(is_so, what):
    """Wait until something is so."""
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.01)
