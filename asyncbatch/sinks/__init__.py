"""Where rows go: files, tables, dead letters, behind one `Sink`.

Imports `sources`, `state` and the rooms below them.
"""
