"""Log rows on their way to disk, off the path of the answers."""

from __future__ import annotations

from collections import deque
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from seatrial.adapters.decisions import row_of
from seatrial.errors import InvalidDocumentError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.adapters.decisions import Entry
    from seatrial.adapters.log_intake import DecisionLog


class Logbook:
    """Collects entries and labels, and writes them in a thread every `flush_s` seconds.

    Until then they are in memory alone: a kill -9 loses them. What a full disk refuses is kept and written later.
    """

    def __init__(self, log: DecisionLog, decision_point: str, *, flush_s: float) -> None:
        self._log = log
        self._decision_point = decision_point
        self._flush_s = flush_s
        self._entries: deque[Entry] = deque()
        self._labels: deque[Mapping[str, object]] = deque()
        self._added = 0  #: entries given to the log that are not known to be written
        self._writing = Lock()
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self.written = 0
        self.quarantined = 0
        self.errors = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._entries) + len(self._labels) + self._added

    def decision(self, entry: Entry) -> None:
        """Keep one entry until the next write."""
        self._entries.append(entry)

    def label(self, row: Mapping[str, object]) -> None:
        """Keep one sound label row until the next write."""
        self._labels.append(row)

    def flush(self) -> None:
        """Write what waits; raises UnavailableError when it could not be written, and keeps it."""
        with self._writing:
            while self._labels:
                self._log.label(self._labels.popleft())
                self._added += 1
            while self._entries:
                self._log.decision(row_of(self._entries.popleft(), self._decision_point))
                self._added += 1
            try:
                done = self._log.flush()
            except (OSError, UnavailableError, InvalidDocumentError) as error:
                self.errors += 1
                raise UnavailableError(f"decision log: {error}; free the disk or start its database") from error
            self._added = 0
            self.written += done.written
            self.quarantined += done.quarantined

    def close(self) -> bool:
        """Write the rest and return whether nothing waits any more."""
        self._ended.set()
        self._thread.join()
        try:
            self.flush()
        except UnavailableError:
            return False
        return True

    def _run(self) -> None:
        while not self._ended.wait(self._flush_s):
            try:
                self.flush()
            except UnavailableError:
                continue  # counted; the rows wait for the next time
