"""The target of `--to`: its location, its form, and its sink."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.core.paths import is_object_url, is_store_url, parse_address, redact_url
from asyncbatch.core.secrets import SERVER_SCHEMES, is_ambiguous_address, redact_address, unquoted
from asyncbatch.core.settings import ServerSettings
from asyncbatch.errors import UsageError
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.sinks.partitions.layout import PartitionLayout, has_braces, parse_layout

if TYPE_CHECKING:
    from asyncbatch.core.ledger_entries import LedgerJob
    from asyncbatch.core.retry import Retrier
    from asyncbatch.core.settings import StoreSettings
    from asyncbatch.sinks.base import (
        BatchSink,
        FolderCompression,
        FolderFormat,
        Form,
        Mode,
        Nested,
        OnDelete,
        SchemaContract,
    )
    from asyncbatch.sinks.columns.schema_contract import SchemaContractCheck
    from asyncbatch.windows.groups import GroupSettings

STDOUT = "-"
KNOWN = "'-', a file (.jsonl, .ndjson, each with .gz, .bz2, .xz or .zst, .csv, .tsv, .parquet), "
KNOWN += "a folder/, one of these at s3://, gs:// or az://, sqlite:///FILE, duckdb:///FILE or "
KNOWN += "postgresql://USER@HOST/DATABASE"

FILE_FORMS: tuple[Form, ...] = ("lines", "csv", "parquet")
_DATABASES: dict[str, Form] = {"sqlite": "sqlite", "duckdb": "duckdb"}
_DATABASE_SUFFIXES = (".db", ".db3", ".sqlite", ".sqlite3", ".duckdb", ".ddb")
_SUFFIXES: dict[str, Form] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


class Target(Struct, frozen=True):
    """A target as an option or a pipeline file names it. Nothing is opened yet."""

    name: str  # for messages, without secrets
    form: Form
    path: str  # a path or an object URL; empty for a server
    table: str | None = None
    key: tuple[str, ...] = ()
    mode: Mode = "append"
    on_delete: OnDelete = "delete"  # of files that are gone, in the mode mirror
    # the limit of these files, "N" or "P%", beyond which a mirror stops; None: the default
    max_delete: str | None = None
    contract: SchemaContract = "evolve"
    columns: tuple[str, ...] | None = None  # the columns of a CSV file
    csv_safe: bool = False  # whether cells of a CSV file that would be formulas become texts
    null_value: str | None = None  # the text of null in a CSV file; None: an empty cell
    nested: Nested | None = None  # the form of nested values in a Parquet file; None: native
    format: FolderFormat = "keep"  # the format of a folder's outputs
    compression: FolderCompression = "keep"  # the compression of a folder's outputs
    root: str | None = None  # the outputs of a folder are named relative to this input folder
    address: str = ""  # the address of a server, with its password
    server: ServerSettings = ServerSettings()  # the settings of the server's sessions
    # write the records' values into columns GENERATED ALWAYS AS IDENTITY
    override_identity: bool = False
    # the connection to object stores, if it differs from the inputs'
    stores: StoreSettings | None = None
    # columns that a new table gets with the time type of its database, also in a key
    times: tuple[str, ...] = ()
    # the aggregates of all records, which are written in their place (`sinks/groups`)
    groups: GroupSettings | None = None
    layout: PartitionLayout | None = None  # of a file for each value of fields in its name

    @classmethod
    def parse(cls, name: str, **options: Any) -> Target:
        """Return the target with this name. Raises UsageError, which lists accepted forms."""
        form, path = parse_location(name)
        if form == "postgres":
            target = cls(redact_address(name), form, path, address=name, **options)
        elif form in FILE_FORMS and has_braces(name):
            layout = parse_layout(name)
            if isinstance(layout, PartitionLayout):
                options["layout"] = layout
            target = cls(name, form, path, **options)
        else:
            target = cls(name, form, path, **options)
        target.check()
        return target

    @property
    def is_table(self) -> bool:
        """Whether records are rows: objects whose fields become columns."""
        if self.groups is not None:
            return False
        return self.form in ("csv", "parquet", "program") or self.is_database

    @property
    def columns_grow(self) -> bool:
        """Whether new fields of later rows become columns."""
        return self.is_table and self.form not in ("csv", "program")

    @property
    def keeps_loads(self) -> bool:
        """Whether loaded rows stay in the target, also if the run fails."""
        if self.groups is not None:
            return False
        stays = self.form in ("stdout", "folder", "program")
        return stays or (self.is_database and self.mode != "replace")

    @property
    def replaces_rows(self) -> bool:
        """Whether rows replace earlier ones of the same key, and all others stay."""
        return self.is_database and self.mode == "upsert"

    @property
    def has_sink(self) -> bool:
        """Whether the main process writes to the target."""
        return self.form not in ("folder", "parts")

    @property
    def is_remote(self) -> bool:
        """Whether the target is an object or a prefix in an object store."""
        return is_store_url(self.path)

    @property
    def is_absent(self) -> bool:
        """Whether the target is one file of this machine, and this file is not there."""
        is_elsewhere = self.is_remote or self.form in ("postgres", "program", "stdout")
        return not is_elsewhere and self.layout is None and not os.path.exists(self.path)

    @property
    def location(self) -> str:
        """A text that is equal for all spellings of the same location on this machine."""
        return self.path if self.is_remote else os.path.realpath(self.path)

    @property
    def is_database(self) -> bool:
        """Whether the target is a database."""
        return self.form in ("sqlite", "duckdb", "postgres")

    def __repr__(self) -> str:
        """Return a text without the address, which may have a password."""
        return f"Target({self.name!r}, table={self.table!r}, key={self.key!r}, mode={self.mode!r})"

    def check(self) -> None:
        """Raise UsageError if settings contradict each other."""
        if self.is_database:
            if not self.table:
                raise UsageError(f"--to {self.name} needs --table NAME")
            if self.mode == "upsert" and not self.key:
                raise UsageError("--mode upsert needs --key: the fields that identify a row")
        elif self._is_mirrored_folder:
            self._check_mirrored_folder()
        elif self.table or self.key or self.mode != "append" or self.contract != "evolve":
            raise UsageError(self._refused_options())
        if self.mode == "mirror":
            self._check_mirror()
        elif (self.on_delete, self.max_delete) != ("delete", None):
            raise UsageError("--on-delete and --max-delete need --mode mirror")
        texts = ".csv and .tsv targets"
        for option, is_given, form, targets in (
            ("--override-identity", self.override_identity, "postgres", "postgresql://"),
            ("--columns", self.columns is not None, "csv", texts),
            ("--csv-safe", self.csv_safe, "csv", texts),
            ("--null-value", self.null_value is not None, "csv", texts),
            ("--nested", self.nested is not None, "parquet", ".parquet targets"),
        ):
            if is_given and self.form != form:
                raise UsageError(f"{option} is for {targets}")
        if not set('",\t\r\n').isdisjoint(self.null_value or ""):
            raise UsageError("--null-value: a comma, tab, quote or line end would need quotes")
        if self.form != "folder" and (self.format, self.compression) != ("keep", "keep"):
            raise UsageError("--to-format and --to-compression are for folders: --to out/")

    def _refused_options(self) -> str:
        """Return the message about the options of a database that this target has."""
        by_key = bool(self.key) and self.mode == "upsert"  # the mode that a key chooses
        given = {
            "--table": self.table,
            "--key": self.key,
            f"--mode {self.mode}": self.mode != "append" and not by_key,
            "--schema-contract": self.contract != "evolve",
        }
        *others, last = [name for name, value in given.items() if value]
        names = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        more = ", and for folders: --to out/" if last == "--mode mirror" else ""
        return f"{names} for databases: sqlite:///, duckdb:///, postgresql://{more}"

    @property
    def _is_mirrored_folder(self) -> bool:
        return self.form == "folder" and self.mode == "mirror"

    def _check_mirrored_folder(self) -> None:
        if self.table or self.key or self.contract != "evolve":
            raise UsageError("--table, --key and --schema-contract are for databases")
        if self.is_remote:
            raise UsageError(
                f"--mode mirror is for databases and folders of this machine, not {self.name}"
            )
        if self.on_delete == "mark":
            raise UsageError("--on-delete mark is for databases: a file has no column")

    def _check_mirror(self) -> None:
        """Raise UsageError for the key or the limit of a mirror."""
        from asyncbatch.core.origin import OWN_COLUMNS
        from asyncbatch.sinks.databases.mirror import DEFAULT_MAX_DELETE, MaxDelete

        if own := OWN_COLUMNS & {name.lower() for name in self.key}:
            raise UsageError(f"--mode mirror sets {min(own)} itself: it cannot be in --key")
        try:
            MaxDelete.parse(self.max_delete or DEFAULT_MAX_DELETE)
        except ValueError as error:
            raise UsageError(f"--max-delete: {error}") from None

    def open_sink(  # noqa: PLR0911 - one return for each form
        self,
        job: LedgerJob | None = None,
        retrier: Retrier | None = None,
        contract: SchemaContractCheck | None = None,
        stores: StoreSettings | None = None,
        *,
        sorts_columns: bool = False,
    ) -> BatchSink[Any]:
        """Return the sink, which writes in the main process. A folder has no sink.

        A database stores the ledger of `job`, and applies `contract`, which collects a note.
        `retrier` retries while another process locks a database, or after a lost connection.
        `stores` is the connection to object stores. `sorts_columns`: a new table ends up with its
        columns by name, because the order of its rows is by chance.
        """
        options: dict[str, Any] = {  # of all databases
            "table": self.table or "", "mode": self.mode, "key": self.key,
            "job": job, "contract": contract, "sorts_columns": sorts_columns,
            "on_delete": self.on_delete,
        }  # fmt: skip
        if self.layout is not None:
            return self._open_partitions(self.layout, stores, sorts_columns=sorts_columns)
        match self.form:
            case "stdout":
                from asyncbatch.sinks.text_files import StdoutSink

                return StdoutSink()
            case "lines":
                from asyncbatch.sinks.text_files import LinesSink

                return LinesSink(self.path, stores)
            case "csv":
                from asyncbatch.sinks.text_files import CsvSink

                return CsvSink(self.path, stores, **self._csv_options)
            case "parquet":
                from asyncbatch.sinks.parquet import ParquetSink

                return ParquetSink(
                    self.path, stores, self.nested or "native", sorts_columns=sorts_columns
                )
            case "sqlite":
                from asyncbatch.sinks.databases.sqlite import SqliteSink

                return SqliteSink(self.path, retrier=retrier, **options)
            case "postgres":
                from asyncbatch.sinks.databases.postgres.sink import PostgresSink

                return PostgresSink(
                    self.address,
                    retrier=retrier,
                    settings=self.server,
                    times=self.times,
                    override_identity=self.override_identity,
                    **options,
                )
            case _:
                from asyncbatch.sinks.databases.duckdb import DuckdbSink

                return DuckdbSink(self.path, times=self.times, **options)

    @property
    def _csv_options(self) -> dict[str, Any]:
        return {
            "delimiter": "\t" if self.path.lower().endswith(".tsv") else ",",
            "columns": self.columns,
            "is_safe": self.csv_safe,
            "null_value": self.null_value,
        }

    def _open_partitions(
        self, layout: PartitionLayout, stores: StoreSettings | None, *, sorts_columns: bool
    ) -> BatchSink[Any]:
        from asyncbatch.sinks.partitions import sink

        match self.form:
            case "lines":
                return sink.PartitionedLinesSink(self.name, layout, stores)
            case "csv":
                return sink.PartitionedCsvSink(self.name, layout, stores, **self._csv_options)
            case _:
                from asyncbatch.sinks.partitions.parquet import PartitionedParquetSink

                return PartitionedParquetSink(
                    self.name,
                    layout,
                    stores,
                    self.nested or "native",
                    sorts_columns=sorts_columns,
                )


def parse_location(name: str) -> tuple[Form, str]:
    """Return the form and the path of the target with this name. Raises UsageError."""
    if not name:
        raise UsageError(f"--to needs a target: {KNOWN}")
    if name == STDOUT:
        return "stdout", name
    scheme, separator, rest = name.partition("://")
    if is_object_url(name):
        return _location_of_object(name)
    if separator:
        if scheme in SERVER_SCHEMES:
            if is_ambiguous_address(name):
                raise UsageError(
                    f"--to {redact_address(name)}: write / ? # @ in a password as %2F %3F"
                    " %23 %40, or use PGPASSWORD or ~/.pgpass, where nothing is escaped"
                )
            return "postgres", ""
        if scheme not in _DATABASES:
            raise UsageError(f"--to {redact_address(name)}: unknown kind of target; write {KNOWN}")
        path = unquoted(rest.removeprefix("/"))
        if not rest.startswith("/") or not path:
            raise UsageError(
                f"--to {name}: write {scheme}:///people.db for a file in this folder, or "
                f"{scheme}:////var/lib/people.db for an absolute path"
            )
        if is_object_url(path):
            raise _no_database(name)
        folder = os.path.dirname(path)
        if (
            folder
            and folder[0] != "/"
            and not os.path.isdir(folder)
            and os.path.isdir(f"/{folder}")
        ):
            raise UsageError(
                f"--to {name}: there is no folder {folder} here; for the absolute path /{path} "
                f"write {scheme}:////{path}"
            )
        return _DATABASES[scheme], path
    if name.endswith("/") or os.path.isdir(name):
        _check_folder_name(name)
        return "folder", name
    return _form_of_file(name), _path_of_file(name)


def _location_of_object(url: str) -> tuple[Form, str]:
    form = _form_of_object(url)
    if form == "folder":
        _check_folder_name(url)
        return form, f"{url.rstrip('/')}/"
    return form, _path_of_file(url)


def _path_of_file(name: str) -> str:
    """Return the path of a file target; if its name has fields, the name itself."""
    if not has_braces(name):
        return name
    layout = parse_layout(name)
    return layout if isinstance(layout, str) else name


def _check_folder_name(name: str) -> None:
    """Raise UsageError if the name of a new folder has fields, as that of a file may have."""
    if not has_braces(name) or os.path.isdir(name):
        return
    try:
        has_fields = not isinstance(parse_layout(f"{name.rstrip('/')}/rows"), str)
    except UsageError:  # it has braces, but no fields
        return
    if has_fields:
        raise UsageError(
            f"--to {name}: end a name with fields with that of a file, as in {name}rows.jsonl; "
            "if the folder has this very name, make it first"
        )


def _form_of_object(url: str) -> Form:
    address = parse_address(url)
    if address.is_web:
        raise UsageError(
            f"--to {redact_url(url)}: a web server can be read but not written; write {KNOWN}"
        )
    names = address.key.rstrip("/").split("/")
    if names != [""] and not {"", ".", ".."}.isdisjoint(names):
        raise UsageError(f"--to {url}: an object's key cannot have an empty name, . or .. in it")
    if not address.key or url.endswith("/"):
        return "folder"
    if url.lower().endswith(_DATABASE_SUFFIXES):
        raise _no_database(url)
    return _form_of_file(url)


def _form_of_file(name: str) -> Form:
    compression = compression_by_name(name)
    plain = name[: -len(compression.suffix)] if compression else name
    form = _SUFFIXES.get(os.path.splitext(plain)[1].lower())
    if form is None or (compression and form != "lines"):
        raise UsageError(f"--to {name}: unknown kind of target; {target_advice(name)}")
    return form


def target_advice(name: str) -> str:
    """Return the next step for a file name that is no target."""
    scheme, colon, path = name.partition(":")
    if colon and scheme in _DATABASES:
        return f"write {scheme}:///{path}"
    start, suffix = os.path.splitext(name)
    match suffix.lower():
        case ".duckdb" | ".ddb":
            return f"for a DuckDB database write duckdb:///{name}"
        case suffix if suffix in _DATABASE_SUFFIXES:
            return f"for an SQLite database write sqlite:///{name}"
        case ".json":
            return f"for JSON Lines write {start}.jsonl, for JSON files like the input {start}/"
        case ".xls" | ".xlsx" | ".ods":
            return f"for a spreadsheet write {start}.csv"
        case _:
            return f"write {KNOWN}"


def _no_database(name: str) -> UsageError:
    return UsageError(
        f"--to {name}: a database cannot be in an object store, because objects cannot be changed"
        " in place: write to a local file and copy it after the run, or write .parquet there"
    )
