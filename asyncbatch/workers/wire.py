"""The protocol between the main process and a worker, over one socket each way.

Both send pickles behind a length. First comes the work factory; then, for each batch, its parts and
a final None, or an AsyncbatchError. A worker's frame has a second length, of the rows behind the
pickle: these are megabytes, which are copied as rarely as possible.
"""

from __future__ import annotations

import pickle
import signal

LENGTH_BYTES = 4
# Terminals and supervisors send these to workers too, but the main process decides.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def frame(message: object) -> bytes:
    """Return `message` as a pickle behind its length."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(LENGTH_BYTES) + body
