"""The ledger: which inputs are done, in a file or in the target database."""
