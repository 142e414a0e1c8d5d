"""The description of a run: jobs, settings, pipeline files. No work starts here.

Imports `sinks` and the rooms below it.
"""
