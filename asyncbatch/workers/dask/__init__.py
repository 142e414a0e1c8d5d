"""Dask as an engine: a scheduler and workers on other machines.

The only package that imports distributed.
"""
