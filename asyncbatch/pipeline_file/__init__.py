"""Pipeline files: TOML into typed tables, checked before anything runs."""

from asyncbatch.pipeline_file.load import (
    load_pipeline_file,
    load_stream_file,
    parse_pipeline_file,
    parse_stream_file,
)
from asyncbatch.pipeline_file.pipeline import PipelineFile
from asyncbatch.pipeline_file.stream_file import StreamFile

__all__ = [
    "PipelineFile",
    "StreamFile",
    "load_pipeline_file",
    "load_stream_file",
    "parse_pipeline_file",
    "parse_stream_file",
]
