"""Loads of random records, which must leave the same values however the records come.

`python -m tests.torture` runs many cases (`make torture`); the suite runs a few. Each case is
loaded once by one run with one batch, and once in parts: by several runs that resume, with small
batches, over several files or the pages of an API, with slow records, and with runs that are
killed. Both targets must hold the same columns and values, and each value must be that of its
record. DuckDB, SQLite, PostgreSQL and Python's csv module read the targets.
"""
