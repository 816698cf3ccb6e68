"""A bar on the terminal's last line; nothing where there is no terminal."""

from __future__ import annotations

import shutil
import sys
import time


class Progress:
    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._start = time.monotonic()
        self._shown = sys.stderr.isatty()

    def start(self, name: str) -> None:
        """Of one of the steps; the others before it are done."""
        self._write(self.text(name))

    def finish(self) -> None:
        self._done += 1
        self._write("")

    def text(self, name: str) -> str:
        filled = round(24 * self._done / max(self._total, 1))
        left = ""
        if self._done:
            seconds = (time.monotonic() - self._start) / self._done * (self._total - self._done)
            left = f", about {seconds:.0f} s left"
        return f"[{'#' * filled}{'.' * (24 - filled)}] {self._done}/{self._total}{left}: {name}"

    def _write(self, text: str) -> None:
        if self._shown:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r\033[K" + text[:width])
            sys.stderr.flush()
