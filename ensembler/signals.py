"""Being told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Exit code of a process that SIGTERM has ended.
TERMINATED = 128 + signal.SIGTERM


@contextmanager
def told_to_end() -> Iterator[None]:
    """Has SIGTERM end what is under way as Ctrl-C does: stages noted, workers ended, temporary files removed."""

    told = False

    def end(number: int, frame: object) -> None:
        nonlocal told
        del number, frame
        told = True
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit as error:
        if told and error.code != TERMINATED:  # where Ray waits for its workers it makes a 1 of any code
            raise SystemExit(TERMINATED) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
