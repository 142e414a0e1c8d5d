"""Events put into windows of time: what windows there are, when each is over, what is in it.

Nothing here reads, writes or asks what time it is. Times are whole microseconds since the epoch.
"""
