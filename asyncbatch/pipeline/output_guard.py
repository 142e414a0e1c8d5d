"""Checks that outputs do not overwrite inputs, other files that are read, or each other."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from asyncbatch.core.paths import ArchiveMember, is_object_url, is_store_url
from asyncbatch.core.records import STDIN, display_path
from asyncbatch.errors import OutputClashError, UsageError
from asyncbatch.sinks.dead_letters import is_dead_letter, read_dead_letter
from asyncbatch.sinks.folder import output_path
from asyncbatch.sinks.partitions.layout import may_write
from asyncbatch.sources.aliases import FileId, file_id, find_aliases
from asyncbatch.sources.archives import archive_of
from asyncbatch.sources.identity import identity
from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.live.distinct import is_read_with
from asyncbatch.sources.selection import Filter, Selection, has_magic, static_root
from asyncbatch.state.ledger.file import has_read, has_written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asyncbatch.sinks.partitions.layout import PartitionLayout
    from asyncbatch.sinks.target import Target


_ALL_FILES = Selection(("*",), hidden=True)
STDOUT = "standard output"  # the name of an output that the shell has redirected to a file


class OutputGuard:
    """Refuses outputs that would overwrite an input, also by another name of it: a link.

    `files` maps the name of an option to the path of its output file; `check_outputs` has checked
    them. Outputs of an earlier run that lie in an input folder are no inputs: see `is_own_output`.
    `ledger` is the path of the ledger file of a target that is a file. `reads` are other files that
    the run reads. `is_live`: files may come while the run goes on.
    """

    def __init__(
        self,
        files: Mapping[str, str],
        target: Target | None,
        inputs: Inputs,
        ledger: str | None = None,
        *,
        reads: Iterable[str] = (),
        is_live: bool = False,
    ) -> None:
        """Raise UsageError if an output is an input. Reads the folders of the inputs for this."""
        self._ledger = ledger
        self._options = {path: option for option, path in files.items()}
        # By the path of an output. What this run prints is its own.
        self._own: dict[str, bool] = {path: True for name, path in files.items() if name == STDOUT}
        # Now, not while the ledger is open: a file that is closed loses all locks of the process.
        if (own_ledger := files.get("--ledger")) is not None:
            self._own[own_ledger] = self._was_written(own_ledger)
        self.left_out: list[str] = []  # own outputs that were found
        self._names = {
            os.path.basename(name)
            for path in files.values()
            for name in (path, os.path.realpath(path))
        }
        self._is_live, self._ids = is_live, self._output_ids()
        self._aliases: dict[str, str] = {}  # the output by the path of an input that leads to it
        self._layout = None if target is None else target.layout
        self._mirror: _MirrorGuard | None = None
        self._listed_target: Target | None = None  # the folder for files that a list names
        if target is not None and target.layout is not None:
            _check_partitions(target, target.layout, inputs)
        if target is not None and target.form == "folder":
            for argument in inputs.paths:
                _check_location(target, argument, inputs)
            _check_stores(target, inputs)
            self._listed_target = None if inputs.files_from is None else target
            renamed: set[int] | None = None
            if (target.format, target.compression) != ("keep", "keep"):
                renamed = _check_names(target, inputs)
            if not target.is_remote:
                self._mirror = _MirrorGuard(target, inputs, renamed)
        # Whether each input is looked at when it is found, because no search before the run finds
        # it: the list can be read only once, or the file comes later.
        is_once = inputs.files_from is not None and not os.path.isfile(inputs.files_from)
        self._looks_at_each = is_live or is_once or inputs.limit is not None
        for path in inputs.paths if self._ids else ():
            self._note_alias(path)
        self._others = [path for path in inputs.paths if self._output_at(path) is None]
        self._root = inputs.root
        # Files in folders are checked when they are found.
        self.check(path for path in inputs.paths if not self._was_swept_in(path))
        self._check_found(inputs)
        for path in reads:
            if self._mirror is not None and self._mirror.replacing(path) is not None:
                raise _read_error(path)

    def _check_found(self, inputs: Inputs) -> None:
        """Raise UsageError if an input of a folder, a glob or a list would be overwritten."""
        folder = self._output_folder()
        if not self._ids and (folder is None or not os.path.isdir(folder or os.curdir)):
            return
        named = set(inputs.paths)
        for path in find_aliases(inputs, self._ids, self._is_shared):
            if path not in named:
                self._check_alias(path)
            self._check_place(path)

    def _output_ids(self) -> dict[FileId, str]:
        """Return the outputs that exist now, by the identity of their files."""
        return {
            found: path
            for path in self._options
            if os.path.isfile(path) and (found := file_id(path)) is not None
        }

    def _output_folder(self) -> str | None:
        """Return the local folder below which outputs have names of their own, or None."""
        if self._mirror is not None:
            return self._mirror.folder
        root = None if self._layout is None else self._layout.root
        return None if root is None or is_store_url(root) else root

    def _is_shared(self, folder: str) -> bool:
        """Whether outputs may be files of an input folder."""
        return self._mirror is not None and self._mirror.replacing(folder) is not None

    def _note_alias(self, path: str) -> str | None:
        """Remember and return the output that an input is by another name, or None."""
        if path == STDIN or is_object_url(path):
            return None
        file = archive_of(path) or path
        found = file_id(file)
        ids = self._output_ids() if self._is_live else self._ids  # reports are replaced meanwhile
        output = None if found is None else ids.get(found)
        if output is not None:
            self._aliases[file] = self._aliases[path] = output
        return output

    def _check_alias(self, path: str) -> None:
        """Raise UsageError if an input is an output. Own outputs are no inputs, by any name."""
        output = self._note_alias(path)
        if output is not None and not self._is_own(output):
            raise _input_error(path, output)

    def _output_at(self, path: str) -> str | None:
        """Return the output that an input is, or None."""
        file = path.info.archive if isinstance(path, ArchiveMember) else path
        if file in self._aliases:
            return self._aliases[file]
        if self._looks_at_each and (output := self._note_alias(file)) is not None:
            return output
        if os.path.basename(file) not in self._names:
            return None
        return next((output for output in self._options if _is_same(file, output)), None)

    def _was_swept_in(self, path: str) -> bool:
        """Whether an argument is an own output that a glob of the shell has found.

        Then the inputs of the run that wrote it are arguments, too. It is never left out without
        them: the user wants to add to it, and would lose its records.
        """
        output = self._output_at(path)
        if not self._others or output is None or not self.is_own_output(path):
            return False
        option = self._options[output]
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
            if (output := self._output_at(path)) is not None:
                raise _input_error(path, output)
            if self._listed_target is not None:
                output_path(self._listed_target, path)  # raises UsageError outside of the target
            if self._looks_at_each:
                self._check_place(path)
            elif self._layout is not None and may_write(self._layout, path):
                raise _partition_error(path)

    def _check_place(self, path: str) -> None:
        """Raise UsageError if a partition, or the output of an input, may overwrite an input."""
        if path == STDIN or is_object_url(path):
            return
        file = archive_of(path) or path
        if self._layout is not None and may_write(self._layout, os.path.realpath(file)):
            raise _partition_error(file)
        if self._mirror is not None:
            self._mirror.check(file)

    def is_own_output(self, path: str) -> bool:
        """Whether an input that was found is an output of an earlier run of the same command.

        It must be an output, and show that a run wrote it: a target by its ledger, a report, a log,
        a ledger or a dead letter file by its content. Any other file there is the user's own.
        """
        output = self._output_at(path)
        if output is None or not self._is_own(output):
            return False
        if path not in self.left_out:
            self.left_out.append(path)
        return True

    def _is_own(self, output: str) -> bool:
        if output not in self._own:
            self._own[output] = self._was_written(output)
        return self._own[output]

    def _was_written(self, output: str) -> bool:
        option = self._options[output]
        if option == "--to":
            return self._ledger is not None and has_written(self._ledger, output)
        if option == "--ledger" and not os.path.isfile(output):  # the run makes or refuses it
            return True
        try:
            with open(output, "rb") as file:
                start = file.readline(_LINE_BYTES)
        except OSError:
            return False
        if option == "--dead-letter":
            return not start or is_dead_letter(start)
        if option == "--ledger":
            return start.startswith(_SQLITE_START)
        return _REPORT_START.match(start) is not None or is_log(start)


def _input_error(path: str, output: str) -> OutputClashError:
    file = archive_of(path) or path
    has_its_name = os.path.basename(file) == os.path.basename(output)
    same = "" if has_its_name else f"{display_path(output)} is the same file; "
    return OutputClashError(
        f"{display_path(file)} is an input: it cannot be written to ({same}name another output, or "
        "leave the file out with --exclude)"
    )


def _partition_error(path: str) -> UsageError:
    return UsageError(
        f"{display_path(path)} is an input, and may be overwritten by a partition: "
        "name another folder with --to, or leave the file out with --exclude"
    )


def _read_error(path: str) -> OutputClashError:
    return OutputClashError(
        f"{display_path(path)} is read by this run: it cannot be written to (name another output)"
    )


class _MirrorGuard:
    """Refuses inputs that lead into a target folder, to a file that an output would replace.

    Hard links do no harm: an output takes the place of a name, and leaves the file as it is.
    `renamed` has the hashes of the paths of all outputs, if their names are not those of inputs.
    """

    folder: str

    def __init__(self, target: Target, inputs: Inputs, renamed: set[int] | None) -> None:
        self.folder = target.path
        self._root, self._inputs, self._renamed = target.root, inputs, renamed
        self._place = os.path.join(os.path.realpath(target.path), "")
        self._real_folder = lru_cache(maxsize=64)(os.path.realpath)

    def check(self, path: str) -> None:
        """Raise UsageError if an output would overwrite an input."""
        source = self.replacing(path)
        if source is None:
            return
        if source and os.path.abspath(source) == os.path.abspath(path):
            raise _own_output_error(path)
        by = f"the output of {display_path(source)}" if source else "an output"
        raise UsageError(
            f"{display_path(path)} is an input, and would be overwritten by {by}: name a folder "
            "elsewhere with --to, or leave the file out with --exclude"
        )

    def replacing(self, path: str) -> str | None:
        """Return the input whose output replaces the file or folder that a path leads to.

        None if there is none. The name is empty if names change.
        """
        folder, last = os.path.split(path)
        if os.path.islink(path) or last in ("", ".", ".."):
            real = os.path.realpath(path)
        else:
            real = os.path.join(self._real_folder(folder), last)
        name = f"{real}/".removeprefix(self._place).rstrip("/")
        if len(name) == len(real):  # elsewhere
            return None
        if self._renamed is not None and not os.path.isdir(path):
            return "" if hash(os.path.join(self.folder, name)) in self._renamed else None
        root = self._root
        sources = (name, f"/{name}") if root is None else (os.path.join(root, name),)
        return next(filter(self._may_be_input, sources), None)

    def _may_be_input(self, path: str) -> bool:
        """Whether a path exists, and is an argument or below one, as far as it can be told."""
        if not os.path.lexists(path):
            return False
        if self._inputs.files_from is not None or any(map(has_magic, self._inputs.paths)):
            return True
        place = os.path.join(os.path.abspath(path), "")
        arguments = (os.path.join(os.path.abspath(one), "") for one in self._inputs.paths)
        return any(place.startswith(one) or one.startswith(place) for one in arguments)


def is_log(start: bytes) -> bool:
    """Whether the beginning of a file is that of a log of asyncbatch."""
    return _LOG_START.match(start) is not None


_LINE_BYTES = 16 * 1024 * 1024  # far more than a dead letter has
_REPORT_START = re.compile(
    rb'\{"schema_version":\d+,"command":|\{"event":"|\[(\{"check_name":"asyncbatch/|\]$)'
)
_SQLITE_START = b"SQLite format 3\0"
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
        raise _own_output_error(path)


def _own_output_error(path: str) -> UsageError:
    return UsageError(
        f"{display_path(path)} would be overwritten by its own output: name a folder elsewhere "
        "with --to"
    )


def _check_location(target: Target, argument: str, inputs: Inputs) -> None:
    """Raise UsageError if outputs would be inputs of this run or of a later one."""
    if argument == STDIN or (is_object_url(argument) and not is_store_url(argument)):
        return
    path = static_root(argument) if has_magic(argument) else argument
    _check_distinct(target, path)
    _check_outside(target.name, target.path, path, argument, inputs)


def _check_partitions(target: Target, layout: PartitionLayout, inputs: Inputs) -> None:
    """Raise UsageError if partitions would be inputs."""
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


def _check_names(target: Target, inputs: Inputs) -> set[int]:
    """Return the hashes of the paths of all outputs, whose names are not those of inputs.

    Raises UsageError if two inputs would have the same output.
    """
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
    return seen


def check_live_outputs(
    sources: Iterable[str],
    outputs: Mapping[str, str | None],
    read: Iterable[str] = (),
    selection: Selection = _ALL_FILES,
) -> None:
    """Raise UsageError if two output options name one file, or one names an input.

    `sources` are the files and folders that the run follows, `read` other files. Names are compared
    with their links resolved, and existing files by their inodes, because of hard links and
    standard input.
    """
    nameless = (None, "", STDIN)  # "" is a server
    named = {option: path for option, path in outputs.items() if path not in nameless}
    places = check_outputs(named, read)
    ids: dict[FileId, str] = {}
    for place, option in places.items():
        found = file_id(place)
        if found is not None and (other := ids.setdefault(found, option)) != option:
            raise OutputClashError(f"{option} and {other} name the same file: {named[option]}")
    for source in dict.fromkeys(sources):
        clashing = _option_of_input(source, places, ids, selection)
        if clashing is not None:
            path = "" if clashing.endswith(f" {named[clashing]}") else f" {named[clashing]}"
            name = "standard input" if source == STDIN else source
            raise OutputClashError(f"{clashing}{path} would be read as input: it is in {name}")


def _option_of_input(
    source: str, places: Mapping[str, str], ids: Mapping[FileId, str], selection: Selection
) -> str | None:
    """Return the option of an output that is a source or in it, or None.

    `places` has the options by real path, `ids` those of existing files.
    """
    if source == STDIN or not os.path.isdir(source):
        found = file_id(0 if source == STDIN else source)
        if found is not None or source == STDIN:  # standard input may be closed
            return None if found is None else ids.get(found)
        return places.get(os.path.realpath(source))  # a file that does not exist yet
    wanted = Filter(selection)
    for place, option in places.items():
        if is_read_with(source, wanted, place):
            return option
    links = find_aliases(Inputs((source,), selection=selection), ids, lambda _: False)
    options = (ids.get(one) for path in links if (one := file_id(path)) is not None)
    return next(filter(None, options), None)


def check_outputs(
    files: Mapping[str, str], reads: Iterable[str] = (), layout: PartitionLayout | None = None
) -> dict[str, str]:
    """Return the option of each output file by its real path.

    Pipes and devices may repeat, and are left out. Raises UsageError if two options name one file,
    a partition may be one of them, or an output is one of the files that the run `reads`.
    """
    seen: dict[str, str] = {}
    for option, path in files.items():
        if layout is not None and may_write(layout, path):
            raise UsageError(f"{option} {path} may be overwritten by a partition of --to")
        if os.path.exists(path) and not os.path.isfile(path):
            continue
        full = os.path.realpath(path)
        if full in seen:
            raise OutputClashError(f"{option} and {seen[full]} name the same file: {path}")
        seen[full] = option
    for path in filter(os.path.isfile, reads):
        is_partition = layout is not None and may_write(layout, os.path.realpath(path))
        if is_partition or any(_is_same(path, place) for place in seen):
            raise _read_error(path)
    return seen
