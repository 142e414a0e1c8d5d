"""The PostgreSQL sink: its connections, its tables, and COPY.

May import `sinks` and the rooms that `sinks` may import. No module here imports asyncpg when it is
loaded.
"""
