"""Benchmarks that compare asyncbatch with its peers on the same jobs."""
