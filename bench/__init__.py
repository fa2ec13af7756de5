"""Benchmarks: streampush beside a naive Twisted broadcaster, in the same run, one JSON line a result. docs/performance.md."""
