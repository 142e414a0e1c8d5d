"""Resuming: which inputs are done, and the rows of unfinished ones."""
