"""The file of `asyncbatch etl`: TOML into typed tables, checked before anything runs."""

from asyncbatch.pipeline_file.load import load_pipeline_file, parse_pipeline_file
from asyncbatch.pipeline_file.pipeline import PipelineFile

__all__ = ["PipelineFile", "load_pipeline_file", "parse_pipeline_file"]
