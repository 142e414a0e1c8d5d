"""Bytes to JSON and back: the only package that names a JSON or a compression library."""
