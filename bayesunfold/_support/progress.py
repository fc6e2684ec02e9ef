"""Progress of long work: a line that rewrites itself on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]


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
        line = f"{self.label}: {int(done)}/{self.total} {text}[{elapsed:.1f} s{left}]"
        if self.terminal:
            sys.stderr.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def close(self, text: str) -> None:
        """Finish with one last line."""
        if not self.show:
            return
        line = f"{self.label}: {text} [{time.monotonic() - self.start:.1f} s]"
        sys.stderr.write(("\r" + line.ljust(self._width) if self.terminal else line) + "\n")
        sys.stderr.flush()
