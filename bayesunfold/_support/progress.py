"""Progress of long work: a line that rewrites itself on a terminal, few plain lines in a log or a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Phases", "Progress", "aside", "tick"]

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 5.0
"""Least time between two lines that say the same phase."""


def __dir__() -> list[str]:
    return __all__


class Progress:
    """Progress of a known number of steps, written to standard error.

    Parameters
    ----------
    total : int
        Number of steps.
    label : str
        What is being done.
    show : bool
        False shows nothing.
    """

    def __init__(self, total: int, label: str, *, show: bool) -> None:
        self.total, self.label, self.show = total, label, show
        self.start = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self._width = 0

    def update(self, done: float, text: str = "") -> None:
        """Report that ``done`` of the steps are finished."""
        if not self.show:
            return
        elapsed = time.monotonic() - self.start
        left = "" if done <= 0 else f", {elapsed * (self.total - done) / done:.0f} s left"
        self._write(f"{self.label}: {int(done)}/{self.total} {text}[{elapsed:.1f} s{left}]")

    def close(self, text: str) -> None:
        """Finish with one last line."""
        if not self.show:
            return
        line = f"{self.label}: {text} [{time.monotonic() - self.start:.1f} s]"
        sys.stderr.write(("\r" + line.ljust(self._width) if self.terminal else line) + "\n")
        sys.stderr.flush()

    def _write(self, line: str) -> None:
        if self.terminal:
            sys.stderr.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


_current: ContextVar[Phases | None] = ContextVar("bayesunfold_phases", default=None)


class Phases(Progress):
    """Progress of phases that take different times.

    Parameters
    ----------
    label : str
        What is being done.
    costs : mapping of str to float
        Phases in their order, and about how many seconds each takes. Only their ratios matter after a while.
    show : bool
    """

    PRIOR = 1.0
    """Seconds for which the costs are believed."""

    def __init__(self, label: str, costs: Mapping[str, float], *, show: bool) -> None:
        super().__init__(len(costs), label, show=show)
        self.costs = dict(costs)
        self.finished = 0.0
        self._aside = self._last = 0.0
        self._phase, self._fraction, self._text = "", 0.0, ""

    @contextmanager
    def active(self) -> Iterator[Phases]:
        """Make :func:`tick` and :func:`aside` tell these phases."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    def begin(self, phase: str, text: str = "") -> None:
        """Start a phase; the one before is finished, whatever it reported."""
        if self._phase:
            self.finished += self.costs.pop(self._phase, 0.0)
        self._phase, self._fraction, self._text = phase, 0.0, text
        self._show(always=True)

    def inside(self, fraction: float) -> None:
        """Report the part of the phase that is done, between 0 and 1."""
        self._fraction = max(self._fraction, min(fraction, 1.0))
        self._show(always=False)

    def add(self, costs: Mapping[str, float]) -> None:
        """Plan more phases."""
        self.costs |= costs

    def left(self) -> float:
        """Seconds that the rest takes, at the pace so far."""
        now = self.costs.get(self._phase, 0.0) * self._fraction
        done, rest = self.finished + now, sum(self.costs.values()) - now
        elapsed = time.monotonic() - self.start - self._aside
        return rest * (elapsed + self.PRIOR) / (done + self.PRIOR)

    @contextmanager
    def set_aside(self, text: str) -> Iterator[None]:
        """Work that says nothing about the pace of the rest, such as compiling."""
        start = time.monotonic()
        if self.show:
            self._write(f"{self.label}: {text} [{start - self.start:.1f} s]")
        try:
            yield
        finally:
            self._aside += time.monotonic() - start
            self._show(always=self.terminal)

    def _show(self, *, always: bool) -> None:
        now = time.monotonic()
        if not self.show or (not always and now - self._last < (TERMINAL_SECONDS if self.terminal else LOG_SECONDS)):
            return
        self._last = now
        done = f" {100 * self._fraction:.0f} %" if self._fraction else ""
        text = f"{self._phase}{done}{f', {self._text}' if self._text else ''}"
        self._write(f"{self.label}: {text} [{now - self.start:.1f} s, about {_readable(self.left())} left]")


def _readable(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def tick(fraction: float) -> None:
    """Tell the active phases how much of theirs is done; nothing where there are none."""
    phases = _current.get()
    if phases is not None:
        phases.inside(fraction)


@contextmanager
def aside(text: str) -> Iterator[None]:
    """Say what is being done that has no part in the estimate of time; nothing where there are no phases."""
    phases = _current.get()
    if phases is None:
        yield
        return
    with phases.set_aside(text):
        yield
