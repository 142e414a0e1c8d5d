"""The observers of a run: log, pings, notices to systemd."""
