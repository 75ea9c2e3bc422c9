"""A port for a server that cannot be told to find one itself."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

#: Below those that systems hand out (Linux: from 32,768) and above those of Ray's workers (up to 19,999).
RANGE = range(20_000, 32_000)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and which no connection is given by chance.

    One that the system has handed out may be handed out again before the server takes it; also to who asks whether the
    server is there yet, who is then connected with himself.
    """
    dice = random.SystemRandom()
    while True:
        port = dice.choice(RANGE)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
