"""Streams: events into windows, windows into targets, and checkpoints.

May import every room except `cli`.
"""
