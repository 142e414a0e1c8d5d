"""Shared data and small helpers: records, batches, reports, units, retries.

Imports only `errors`, and of third-party libraries only msgspec and tenacity.
"""
