"""Pipeline files: TOML into typed tables, checked before anything runs."""

from asyncbatch.config.pipeline_file.files import PipelineFile, StreamFile
from asyncbatch.config.pipeline_file.load import (
    load_pipeline_file,
    load_stream_file,
    parse_pipeline_file,
    parse_stream_file,
)

__all__ = [
    "PipelineFile",
    "StreamFile",
    "load_pipeline_file",
    "load_stream_file",
    "parse_pipeline_file",
    "parse_stream_file",
]
