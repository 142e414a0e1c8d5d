"""Sources of records: files, objects, HTTP APIs, iterables, live files.

May import errors, core, storage, formats, transforms and windows, but not `state`.
"""
