"""Where work runs: this process, worker processes, Dask.

Imports `config` and the rooms below it. `tasks/` is the code that a worker executes.
"""
