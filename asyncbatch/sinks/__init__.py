"""Targets of rows: files, folders, tables and dead letter files.

May import the rooms `errors`, `core`, `storage`, `formats`, `transforms`, `windows`, `sources` and
`state`.
"""
