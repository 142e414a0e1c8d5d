"""Checks that outputs do not overwrite inputs, or each other."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from asyncbatch.core.paths import is_object_url, is_store_url
from asyncbatch.core.records import STDIN, display_path
from asyncbatch.errors import UsageError
from asyncbatch.sinks.dead_letters import is_dead_letter, read_dead_letter
from asyncbatch.sinks.folder import output_path
from asyncbatch.sinks.partitions.layout import may_write
from asyncbatch.sources.identity import identity
from asyncbatch.sources.selection import Filter, has_magic, static_root
from asyncbatch.state.ledger.file import has_read, has_written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncbatch.sinks.partitions.layout import PartitionLayout
    from asyncbatch.sinks.target import Target
    from asyncbatch.sources.inputs import Inputs


class OutputGuard:
    """Refuses outputs that would overwrite each other or an input.

    `files` maps the name of an option to the path of its output file. Outputs of an earlier run
    that lie in an input folder are no inputs: see `is_own_output`. `ledger` is the path of the
    ledger file of a target that is a file.
    """

    def __init__(
        self,
        files: Mapping[str, str],
        target: Target | None,
        inputs: Inputs,
        ledger: str | None = None,
    ) -> None:
        """Raise UsageError if two outputs are the same file, or one is an input."""
        _check_outputs(files)
        self._ledger = ledger
        self._options = {path: option for option, path in files.items()}
        self._own: dict[str, bool] = {}  # by the path of an input that is an output
        self.left_out: list[str] = []  # own outputs that were found
        self._files = {
            os.path.basename(name): path
            for path in files.values()
            for name in (path, os.path.realpath(path))
        }
        self._folder: Target | None = None
        self._layout = None if target is None else target.layout
        if target is not None and target.layout is not None:
            _check_partitions(target, target.layout, files, inputs)
        if target is not None and target.form == "folder":
            for argument in inputs.paths:
                _check_location(target, argument, inputs)
            _check_stores(target, inputs)
            if (target.format, target.compression) != ("keep", "keep"):
                _check_names(target, inputs)
            self._folder = target if inputs.files_from is not None else None
        self._others = [path for path in inputs.paths if not self._is_output(path)]
        self._root = inputs.root
        # Files in folders are checked when they are found.
        self.check(path for path in inputs.paths if not self._was_swept_in(path))

    def _is_output(self, path: str) -> bool:
        output = self._files.get(os.path.basename(path))
        return output is not None and _is_same(path, output)

    def _was_swept_in(self, path: str) -> bool:
        """Whether an argument is an own output that a glob of the shell has found.

        Then the inputs of the run that wrote it are arguments, too. It is never left out without
        them: the user wants to add to it, and would lose its records.
        """
        if not self._others or not self.is_own_output(path):
            return False
        option = self._options[self._files[os.path.basename(path)]]
        if option == "--to":
            names = [identity(other, self._root) for other in self._others]
            return self._ledger is not None and has_read(self._ledger, names)
        if option == "--dead-letter":
            with open(path, "rb") as file:
                start = file.readline(_LINE_BYTES)
            return not start or read_dead_letter(start).file in map(display_path, self._others)
        return True

    def check(self, paths: Iterable[str]) -> None:
        """Raise UsageError if an output would overwrite one of these inputs."""
        for path in paths:
            if self._is_output(path):
                raise UsageError(
                    f"{display_path(path)} is an input: it cannot be written to (name another"
                    " output, or leave the file out with --exclude)"
                )
            if self._layout is not None and may_write(self._layout, path):
                raise UsageError(
                    f"{display_path(path)} is an input, and may be overwritten by a partition: "
                    "name another folder with --to, or leave the file out with --exclude"
                )
            if self._folder is not None:
                _check_distinct(self._folder, path)

    def is_own_output(self, path: str) -> bool:
        """Whether an input that was found is an output of an earlier run of the same command.

        It must have the name of an output, and show that a run wrote it: a target by its ledger, a
        report, a log or a dead letter file by its content. Any other file there is the user's own.
        """
        if not self._is_output(path):
            return False
        if path not in self._own:
            output = self._files[os.path.basename(path)]
            self._own[path] = self._was_written(output)
            if self._own[path]:
                self.left_out.append(path)
        return self._own[path]

    def _was_written(self, output: str) -> bool:
        if self._options[output] == "--to":
            return self._ledger is not None and has_written(self._ledger, output)
        try:
            with open(output, "rb") as file:
                start = file.readline(_LINE_BYTES)
        except OSError:
            return False
        if self._options[output] == "--dead-letter":
            return not start or is_dead_letter(start)
        return _REPORT_START.match(start) is not None or is_log(start)


def is_log(start: bytes) -> bool:
    """Whether the beginning of a file is that of a log of asyncbatch."""
    return _LOG_START.match(start) is not None


_LINE_BYTES = 16 * 1024 * 1024  # far more than a dead letter has
_REPORT_START = re.compile(rb'\{"schema_version":\d+,"command":|\{"event":"')
_LOG_START = re.compile(rb'(\{"time": ")?[-0-9]{10}T[0-9:.]{12}Z["\ ]')  # as JSON or as text


def _is_same(path: str, output: str) -> bool:
    if is_object_url(path) or is_store_url(output):
        return path == output
    try:
        return path != STDIN and os.path.isfile(output) and os.path.samefile(path, output)
    except OSError:  # one of them does not exist
        return False


def _check_distinct(target: Target, path: str) -> None:
    """Raise UsageError if the output for `path` is that input itself."""
    if os.path.realpath(output_path(target, path)) == os.path.realpath(path):
        raise UsageError(
            f"{display_path(path)} would be overwritten by its own output: name a folder "
            "elsewhere with --to"
        )


def _check_location(target: Target, argument: str, inputs: Inputs) -> None:
    """Raise UsageError if outputs would be inputs of this run or of a later one."""
    if argument == STDIN or (is_object_url(argument) and not is_store_url(argument)):
        return
    path = static_root(argument) if has_magic(argument) else argument
    _check_distinct(target, path)
    _check_outside(target.name, target.path, path, argument, inputs)


def _check_partitions(
    target: Target, layout: PartitionLayout, files: Mapping[str, str], inputs: Inputs
) -> None:
    """Raise UsageError if partitions would be inputs, or would overwrite another output."""
    for option, path in files.items():
        if may_write(layout, path):
            raise UsageError(f"{option} {path} may be overwritten by a partition of --to")
    for argument in inputs.paths:
        if argument == STDIN or (is_object_url(argument) and not is_store_url(argument)):
            continue
        path = static_root(argument) if has_magic(argument) else argument
        if is_store_url(path) is target.is_remote:
            _check_outside(target.name, layout.root or os.curdir, path, argument, inputs)


def _check_outside(name: str, folder: str, path: str, argument: str, inputs: Inputs) -> None:
    """Raise UsageError if outputs in `folder` would be inputs, found in the folder at `path`."""
    is_remote = is_store_url(folder)
    if is_store_url(path) is not is_remote:
        return
    folder, above = os.path.realpath(folder), os.path.realpath(path)
    is_folder = is_remote or os.path.isdir(path)
    if not is_folder or f"{folder}/".removeprefix(f"{above}/") == f"{folder}/":
        return
    wanted = Filter(inputs.selection)
    below, found = "", True
    for part in filter(None, folder[len(above) :].split("/")):
        found = found and wanted.takes_folder(part, below)
        below += f"{part}/"
    if found:
        raise UsageError(
            f"{name} is inside the input folder {argument}, so its files would be "
            "inputs: name another folder with --to, or exclude this one with --exclude"
        )


def _check_stores(target: Target, inputs: Inputs) -> None:
    """Raise UsageError if inputs of two stores, or of a store and the disk, share an output."""
    seen: list[tuple[str, str, str]] = []
    for argument in inputs.paths:
        store = argument.partition("://")[0] if is_object_url(argument) else ""
        place = output_path(target, argument).rstrip("/") + "/"
        for other_store, other_place, other in seen:
            is_one = place.startswith(other_place) or other_place.startswith(place)
            if is_one and store != other_store:
                raise UsageError(
                    f"files in {display_path(other)} and in {display_path(argument)} would be "
                    f"written to the same places below {target.name}: run them one by one"
                )
        seen.append((store, place, argument))


def _check_names(target: Target, inputs: Inputs) -> None:
    """Raise UsageError if two inputs would have the same output, because names change."""
    if inputs.files_from == STDIN:
        raise UsageError(
            "--to-format and --to-compression change file names, and a list on standard input "
            "cannot be checked beforehand for two outputs of one name: read the list from a file"
        )
    seen: set[int] = set()
    for path in inputs.find_all():  # other shards write into the same folder
        output = output_path(target, path)
        if hash(output) in seen:
            other = next(one for one in inputs.find_all() if output_path(target, one) == output)
            if other != path:
                raise UsageError(
                    f"{display_path(other)} and {display_path(path)} would both be written to "
                    f"{display_path(output)}"
                )
        seen.add(hash(output))


def check_live_outputs(sources: Sequence[str], outputs: Mapping[str, str | None]) -> None:
    """Raise UsageError if two output options name one file, or one names an input."""
    named = {option: path for option, path in outputs.items() if path is not None}
    places = _check_outputs(named)
    for place, option in places.items():
        for source in filter(os.path.exists, sources):
            read = os.path.realpath(source)
            if place == read or (os.path.isdir(read) and place.startswith(os.path.join(read, ""))):
                raise UsageError(
                    f"{option} {named[option]} would be read as input: it is in {source}"
                )


def _check_outputs(files: Mapping[str, str]) -> dict[str, str]:
    """Return the option of each output file by its real path.

    Pipes and devices may repeat, and are left out. Raises UsageError if two options name one file.
    """
    seen: dict[str, str] = {}
    for option, path in files.items():
        if os.path.exists(path) and not os.path.isfile(path):
            continue
        full = os.path.realpath(path)
        if full in seen:
            raise UsageError(f"{option} and {seen[full]} name the same file: {path}")
        seen[full] = option
    return seen
