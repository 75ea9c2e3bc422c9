"""A target: how cases are made of choices, and what is done with each; the same for the short run and for the long one.

Hypothesis does not drive the short run: it draws on constants of whatever modules happen to be imported, so that its
cases would be others in each process. It draws the few whole pages of the app, where it can shrink what it finds.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensembler.errors import EnsemblerError

from .choices import Choices, Read
from .guard import Guard

#: Cases of a target in the short run.
CASES = int(os.environ.get("FUZZ_CASES", "1000"))

#: Bytes that a case may be made of; choices that go beyond them are the least there is.
LENGTHS = (16, 64, 512, 4096)


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    Attributes:
        name: of the target.
        prepare: makes, once, what all cases share, in the folder that it is given.
        generate: a case from choices; it does not touch the disk.
        run: does with a case what the product does with such input; raises an EnsemblerError, or nothing.
    """

    name: str
    prepare: Callable[[Path], Any]
    generate: Callable[[Choices, Any], Any]
    run: Callable[[Any, Any, Path], object]

    def ready(self, home: Path) -> tuple[Callable[[Choices], Any], Callable[[Any], str]]:
        """What makes a case, and what runs one and tells its outcome; the folder is empty."""
        guard = Guard(home)
        shared = self.prepare(guard.inside)
        with contextlib.suppress(EnsemblerError):  # what is imported on first use is no case's doing
            self.run(self.generate(Read(b""), shared), shared, guard.inside)
        return lambda choices: self.generate(choices, shared), lambda case: guard.run(
            lambda: self.run(case, shared, guard.inside)
        )

    def hold(self, home: Path, cases: int = CASES) -> Counter[str]:
        """Runs cases made of seeded bytes, the same ones every time; returns how often there was each outcome."""
        make, run = self.ready(home)
        outcomes: Counter[str] = Counter()
        for number in range(cases):
            dice = random.Random(f"{self.name} {number}")
            case = make(Read(dice.randbytes(dice.choice(LENGTHS))))
            try:
                outcomes[run(case)] += 1
            except BaseException as error:
                error.add_note(f"case {number} of {self.name}: {case!r:.2000}")
                raise
        return outcomes
