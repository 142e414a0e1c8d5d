"""What the main process and a worker say to each other, over a socket each way.

Both sides speak pickles behind a length. First comes the work factory; then, for each batch,
come its parts and None at its end, or an AsyncbatchError. What a worker says has a second
length and, behind the pickle, so many bytes of rows: megabytes, to be copied as rarely as can be.
"""

from __future__ import annotations

import pickle
import signal

LENGTH_BYTES = 4
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A terminal or a supervisor sends these to workers too, but the main process decides."""


def frame(message: object) -> bytes:
    """Return `message` as it crosses the socket."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(LENGTH_BYTES) + body
