"""Bytes to records and back: JSON, JSON Lines, compression.

Imports `storage`, `core` and `errors` only. No other room imports orjson, simdjson or a compression
library.
"""
