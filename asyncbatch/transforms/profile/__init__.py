"""The profile of records: statistics of their fields, and a JSON Schema that they satisfy.

Pure computation. A profile of parts, merged, is the profile of the whole.
"""
