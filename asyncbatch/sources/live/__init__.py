"""Sources that do not end: growing files, folders, pipes, generated events."""
