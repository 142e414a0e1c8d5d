"""Event time, watermarks, windows and aggregates.

Pure computation without files or asyncio. May import `core`, `storage` and `formats`.
"""
