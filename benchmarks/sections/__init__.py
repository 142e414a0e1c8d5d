"""The sections of the benchmark: functions that take the setting and print a table."""
