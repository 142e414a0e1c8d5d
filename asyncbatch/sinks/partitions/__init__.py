"""Partitioned targets: one file for each combination of the values of fields.

May import `sinks` and the rooms that `sinks` may import. Workers sort rows into frames by the names
of their files, a stage collects the frames, and the sink writes the files at the end.
"""
