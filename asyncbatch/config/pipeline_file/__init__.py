"""Pipeline files: TOML into typed tables, checked before anything runs."""
