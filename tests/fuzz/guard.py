"""What no input may bring about: a hang, a write outside, a connection, a process, a pickle, endless memory."""

# ruff: noqa: PTH118, PTH119, PTH120, PTH114, PTH115, PTH117, PTH208

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ensembler.errors import MOST, EnsemblerError

#: Seconds that one case may take, beside those for which others had the processors.
PATIENCE_S = 5.0

#: Bytes that one case may add to the most that the process has ever held.
MEMORY_BYTES = 512 << 20

#: What nothing here has any reason to do.
NEVER = frozenset(
    ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn",
     "os.spawn", "socket.connect", "socket.bind", "socket.getaddrinfo", "webbrowser.open", "pty.spawn")
)  # fmt: skip

#: Events that change the file system, and which of their arguments are paths.
CHANGES = {
    "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.link": (0, 1), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "shutil.rmtree": (0,),
    "shutil.move": (0, 1), "shutil.copyfile": (1,), "tempfile.mkstemp": (0,), "tempfile.mkdtemp": (0,),
}  # fmt: skip

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Violation(AssertionError):
    """Something that no input may bring about."""


class Hang(BaseException):
    """Raised by the alarm; no `except Exception` takes it for an error of the input."""


class Guard:
    """Watches one case after another.

    Args:
        home: the folder of the cases; `home/inside` is where a case may write, and whatever else is in `home` must stay
            as it is. A file that nobody may read lies in `home/secret`.

    Attributes:
        inside: see there.
    """

    def __init__(self, home: Path) -> None:
        home = home.resolve()
        self.home, self.inside = home, home / "inside"
        self.inside.mkdir()
        self.secret = home / "secret"
        self.secret.write_text("secret")
        self._roots = (str(self.inside), "/dev/null")
        self._seen: list[str] = []
        self._watching = False
        # What other tests of this process have left running is no case's doing.
        self._strangers = weakref.WeakSet(threading.enumerate())
        self._strangers.discard(threading.current_thread())
        sys.addaudithook(self._audit)

    def run(self, case: Callable[[], object]) -> str:
        """What became of a case: "accepted", or the kind of its refusal without what is particular to it.

        Raises:
            Violation: see the head of this file.
        """
        entries, most, clock = sorted(os.listdir(self.home)), _most_bytes(), _Clock()
        self._seen.clear()
        previous = signal.signal(signal.SIGALRM, clock.alarm)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        self._watching = True
        try:
            case()
            outcome = "accepted"
        except EnsemblerError as error:
            outcome = _refusal(error)
        except Hang as error:
            raise Violation(f"took more than {PATIENCE_S:g} s") from error
        finally:
            self._watching = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        if self._seen:
            raise Violation("; ".join(self._seen[:3]))
        if sorted(os.listdir(self.home)) != entries:  # written by what the interpreter does not see
            raise Violation(f"changed {self.home}")
        if clock.seconds() > PATIENCE_S:
            raise Violation(f"took {clock.seconds():.1f} s")
        if (grown := _most_bytes() - most) > MEMORY_BYTES:
            raise Violation(f"took {grown >> 20} MiB of memory")
        return outcome

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._watching or threading.current_thread() in self._strangers:
            return
        if event == "open":
            path, mode, flags = args
            writing = bool(flags & _WRITING) if isinstance(flags, int) else "r" not in str(mode)
            if isinstance(path, str | bytes | os.PathLike):
                self._look("opened for writing", path) if writing else self._look_at_reading(path)
        elif event in CHANGES:
            for i in CHANGES[event]:
                if isinstance(args[i], str | bytes | os.PathLike):
                    self._look(event, _placed(args[i], args[-1]))
        elif event in NEVER:
            self._seen.append(f"{event} {args!r:.200}")

    def _look(self, what: str, path: Any) -> None:
        # By the resolved folder: a link inside that leads outside is outside.
        text = os.fsdecode(path)
        real = os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))
        if os.path.islink(real) and what == "opened for writing":
            real = os.path.realpath(real)
        if not real.startswith(self._roots) and "__pycache__" not in real:
            self._seen.append(f"{what}: {text!r}")

    def _look_at_reading(self, path: Any) -> None:
        if os.path.realpath(os.fsdecode(path)) == str(self.secret):
            self._seen.append(f"read what lies outside: {path!r}")


def _placed(path: Any, folder: object) -> str:
    """A path that may be relative to an open folder, as `shutil.rmtree` gives it."""
    text = os.fsdecode(path)
    if isinstance(folder, int) and folder >= 0 and not os.path.isabs(text):
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    return text


class _Clock:
    """Seconds since it was made, without those for which this thread could have run but others had the processors."""

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), _waited_s()

    def seconds(self) -> float:
        return time.monotonic() - self._began - (_waited_s() - self._waited)

    def alarm(self, signum: int, frame: FrameType | None) -> None:
        left = PATIENCE_S - self.seconds()
        if left <= 0:
            raise Hang
        signal.setitimer(signal.ITIMER_REAL, left + 0.01)


def _waited_s() -> float:
    """What the scheduler has kept this thread waiting; 0 where it does not tell."""
    try:
        handle = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        return 0.0
    try:
        return int(os.read(handle, 100).split()[1]) / 1e9
    finally:
        os.close(handle)


def _most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _refusal(error: EnsemblerError) -> str:
    """The kind of a refusal, after a look at its words."""
    text = str(error)
    if not text.strip() or not text.isprintable():
        raise Violation(f"not one line of printable text: {text!r:.300}") from error
    if len(text) > MOST + 5:
        raise Violation(f"{len(text)} characters: {text:.300}") from error
    text.encode()  # what cannot be written to a terminal or a log helps nobody
    words = re.sub(r"/\S*?(?=[:;,) ]|$)|'(?:[^'\\]|\\.)*'|\"[^\"]*\"|\d[\d.,e+-]*|\[.*\]|\{.*\}", "_", text)
    return f"{type(error).__name__}: {' '.join(words.split())[:80]}"
