"""A target: how cases are made of choices, and what is done with each; the same for Hypothesis and for the long run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ensembler.errors import EnsemblerError

from .choices import Choices, Drawn, Read
from .guard import Guard

#: Cases of a target in the short run.
CASES = int(os.environ.get("FUZZ_CASES", "1000"))


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    Attributes:
        name: of the target.
        prepare: makes, once, what all cases share, in the folder that it is given.
        generate: a case from choices; it does not touch the disk.
        run: does with a case what the product does with such input; raises an EnsemblerError, or nothing.
        modules: of others whose coverage leads the long run, beside our own.
    """

    name: str
    prepare: Callable[[Path], Any]
    generate: Callable[[Choices, Any], Any]
    run: Callable[[Any, Any, Path], object]
    modules: tuple[str, ...] = ()

    def ready(self, home: Path) -> tuple[Callable[[Choices], Any], Callable[[Any], str]]:
        """What makes a case, and what runs one and tells its outcome; the folder is empty."""
        guard = Guard(home)
        shared = self.prepare(guard.inside)
        with contextlib.suppress(EnsemblerError):  # what is imported on first use is no case's doing
            self.run(self.generate(Read(b""), shared), shared, guard.inside)
        return lambda choices: self.generate(choices, shared), lambda case: guard.run(
            lambda: self.run(case, shared, guard.inside)
        )

    def hold(self, home: Path, cases: int = CASES) -> dict[str, int]:
        """Runs cases drawn by Hypothesis, the same ones every time; returns how often there was each outcome."""
        make, run = self.ready(home)
        outcomes: dict[str, int] = {}

        @st.composite
        def drawn(draw: st.DrawFn) -> Any:
            return make(Drawn(draw))

        @settings(
            max_examples=cases, derandomize=True, database=None, deadline=None, print_blob=False,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
        )  # fmt: skip
        @given(drawn())
        def each(case: Any) -> None:
            outcome = run(case)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

        each()
        return outcomes
