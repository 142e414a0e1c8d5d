"""The work on one batch: read, decode, transform, collect the outcome."""
