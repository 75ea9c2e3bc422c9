"""What a sweep does not wait for: a worker that has fallen silent, and a cluster on which nothing can start.

Plain Python with a clock that is handed in; `bridge.py` tells it what Tune sees, and acts on what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..duration import duration
from ..training.candidate import TrainingData

#: No trial is given up before it has been silent for so long, unless the config says so.
FLOOR_S = 30 * 60.0

#: Silence of a trial whose backbone has neither been timed nor reported anything.
UNKNOWN_S = 6 * 3600.0

#: By how many times a report may take longer than the longest that is known.
FACTOR = 20.0

#: Between two looks no more than this counts: a driver that was itself stopped or starved has heard nobody.
LOOK_S = 10.0

#: Nothing runs, and no node that is left could run a trial: one that restarts is waited for.
NO_NODE_S = 5 * 60.0

Stalled = float | Literal["auto"]


class Clock:
    """Seconds since it was last asked, as far as they count."""

    def __init__(self) -> None:
        self._last: float | None = None

    def passed(self, now: float) -> float:
        """Since the last call, at most `LOOK_S`."""
        last, self._last = self._last, now
        return 0.0 if last is None else min(now - last, LOOK_S)


class Watchdog:
    """Says which trials have been silent for longer than any of their kind needs.

    A trial reports after each epoch, after its holdout, and, on frozen features, once. With `auto` it may be silent for
    `FACTOR` times the longest of what its backbone has needed for one report so far and of what its measured speed
    says of a pass over all images; never less than `FLOOR_S`.

    Args:
        stalled_after: seconds of silence; "auto" derives them.
        pass_s: seconds of training on all images once, by backbone; None where it was not measured.
    """

    def __init__(
        self, stalled_after: Stalled = "auto", pass_s: Callable[[str], float | None] = lambda _backbone: None
    ) -> None:
        self._stalled_after = stalled_after
        self._pass_s = pass_s
        self._longest: dict[str, float] = {}
        self._silent: dict[str, tuple[str, float]] = {}
        self._clock = Clock()

    def began(self, trial: str, backbone: str) -> None:
        """A worker took a trial; "" is no backbone: it only keeps the worker alive."""
        self._silent[trial] = backbone, 0.0
        expected = self._pass_s(backbone) if backbone else None
        if expected is not None:
            self._longest[backbone] = max(self._longest.get(backbone, 0.0), expected)

    def heard(self, trial: str, step_s: float) -> None:
        """It reported, after a step that took so long."""
        if trial in self._silent:
            backbone, _ = self._silent[trial]
            self._longest[backbone] = max(self._longest.get(backbone, 0.0), step_s)
            self._silent[trial] = backbone, 0.0

    def ended(self, trial: str) -> None:
        """It ended, whatever the end."""
        self._silent.pop(trial, None)

    def patience_s(self, backbone: str) -> float:
        """Seconds that a trial of a backbone may report nothing."""
        if self._stalled_after != "auto":
            return self._stalled_after
        longest = self._longest.get(backbone)
        return UNKNOWN_S if longest is None else max(FLOOR_S, FACTOR * longest)

    def overdue(self, now: float) -> dict[str, str]:
        """Trials to be given up, each told once, with the reason.

        Args:
            now: `time.monotonic()`.
        """
        passed = self._clock.passed(now)
        late = {}
        for trial, (backbone, before) in list(self._silent.items()):
            silent = before + passed
            self._silent[trial] = backbone, silent
            if silent > self.patience_s(backbone):
                late[trial] = f"hung: its worker reported nothing for {duration(silent)} and was ended"
                self.ended(trial)
        return late


class Standstill:
    """Says when nothing runs and nothing will.

    Args:
        cpus: that one trial wants.
        gpus: that one trial wants.
    """

    def __init__(self, cpus: float, gpus: float) -> None:
        self._wanted = {"CPU": cpus, "GPU": gpus}
        self._clock = Clock()
        self._still = 0.0

    def problem(
        self, now: float, running: bool, resources: Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]]
    ) -> str:
        """Why the sweep has to end, or "".

        Where the nodes have room that is taken, by somebody else's work, a trial waits for its turn.

        Args:
            now: `time.monotonic()`.
            running: whether any worker has a trial.
            resources: what the nodes that are left have, and what of it is free.
        """
        passed = self._clock.passed(now)
        self._still = 0.0 if running else self._still + passed
        if self._still < NO_NODE_S:
            return ""
        total, free = resources()
        again = "run the same command again to go on"
        if not self._fits(total):
            return (
                f"Ray: no node is left that can run a trial, for {duration(self._still)}: one wants "
                f"{self._words(self._wanted)}, all nodes together have {self._words(total)}; start nodes, and {again}"
            )
        if self._still >= FLOOR_S and self._fits(free):
            return (
                f"Ray: no worker has started for {duration(self._still)}, though {self._words(free)} are free and a "
                f"trial wants {self._words(self._wanted)}; see Ray's logs, restart the cluster, and {again}"
            )
        return ""

    def _fits(self, found: Mapping[str, Any]) -> bool:
        return all(found.get(key, 0.0) >= wanted for key, wanted in self._wanted.items() if wanted)

    def _words(self, found: Mapping[str, Any]) -> str:
        return f"{found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs"


def watchdog_for(
    stalled_after: Stalled, data: TrainingData, manifest: Callable[[], Mapping[str, Any]]
) -> Watchdog:
    """The watchdog of a run, which reads speeds as the run's manifest learns them."""

    def pass_s(backbone: str) -> float | None:
        speeds = manifest().get("numerics", {}).get(backbone, {}).get("images_per_s")
        return len(data.labels) / max(speeds.values()) if speeds else None

    return Watchdog(stalled_after, pass_s)
