"""Where records come from: files, objects, HTTP APIs, iterables, live files.

Imports the ground rooms, `transforms` and `windows`.
"""
