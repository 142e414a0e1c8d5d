"""Values of `${…}`: variables, files, commands, credentials of systemd, the keyring."""

from __future__ import annotations

import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.core.secrets import Secret
from asyncbatch.core.system import install_command
from asyncbatch.core.units import format_seconds, format_size, printable
from asyncbatch.errors import UsageError, error_reason

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

KINDS = ("file", "cmd", "credential", "keyring")
_MAX_BYTES = 1_000_000  # of a secret: systemd has nearly the same limit
_MAX_QUOTED = 200  # characters of a message of a command
_CREDENTIALS = "CREDENTIALS_DIRECTORY"


class CommandPolicy(Struct, frozen=True):
    """Whether `${cmd:…}` may run commands, and for how many seconds each."""

    is_allowed: bool = False
    timeout: float = 30.0


class SecretSources:
    """Finds the values of `${file:…}` and others. Each value is read only once.

    `refusal` is the reason for which nothing may be read, if there is one.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        commands: CommandPolicy | None = None,
        *,
        refusal: str | None = None,
    ) -> None:
        self.environment = os.environ if environment is None else environment
        self._commands = commands or CommandPolicy()
        self._refusal = refusal
        self._found: dict[tuple[str, str], str | ValueError] = {}

    def value(self, kind: str, place: str) -> str:
        """Return the secret that a source of this kind has, without line ends behind it.

        Raises ValueError with the place and a remedy.
        """
        if self._refusal is not None:
            raise ValueError(self._refusal)
        if (kind, place) not in self._found:
            try:
                self._found[kind, place] = self._read(kind, place)
            except ValueError as error:
                self._found[kind, place] = error
        found = self._found[kind, place]
        if isinstance(found, ValueError):
            raise found
        return found

    def _read(self, kind: str, place: str) -> str:
        written = f"${{{kind}:{printable(place)}}}"
        if kind not in KINDS:
            raise ValueError(
                f"{kind}: is not a source of secrets ({', '.join(KINDS)}); $${{ is a plain ${{"
            )
        if "{" in place:
            raise ValueError(f"{written} has a brace inside: write the command into a script")
        if not place.strip():
            raise ValueError(f"{written} is empty: write {_EXAMPLES[kind]}")
        match kind:
            case "file":
                return _file_secret(place)
            case "credential":
                return self._credential(place)
            case "cmd":
                return self._output(place, written)
            case _:
                return _keyring_secret(place)

    def _credential(self, name: str) -> str:
        """Return a credential that systemd passes to a service."""
        if os.path.basename(name) != name or name in (".", ".."):
            raise ValueError(f"{printable(name)} is not the name of a credential: it has no /")
        folder = self.environment.get(_CREDENTIALS)
        if not folder:
            raise ValueError(
                f"systemd has passed no credentials (${_CREDENTIALS} is not set): give its service "
                f"LoadCredential={printable(name)}:PATH"
            )
        remedy = f"give the service LoadCredential={printable(name)}:PATH"
        return _file_secret(os.path.join(folder, name), remedy)

    def _output(self, command: str, written: str) -> str:
        """Return the output of a command."""
        if not self._commands.is_allowed:
            raise ValueError(
                f"{written} runs a command: if you trust this file, give --allow-commands"
            )
        return _command_secret(command, self._commands.timeout)


_EXAMPLES = {
    "file": "${file:/run/secrets/token}",
    "cmd": "${cmd:pass show token}",
    "credential": "${credential:token}",
    "keyring": "${keyring:SERVICE/NAME}",
}


def read_secret(source: str, *, allow_commands: bool = False, timeout: float = 30.0) -> Secret:
    """Return the secret of a source: file:PATH, cmd:COMMAND, credential:NAME, keyring:SERVICE/NAME.

    A command may run only with `allow_commands`, for `timeout` seconds. Raises UsageError.
    """
    kind, _, place = source.partition(":")
    if kind not in KINDS:
        raise UsageError(f"a secret has a source of these kinds: {', '.join(KINDS)}")
    if kind == "cmd" and not allow_commands:
        raise UsageError("cmd: runs a command: if you trust it, give allow_commands=True")
    policy = CommandPolicy(is_allowed=True, timeout=timeout)
    try:
        return Secret(SecretSources(commands=policy).value(kind, place))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _file_secret(place: str, remedy: str = "write the file, or correct the path") -> str:
    """Return the content of a file. Raises ValueError."""
    shown = printable(place)
    path = os.path.expanduser(place)
    try:
        # Opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{shown} is not a regular file: name a file with the secret")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ValueError(f"there is no file {shown}: {remedy}") from None
    except PermissionError:
        raise ValueError(f"user {os.geteuid()} may not read {shown}: change its rights") from None
    except OSError as error:
        raise ValueError(f"{shown} cannot be read: {error_reason(error)}") from None
    return _secret_text(data, shown)


def _secret_text(data: bytes, shown: str) -> str:
    """Return the text of a secret without line ends behind it. Raises ValueError."""
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{shown} has more than {format_size(_MAX_BYTES)}, which is no secret")
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{shown} is not UTF-8: a secret is a text") from None
    if not text:
        raise ValueError(f"{shown} is empty, where a secret is expected")
    if "\0" in text:
        raise ValueError(f"{shown} has a NUL byte: a secret is a text")
    return text


def _command_secret(command: str, timeout: float) -> str:
    """Return the output of a command, which is run without a shell. Raises ValueError."""
    import shlex
    import subprocess

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"the command is not complete: {error}") from None
    if not words or not words[0]:
        raise ValueError("the command is empty")
    shown = f"the command {printable(words[0])}"  # its arguments may be secret
    with _ended_by_signals() as note_group:
        try:
            process = subprocess.Popen(  # noqa: S603 - the user has allowed commands
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # it cannot ask the terminal; its group has its children
            )
        except OSError as error:
            raise ValueError(
                f"{shown} cannot be started: {error.strerror}: correct its name, or the PATH"
            ) from None
        with process:
            try:
                note_group(process.pid)
                data, message, is_late = _outputs(process, timeout)
            finally:
                if process.returncode is None:
                    _kill_group(process.pid)
    if is_late:
        raise ValueError(
            f"{shown} has not ended within {format_seconds(timeout)}: correct it, or give it more "
            "time by --command-timeout"
        )
    if process.returncode and len(data) <= _MAX_BYTES:
        code = process.returncode
        end = f"exit status {code}" if code > 0 else f"signal {-code}"
        reason = f": {message}" if message else ", without a message"
        raise ValueError(f"{shown} failed with {end}{reason}")
    return _secret_text(data, f"the output of {shown}")


def _outputs(process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, str, bool]:
    """Return the output of a process, the last line of its errors, and whether it is late.

    Reading ends at the limit of a secret: some commands never end.
    """
    import selectors
    import subprocess

    assert process.stdout is not None
    assert process.stderr is not None
    end = time.monotonic() + timeout
    output, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, errors)
        while selector.get_map() and len(output) <= _MAX_BYTES:
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                return bytes(output), "", True
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                key.data.extend(data)
                if not data:
                    selector.unregister(key.fileobj)
            del errors[:-_MAX_BYTES]
    if len(output) <= _MAX_BYTES:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            return bytes(output), "", True
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return bytes(output), printable(lines[-1][:_MAX_QUOTED]) if lines else "", False


@contextmanager
def _ended_by_signals() -> Iterator[Callable[[int], None]]:
    """End a process group, too, if a signal that this process handles arrives meanwhile.

    Yields the function that notes the group. A signal before that is handled then: the process may
    have begun. The handler of a command that has not begun ends this process at once.
    """
    import signal
    from threading import current_thread, main_thread

    handlers: dict[int, Any] = {}
    early: list[int] = []  # signals before the group was noted
    group: int | None = None

    def end(number: int, frame: object) -> None:
        if group is None:
            early.append(number)
            return
        _kill_group(group)
        handlers[number](number, frame)

    def note_group(pid: int) -> None:
        nonlocal group
        group = pid
        while early:
            end(early.pop(0), None)

    if current_thread() is main_thread():  # others may not set handlers
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                signal.signal(number, end)
    try:
        yield note_group
    finally:
        for handled, handler in handlers.items():
            signal.signal(handled, handler)
        for missed in early:
            signal.raise_signal(missed)


def _kill_group(pid: int) -> None:
    """Kill a process that was not waited for, and the processes that it has started."""
    import signal

    with suppress(ProcessLookupError, PermissionError):  # all have ended; macOS denies it then
        os.killpg(pid, signal.SIGKILL)


def _keyring_secret(place: str) -> str:
    """Return a password of the keyring of the system. Raises ValueError."""
    service, _, name = place.rpartition("/")  # a service may be a URL
    if not service or not name:
        raise ValueError(f"{printable(place)} is not SERVICE/NAME")
    try:
        import keyring
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "keyring":
            raise
        raise ValueError(
            f"the keyring needs one more package: {install_command('keyring')}"
        ) from None
    try:
        found = keyring.get_password(service, name)
    except Exception as error:  # noqa: BLE001 - backends raise errors of their own libraries, too
        reason = printable(str(error).strip().partition("\n")[0][:_MAX_QUOTED])
        raise ValueError(f"the keyring cannot be read: {reason or type(error).__name__}") from None
    if found is None:
        shown = f"{printable(service)} {printable(name)}"
        raise ValueError(f"the keyring has no such password: store it by `keyring set {shown}`")
    return _secret_text(found.encode(), f"the password {printable(place)} of the keyring")
