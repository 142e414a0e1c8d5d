"""Which inputs are done: entries, and where they are kept."""
