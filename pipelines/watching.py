"""Model files that are edited while the pages are served: the definitions follow by themselves."""

from __future__ import annotations

from collections.abc import Callable

from quantmint.pipelines.spec import shipped


class ModelFiles:
    """The model files as they were at the last look."""

    def __init__(self) -> None:
        self._seen = _stamps()

    def follow(self, reload: Callable[[], object]) -> bool:
        """Call `reload` if a model file came, went or was written; return whether it worked.

        One that gives nothing did not work: it is called again at the next look.
        """
        now = _stamps()
        if now == self._seen or not reload():
            return False
        self._seen = now
        return True


def _stamps() -> dict[str, tuple[int, int]]:
    """Return size and time of every model file."""
    found = {}
    for path in shipped().values():
        try:
            stat = path.stat()
        except OSError:
            continue  # removed a moment ago
        found[str(path)] = (stat.st_size, stat.st_mtime_ns)
    return found
