"""Changes and checks of one record after another: jq, calls, fields, schema, dedupe.

Imports `core`, `storage` and `formats`. Each transform is loaded only if it is used.
"""
