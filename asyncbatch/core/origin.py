"""The columns that say where a row comes from, and until when its file was there."""

from __future__ import annotations

FILE_COLUMN = "_file"  # the identity of the file of the row, escaped as in a ledger
DELETED_COLUMN = "_deleted_at"  # when the file of the row was found to be gone; null: it is there
OWN_COLUMNS = frozenset((FILE_COLUMN, DELETED_COLUMN))
