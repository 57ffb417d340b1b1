"""Sets of byte ranges, each `(start, end)` with the end left out."""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]


def union(ranges: Iterable[Range], *, near: int = 0) -> list[Range]:
    """Return the ranges in order, those that touch (or are less than `near` apart) as one."""
    merged: list[Range] = []
    for start, end in sorted(r for r in ranges if r[0] < r[1]):
        if merged and start <= merged[-1][1] + near:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def without(whole: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """Return what of `whole` no range of `taken` covers."""
    left: list[Range] = []
    others = union(taken)
    at = 0
    for start, end in union(whole):
        while at < len(others) and others[at][1] <= start:
            at += 1
        free, place = start, at
        while place < len(others) and others[place][0] < end:
            if others[place][0] > free:
                left.append((free, others[place][0]))
            free = max(free, others[place][1])
            place += 1
        if free < end:
            left.append((free, end))
    return left


def split(ranges: Iterable[Range], most: int) -> list[Range]:
    """Return the ranges in pieces of at most `most` bytes."""
    return [
        (at, min(at + most, end)) for start, end in ranges for at in range(start, end, most)
    ]  # fmt: skip


def total(ranges: Iterable[Range]) -> int:
    """Return how many bytes there are."""
    return sum(end - start for start, end in ranges)
