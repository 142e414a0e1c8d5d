"""State that survives the process: ledger, checkpoint, lock.

May import `core`, `storage`, `formats`, `transforms` and `windows`.
"""
