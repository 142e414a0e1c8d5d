"""The options of commands: flags, defaults, and their conversion to jobs and settings."""
