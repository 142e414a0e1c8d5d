"""Streams: events into windows, windows into targets, checkpoints."""
