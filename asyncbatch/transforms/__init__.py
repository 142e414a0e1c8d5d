"""Transforms of records: jq programs, user functions, fields, JSON Schema, dedupe.

May import `core`, `storage` and `formats`. Each transform is loaded only if it is used.
"""
