"""HTTP APIs as sources: settings, requests, retries, pagination.

May import the same rooms as `sources`. This is the only package that imports aiohttp. `settings`,
`base` and `source` load without aiohttp.
"""
