"""The transform `jq`: an evaluator of our own for common programs, libjq for the others."""
