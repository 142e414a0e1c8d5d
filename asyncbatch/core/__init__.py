"""Shared data and small helpers: records, batches, reports, units, retries.

Imports only `errors`, and no third-party library but msgspec and tenacity.
"""
