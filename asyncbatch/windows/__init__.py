"""Event time, watermarks, windows and aggregates: pure computation, no files, no asyncio.

May import `core`, `storage` and `formats`.
"""
