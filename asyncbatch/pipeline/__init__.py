"""The run, in the main process: scheduling of batches, delivery of results, resuming.

May import every room except `cli`.
"""
