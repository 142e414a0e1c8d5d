"""Benchmarks: asyncbatch and its peers at the same job, side by side."""
