"""What goes wrong, to order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path match.

    `kind`: `refuse` answers with `status`; `drop` closes the connection before the request is
    worked on; `lose` does the work and closes it without an answer; `slow` waits first.
    """

    kind: str
    part: str
    method: str
    times: int
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Faults:
    """Names of files whose bytes are altered, or cut half way so many times; and the rules."""

    altered: set[str] = field(default_factory=set)
    cut: Counter[str] = field(default_factory=Counter)
    rules: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def refuse(
        self, status: int, times: int = 1, part: str = "", method: str = "", **headers: str
    ) -> None:
        """Answer with that status; `Retry_After="1"` becomes a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.rules.append(Fault("refuse", part, method, times, status, named))

    def drop(self, part: str, times: int = 1, method: str = "") -> None:
        """Cut the connection before anything is done."""
        self.rules.append(Fault("drop", part, method, times))

    def lose(self, part: str, times: int = 1, method: str = "") -> None:
        """Do what was asked, and cut the connection before the answer."""
        self.rules.append(Fault("lose", part, method, times))

    def slow(self, part: str, seconds: float, times: int = 1, method: str = "") -> None:
        """Wait before the answer."""
        self.rules.append(Fault("slow", part, method, times, seconds=seconds))

    def clear(self) -> None:
        """Let everything work again."""
        self.altered.clear()
        self.cut.clear()
        self.rules.clear()

    def due(self, method: str, path: str) -> Fault | None:
        """Take the first rule that this request meets."""
        with self.lock:
            for rule in self.rules:
                if rule.times > 0 and rule.part in path and rule.method in {"", method}:
                    rule.times -= 1
                    return rule
        return None

    def cut_now(self, name: str) -> bool:
        """Return whether this answer is to be cut half way."""
        with self.lock:
            if self.cut[name] <= 0:
                return False
            self.cut[name] -= 1
            return True
