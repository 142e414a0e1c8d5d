"""HTTP APIs as sources: settings, requests, pages, retries.

The only package that imports aiohttp, once a source is opened.
"""
