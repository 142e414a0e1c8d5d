"""What people see: summaries, tables, progress, and displays that redraw themselves."""
