"""Where the state of a stream is kept between two runs of a program."""

from __future__ import annotations

import os
import pathlib
from typing import Protocol

from .errors import StateError


class Store(Protocol):
    """A place for the state of one stream. Implement these two methods to keep it elsewhere, such as in a database."""

    def load(self) -> str | None:
        """The state that was saved last, or None if there is none yet."""

    def save(self, state: str) -> None:
        """Saves a state. It replaces the last one as a whole: after a crash, `load` returns one or the other."""


class MemoryStore:
    """Keeps the state in memory, for a stream that is closed and opened again by the same program."""

    def __init__(self, state: str | None = None) -> None:
        self.state = state

    def load(self) -> str | None:
        return self.state

    def save(self, state: str) -> None:
        self.state = state


class FileStore:
    """Keeps the state in a file.

    A save writes a new file beside it, synchronizes it, and renames it over the old one. After a crash or a power loss
    the file holds the old state or the new one, never a part. An empty file is an error, not a fresh start.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(path)
        self._new = self._path.with_name(self._path.name + ".new")
        self._is_new = True

    def load(self) -> str | None:
        try:
            text = self._path.read_text("utf-8", "replace").strip()
        except FileNotFoundError:
            return None
        if not text:
            raise StateError(f"{self._path} is empty: restore the state, or delete the file to start from the beginning")
        return text

    def save(self, state: str) -> None:
        descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(state + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._new, self._path)
        if self._is_new:
            # The name of the file must survive a power loss, too.
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            self._is_new = False
