"""Why a worker died, in one line, from what Ray says of it in many."""

from __future__ import annotations

import re

#: No reason on a leaderboard is longer.
MOST_CHARACTERS = 300

#: What Ray's words hold, in the order in which they are looked for, and what we say instead.
_CAUSES = (
    (r"node (has died|was terminated|is dead)|died because its node", "its node was lost"),
    (
        r"memory usage threshold|due to the node running low on memory|\(OOM\)\.",
        "out of memory: Ray ended its worker, because nearly all memory of the machine was in use",
    ),
    (
        r"worker (process )?has died|worker process died|Worker exit type",
        "its worker died: it was killed, as the system does when memory runs out, or it crashed",
    ),
)

#: What Python, numpy, torch and pyarrow say where they get no memory.
_NO_MEMORY = re.compile(
    r"[\w.]*MemoryError\b|RuntimeError: .*(DefaultCPUAllocator|out of memory)|.*std::bad_alloc"
)


def cause_of(error: str) -> str:
    """What a person has to know of an error of Ray's.

    Args:
        error: of one or more attempts, as Tune notes them; the last counts.

    >>> cause_of("Failure # 1 (occurred at noon)\\ntrace\\nOSError: [Errno 5] Input/output error: 'a.npy'")
    "OSError: [Errno 5] Input/output error: 'a.npy'"
    """
    last = re.split(r"^Failure # \d+ .*$", error, flags=re.MULTILINE)[-1].strip()
    lines = last.splitlines() or ["its worker died"]
    for pattern, words in _CAUSES:
        if re.search(pattern, last):
            return words
    said = lines[-1].strip()
    if _NO_MEMORY.match(said):
        said = f"out of memory: {said}"
    return said if len(said) <= MOST_CHARACTERS else said[: MOST_CHARACTERS - 3] + "..."
