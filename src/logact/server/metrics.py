"""Counts and times of one server process, in the text format that Prometheus reads.

No label comes from a client: names of logs and tokens would let anybody fill the memory of whoever collects.
"""

from __future__ import annotations

from collections.abc import Mapping

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]

HELP = {
    "logact_requests_total": ("counter", "Requests answered, by route and status."),
    "logact_records_appended_total": ("counter", "Records appended, repeats not counted."),
    "logact_record_bytes_appended_total": ("counter", "Bytes of the records appended."),
    "logact_records_read_total": ("counter", "Records sent to readers."),
    "logact_append_errors_total": ("counter", "Records not appended, by error code."),
    "logact_refused_total": (
        "counter",
        "Attempts refused for their token, role, scope, size or rate, by error code.",
    ),
    "logact_slow_clients_cut_total": ("counter", "Connections cut because their client took too long to read."),
    "logact_streams_open": ("gauge", "Streams and long waits open now."),
    "logact_logs_open": ("gauge", "Logs open now."),
    "logact_connections_open": ("gauge", "Connections open now."),
    "logact_append_seconds": ("histogram", "How long a request to append took, from its whole body to its answer."),
}


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.values: dict[str, dict[Labels, float]] = {}
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0

    def add(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        series = self.values.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        series[key] = series.get(key, 0) + by

    def observe_append(self, seconds: float) -> None:
        """Note how long a request to append took."""
        place = next((index for index, most in enumerate(BUCKETS_S) if seconds <= most), len(BUCKETS_S))
        self._buckets[place] += 1
        self._sum_s += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """Everything, as Prometheus reads it."""
        lines: list[str] = []
        for name, (kind, told) in HELP.items():
            lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
            if kind == "histogram":
                lines += self._histogram(name)
            elif kind == "gauge":
                lines.append(f"{name} {gauges.get(name, 0):g}")
            else:
                series = self.values.get(name) or {(): 0.0}
                lines += [f"{name}{_labels(labels)} {value:.15g}" for labels, value in sorted(series.items())]
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> list[str]:
        lines, total = [], 0
        for most, count in zip((*BUCKETS_S, float("inf")), self._buckets, strict=True):
            total += count
            bound = "+Inf" if most == float("inf") else f"{most:g}"
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sum_s:g}", f"{name}_count {total}"]


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
