"""The code of user functions, sent to Dask workers as source texts."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from importlib.abc import MetaPathFinder, SourceLoader
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from asyncbatch.transforms.load import load_module
from asyncbatch.transforms.spec import CallSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from asyncbatch.transforms.spec import TransformSpec

T = TypeVar("T")

# folders of installed packages, which the workers must have installed too
_INSTALLED = ("site-packages", "dist-packages")
_OWN_PACKAGE = "asyncbatch"


class CarriedModule(Struct, frozen=True):
    """A module: the path of its file here, and its text. A package's is its `__init__.py`."""

    path: str
    text: bytes
    is_package: bool


class CarriedCode(Struct, frozen=True):
    """Modules by name, and the folders from which they import others."""

    modules: dict[str, CarriedModule] = {}
    folders: tuple[str, ...] = ()

    def install(self) -> None:
        """Make this process import these modules from the carried code first."""
        sys.path[:0] = [folder for folder in self.folders if folder not in sys.path]
        sys.meta_path.insert(0, _CarriedFinder(self.modules))


class RemoteFactory(Generic[T]):
    """Makes an object in another process as `make` does here, with its code and folder.

    A folder that does not exist there is left out.
    """

    def __init__(self, make: Callable[[], T], code: CarriedCode, folder: str) -> None:
        self._make, self._code, self._folder = make, code, folder

    def __call__(self) -> T:
        """Make the object."""
        if os.path.isdir(self._folder):
            os.chdir(self._folder)
        self._code.install()
        return self._make()


def collect_code(
    transforms: Sequence[TransformSpec],
) -> tuple[tuple[TransformSpec, ...], CarriedCode]:
    """Return transforms with functions named by module, and the code of these modules.

    The code includes what they imported so far from their own folders and the current one, without
    installed packages. Raises UsageError for a missing function.
    """
    modules: list[ModuleType] = []
    carried: list[TransformSpec] = []
    for spec in transforms:
        if isinstance(spec, CallSpec):
            target, _, name = spec.function.rpartition(":")
            module = load_module(target)
            modules.append(module)
            carried.append(CallSpec(f"{module.__name__}:{name}"))
        else:
            carried.append(spec)
    if not modules:
        return tuple(carried), CarriedCode()
    folders = tuple(dict.fromkeys([os.getcwd(), *_folders(modules)]))
    return tuple(carried), CarriedCode(dict(_own_modules(folders)), folders)


def _folders(modules: Iterable[ModuleType]) -> Iterator[str]:
    """Yield the folder of each module that is not installed."""
    for module in modules:
        path = getattr(module, "__file__", None)
        if path is None or _is_installed(path):
            continue
        folder = os.path.dirname(os.path.abspath(path))
        is_package = hasattr(module, "__path__")
        for _ in range(module.__name__.count(".") + is_package):
            folder = os.path.dirname(folder)
        yield folder


def _own_modules(folders: Sequence[str]) -> Iterator[tuple[str, CarriedModule]]:
    """Yield the modules of these folders that are imported, each beside its name."""
    for name, module in sys.modules.copy().items():
        if name == "__main__" or name.split(".")[0] == _OWN_PACKAGE:
            continue
        path = getattr(module, "__file__", None)
        is_package = hasattr(module, "__path__")
        if path is None:
            if is_package and any(_is_below(place, folders) for place in module.__path__):
                yield name, CarriedModule("", b"", is_package)  # it has no file of its own
        elif path.endswith(".py") and _is_below(path, folders):
            with open(path, "rb") as stream:
                yield name, CarriedModule(os.path.abspath(path), stream.read(), is_package)


def _is_below(path: str, folders: Sequence[str]) -> bool:
    path = os.path.abspath(path)
    return any(path.startswith(os.path.join(one, "")) for one in folders) and not _is_installed(
        path
    )


def _is_installed(path: str) -> bool:
    library = os.path.join(sysconfig.get_path("stdlib"), "")
    parts = path.split(os.sep)
    return path.startswith(library) or any(one in parts for one in _INSTALLED)


class _CarriedFinder(MetaPathFinder):
    """Finds carried modules."""

    def __init__(self, modules: dict[str, CarriedModule]) -> None:
        self._modules = modules

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's names
        target: ModuleType | None = None,  # noqa: ARG002 - the protocol's names
        /,
    ) -> ModuleSpec | None:
        """Return the spec of a carried module, None for another."""
        module = self._modules.get(fullname)
        if module is None:
            return None
        folders = [os.path.dirname(module.path)] if module.is_package else None
        return importlib.util.spec_from_file_location(
            fullname,
            module.path or f"<{fullname}>",
            loader=_CarriedLoader(module),
            submodule_search_locations=folders,
        )


class _CarriedLoader(SourceLoader):
    """Loads a carried module from its text; tracebacks show its lines."""

    def __init__(self, module: CarriedModule) -> None:
        self._module = module

    def get_filename(self, fullname: str) -> str:
        """Return the path that tracebacks name."""
        return self._module.path or f"<{fullname}>"

    def get_data(self, path: str) -> bytes:  # noqa: ARG002 - there is only one
        """Return the module's text."""
        return self._module.text
