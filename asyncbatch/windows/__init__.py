"""Event time, watermarks, windows and aggregates: pure computation, no files, no asyncio.

Imports `core`, `storage` and `formats`.
"""
