"""The commands: a module for each, which converts its options and starts a session."""
