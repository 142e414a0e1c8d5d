"""The PostgreSQL sink: connections, tables, COPY."""
