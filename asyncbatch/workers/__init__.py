"""Engines that run work on batches, a bounded number at a time."""
