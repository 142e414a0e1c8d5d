"""The options of the commands, by section of the help."""
