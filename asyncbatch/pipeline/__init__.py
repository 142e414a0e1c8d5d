"""The run, in the main process: schedule batches, deliver results, resume.

Imports every room but `cli`.
"""
