"""The options of all commands: one field is a flag, its help, a variable, and a TOML key.

`--help` loads these modules, so they import msgspec, core and errors only.
"""
