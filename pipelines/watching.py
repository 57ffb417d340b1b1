"""Model files that are edited while the pages are served: the definitions follow by themselves."""

from __future__ import annotations

from quantmint.pipelines.spec import shipped


class ModelFiles:
    """The model files as they were at the last look."""

    def __init__(self) -> None:
        self._seen = _stamps()

    def changed(self) -> bool:
        """Return whether a model file came, went or was written since the last look."""
        now = _stamps()
        changed, self._seen = now != self._seen, now
        return changed


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
