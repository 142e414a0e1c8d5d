"""Bytes in and bytes out: local files, object stores, atomic writes.

Imports `core`. The only room that imports obstore or boto3.
"""
