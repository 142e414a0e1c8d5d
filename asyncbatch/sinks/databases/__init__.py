"""Tables as targets: SQLite, DuckDB, PostgreSQL, and what they share."""
