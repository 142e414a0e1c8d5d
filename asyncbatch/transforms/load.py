"""Loading of user functions: `MODULE:FUNCTION` or `path/to/file.py:FUNCTION`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
import traceback
import zlib
from typing import TYPE_CHECKING, Any, NoReturn

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def load_function(spec: str) -> Callable[..., Any]:
    """Return the function at `spec`, in a module or in a Python file.

    The function's name may have dots, for example CLASS.METHOD. Adds the current folder, or the
    folder of the file, to `sys.path`. Raises UsageError with advice.
    """
    target, colon, name = spec.rpartition(":")
    if not colon or not target or not name:
        raise UsageError(
            f"{spec!r} does not name a function; write MODULE:FUNCTION or path/to/file.py:FUNCTION"
        )
    found: Any = load_module(target)
    for part in name.split("."):
        found = _attribute(found, part, target)
    if not callable(found):
        raise UsageError(f"{spec}: is {type(found).__name__!r}, not a function")
    function: Callable[..., Any] = found
    return function


def module_file(spec: str) -> str | None:
    """Return the file of the function at `spec`; None for a module that is not loaded."""
    target = spec.rpartition(":")[0]
    if _is_file(target):
        return target
    found: str | None = getattr(sys.modules.get(target), "__file__", None)
    return found


def load_module(target: str) -> ModuleType:
    """Return the module with this name, or of the Python file at this path.

    Changes `sys.path` like `load_function`. Raises UsageError.
    """
    return _load_file(target) if _is_file(target) else _load_named(target)


def _is_file(target: str) -> bool:
    return target.endswith(".py") or os.sep in target


def _load_named(name: str) -> ModuleType:
    _make_importable(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"there is no module {error.name!r} in {os.getcwd()} or on the path of Python; "
                "write the path of a file: path/to/file.py:FUNCTION"
            ) from None
        _raise_import_error(name, error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything
        _raise_import_error(name, error)


def _load_file(path: str) -> ModuleType:
    """Import a file, under its own name if `import` of that name finds this file."""
    path = os.path.abspath(path)
    folder, base = os.path.split(path)
    if not os.path.isfile(path):
        raise UsageError(f"{path}: no such file")
    _make_importable(folder)
    try:
        name = base.removesuffix(".py")
        if name.isidentifier() and _is_module_at(name, path):
            return importlib.import_module(name)
        return _import_from(path, name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything
        _raise_import_error(path, error)


def _is_module_at(name: str, path: str) -> bool:
    """Whether `import name` gives the file at `path`, not another module."""
    if loaded := sys.modules.get(name):
        origin = getattr(loaded, "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec else None
    return origin is not None and os.path.exists(origin) and os.path.samefile(origin, path)


def _import_from(path: str, stem: str) -> ModuleType:
    """Import the file at `path` under a name from its path, equal in all processes."""
    tidy = re.sub(r"\W", "_", stem)
    name = f"asyncbatch_user_{tidy}_{zlib.crc32(os.fsencode(path)):08x}"
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.machinery.SourceFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _make_importable(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()


def _attribute(holder: Any, name: str, target: str) -> Any:
    try:
        return getattr(holder, name)
    except AttributeError:
        pass
    public = vars(type(holder)) | getattr(holder, "__dict__", {})
    names = [known for known in public if not known.startswith("_")]
    close = difflib.get_close_matches(name, names, n=1)
    functions = [known for known in names if callable(getattr(holder, known, None))]
    if close:
        advice = f"; did you mean {close[0]!r}?"
    else:
        advice = f"; it has {', '.join(functions[:10])}" if functions else ""
    raise UsageError(f"{target} has no {name!r}{advice}") from None


def _raise_import_error(target: str, error: BaseException) -> NoReturn:
    """Raise UsageError for a failed import, with file and line of the error."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        column = f":{error.offset}" if error.offset else ""
        place = f"{error.filename}:{error.lineno}{column}"
        raise UsageError(f"{place}: {type(error).__name__}: {error.msg}") from None
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen ")
    ]
    own = [frame for frame in frames if frame.filename != importlib.__file__]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    raise UsageError(f"{target} cannot be imported: {reason}{place}") from None
