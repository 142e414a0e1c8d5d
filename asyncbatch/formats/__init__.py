"""Bytes to records and back: JSON, JSON Lines, compression.

Imports `core` and `storage`. The only room that imports orjson, simdjson or a compression library.
"""
