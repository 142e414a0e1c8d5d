"""State that survives the process: ledger, checkpoint, lock.

Imports the ground rooms, `transforms` and `windows`.
"""
