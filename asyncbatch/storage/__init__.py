"""Bytes in and bytes out: local files, object stores, atomic writes.

Imports `core` and `errors` only. No other room imports obstore or boto3.
"""
