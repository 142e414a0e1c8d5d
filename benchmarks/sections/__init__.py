"""The benchmark's parts: each is a function that takes the setting and prints its table."""
