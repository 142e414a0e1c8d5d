"""Live sources, which yield chunks as they arrive: growing files, folders, pipes, simulated events.

May import the same rooms as `sources`.
"""
