"""The state of a stream as text: the cursor, and the key of the last item that is done after it.

The text is one line of JSON, the same in every language of this project. A key is never a count, because a server may
divide the same items into other responses when they are read again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import StateError

_VERSION = 1
_ADVICE = "restore a state that this stream saved, or start without one"


@dataclass(frozen=True)
class State:
    """Where a stream continues."""

    kind: str
    cursor: str
    after: Mapping[str, int] = field(default_factory=dict)

    def to_text(self) -> str:
        """The state as text."""
        fields: dict[str, object] = {"version": _VERSION, "kind": self.kind, "cursor": self.cursor}
        if self.after:
            small = ("switches", "remaining")
            fields["after"] = {name: n if name in small else str(n) for name, n in self.after.items()}
        return json.dumps(fields, separators=(",", ":"))

    @staticmethod
    def from_text(text: str, kind: str) -> State:
        """Reads a state of a stream of this kind, or a bare cursor as `perennial --resume` saves it."""
        text = text.strip()
        if not text:
            raise StateError(f"the state is empty: {_ADVICE}")
        if not text.startswith("{"):
            return State(kind, text)
        try:
            fields = json.loads(text)
            version, found = fields["version"], fields["kind"]
            cursor = str(fields["cursor"])
            after = {str(name): int(value) for name, value in fields.get("after", {}).items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(f"the state is damaged: {_ADVICE}") from error
        if version != _VERSION:
            raise StateError(f"the state has the version {version}, and this client knows {_VERSION}: use a newer client")
        if found != kind:
            raise StateError(f"the state is of a stream of {found}, not of {kind}: {_ADVICE}")
        return State(kind, cursor, after)
