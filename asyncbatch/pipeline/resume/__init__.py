"""Resuming of a run: the ledger session, and the rows of unfinished inputs.

May import every room except `cli`.
"""
