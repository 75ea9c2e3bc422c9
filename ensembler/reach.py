"""Can the hub be reached? Found out within two seconds, where its own client would retry for a minute a file."""

from __future__ import annotations

import os
import re
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

#: Seconds to wait for the hub before it is said to be out of reach.
HUB_TIMEOUT_S = 2.0

#: What each hub was found to be in this process: a dead network costs its timeout once, not once a backbone.
_ANSWERS: dict[tuple[str | None, ...], str | None] = {}


def hub_out_of_reach() -> str | None:
    """`hub_problem` of this machine's hub, asked once a process as long as its address and proxies stay the same."""
    from huggingface_hub import constants

    proxies = getproxies()
    key = (
        constants.ENDPOINT,
        os.environ.get("HF_HUB_OFFLINE"),
        *(f"{k} {proxies[k]}" for k in sorted(proxies)),
    )
    if key not in _ANSWERS:
        _ANSWERS[key] = hub_problem(constants.ENDPOINT)
    return _ANSWERS[key]


def hub_problem(endpoint: str) -> str | None:
    """Why the hub cannot be reached, found within `HUB_TIMEOUT_S`; None when it answers.

    One TCP connection, to the proxy where one is set: the hub's own client retries a dead network for a minute a
    file.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set"
    url = urlsplit(endpoint)
    proxy = getproxies().get(url.scheme) or getproxies().get("all")
    if proxy and not proxy_bypass(url.netloc):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    problems = [f"no answer within {HUB_TIMEOUT_S:g} s"]

    def connect() -> None:
        try:
            port = url.port or (443 if url.scheme == "https" else 80)
            socket.create_connection((url.hostname or "", port), timeout=HUB_TIMEOUT_S).close()
            problems.clear()
        except (OSError, ValueError) as error:
            problems[:] = [f"{type(error).__name__}: {error}"]

    # In a thread: looking the name up, and trying one address after another, know no common limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    return problems[0] if problems else None


def why_refused(error: Exception) -> str:
    """The first line of what a hub's client raised, without the password that an address in it may hold.

    >>> why_refused(ValueError("403 Forbidden for http://someone:secret@hub.example/x"))
    '403 Forbidden for http://hub.example/x'
    """
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"(?<=://)[^/\s]*@", "", said)
