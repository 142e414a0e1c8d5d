"""An engine that runs batches on a Dask cluster.

The only package that imports distributed.
"""
