"""The campaign: runs whose drivers and workers are killed again and again, at every stage, in and between writes.

    python -m tests.faults.kills HOME [--kills 500] [--seed 0] [--humble]      # goes on where it was left
    python -m tests.faults.kills HOME --report reports/reliability.md

A round is one run: a sequence of lives of its driver, each of which ends by a death but the last, and in each of which
workers die too. What is to die, when and how is drawn from the seed and the number of the round. A third of all deaths
are in the midst of a write (see `hooks/sitecustomize.py`), the others at random moments of a stage. Everything that
happens is appended to `HOME/kills.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensembler.atomic import write_json
from ensembler.events import EventReader
from tests import sections

from .checks import differences, finished_cells, repeated_epochs, retrained, touched, trials_of
from .harness import Driver, Home, Session, forget, humble, wait_for_a_turn
from .lives import STAGES, Companion, Life, plan_round
from .reading import Watch, read_everything


class Campaign:
    """Rounds of kills, and the file that remembers them.

    Args:
        home: everything is below it.
        seed: of the rounds.
        is_humble: at the lowest priority, and only while there is anything left of the machine.
        pause: no life begins while this file exists.
    """

    def __init__(self, home: Path, seed: int, is_humble: bool, pause: Path | None = None) -> None:
        self.pause = pause
        self.home_path = home
        self.seed = seed
        self.is_humble = is_humble
        self.file = home / "kills.json"
        self.told: dict[str, Any] = (
            json.loads(self.file.read_text())
            if self.file.exists()
            else {"seed": seed, "commits": [], "seconds": 0.0, "kills": [], "rounds": []}
        )
        if self.told["seed"] != seed:
            raise SystemExit(
                f"{self.file}: made with seed {self.told['seed']}, not {seed}; give another folder"
            )
        # What a round had killed that was cut off is killed again.
        whole = len(self.told["rounds"])
        self.told["kills"] = [kill for kill in self.told["kills"] if kill["round"] < whole]
        commit = sections.commit()
        if commit not in self.told["commits"]:
            self.told["commits"].append(commit)
        self.home = Home(home / "home", home / "home" / "tiny.yaml")
        if not self.home.config.exists():
            self.home = Home.make(home / "home")
        self.quiet = home / "quiet" / "run"

    @property
    def kills(self) -> int:
        """SIGKILLs so far."""
        return sum(kill["signal"] == "KILL" for kill in self.told["kills"])

    def run(self, kills: int, minutes: float) -> None:
        """Makes rounds until so many SIGKILLs were sent, or so many minutes have gone by."""
        usual = self._usual()
        until = time.monotonic() + 60 * minutes
        while self.kills < kills and time.monotonic() < until:
            began = time.monotonic()
            number = len(self.told["rounds"])
            outcome = Round(self, number, usual).run()
            self.told["rounds"].append(outcome)
            self.told["seconds"] += time.monotonic() - began
            self.save()
            wrong = {k: v for k, v in outcome.items() if k in WRONG and v}
            print(
                f"round {number}: {self.kills} kills in all, {outcome['seconds']:.0f} s, {wrong or 'all is well'}",
                flush=True,
            )

    def save(self) -> None:
        write_json(self.file, self.told)

    def note(self, **kill: Any) -> None:
        self.told["kills"].append(kill)
        self.save()

    def _usual(self) -> dict[str, list[float]]:
        """What each stage of the run takes that nobody disturbs, which is made here if it is not there yet."""
        file = self.quiet.parent / "usual.json"
        if not file.exists():
            starved = True
            while starved:
                forget(self.quiet.parent)
                wait_for_a_turn(self.pause, self.is_humble)
                session = Session(self.quiet.parent / "session")
                driver = Driver(self.home, self.quiet, session, humble=self.is_humble)
                log = EventReader(self.quiet / "events.jsonl")
                companion = Companion(driver, Life(), log, random.Random(0), {}, self.note)
                companion.end()
                driver.close()
                starved = is_starved(driver)
            assert driver.process.returncode == 0, driver.said
            write_json(file, companion.spent)
        return dict(json.loads(file.read_text()))


def is_starved(driver: Driver) -> bool:
    """Whether Ray could not be started, which on a crowded machine takes longer than it waits."""
    return driver.process.returncode == 2 and "no cluster can be reached or started" in driver.said


#: How often in a round Ray may fail to start, as on a machine that has no time for it.
MOST_STARVED = 5

#: Ray's own agents look for their node once a minute.
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")

#: Of the record of a round: what must be empty.
WRONG = ("torn", "touched", "retrained", "different", "over_repeated", "orphans", "unexpected")


class Round:
    """One run from its first life to its last."""

    def __init__(self, campaign: Campaign, number: int, usual: dict[str, list[float]]) -> None:
        self.campaign = campaign
        self.number = number
        self.usual = usual
        self.path = campaign.home_path / f"round-{number:03d}"
        self.run_path = self.path / "run"
        self.rng = random.Random(f"{campaign.seed}/{number}/moments")
        self.wrong: dict[str, list[Any]] = {name: [] for name in WRONG}
        self.traces: list[list[dict[str, Any]]] = []
        self.left_behind: list[Driver] = []
        self.starved = 0

    def run(self) -> dict[str, Any]:
        """Lives and deaths, then the comparison with the undisturbed run."""
        forget(self.path)
        began = time.monotonic()
        lives = deque(plan_round(self.campaign.seed, self.number))
        with Watch(self.run_path) as watch:
            while lives:
                life = lives.popleft()
                if not self._live(life, len(self.traces)):
                    lives.appendleft(life)
            watch.look()
        self.wrong["torn"] += watch.torn
        if not self.wrong["unexpected"]:
            self.wrong["different"] += differences(self.run_path, self.campaign.quiet)
        costs = repeated_epochs(self.traces)
        self.wrong["over_repeated"] += [cost for cost in costs if cost[1] > 1]
        for driver in self.left_behind:
            self.wrong["orphans"] += driver.wait_for_orphans(120.0, AGENTS)
            driver.close()
        if not any(self.wrong.values()):
            forget(self.path)
        return {
            "round": self.number,
            "lives": len(self.traces),
            "seconds": round(time.monotonic() - began, 1),
            "starved": self.starved,
            "reads": watch.rounds,
            "interruptions": len(costs),
            "repeated": sum(max(0, cost) for _, cost in costs),
            "epochs": sum(line["what"] == "epoch" for trace in self.traces for line in trace),
            **self.wrong,
        }

    def _live(self, life: Life, number: int) -> bool:
        """One life; False if it was starved."""
        wait_for_a_turn(self.campaign.pause, self.campaign.is_humble)
        before = finished_cells(self.run_path)
        log = EventReader(self.run_path / "events.jsonl")
        log.read()
        session = Session(
            self.path / f"life-{number:02d}",
            (life.stage, life.step) if life.step else None,
            tuple(step for step in life.workers if step),
        )
        driver = Driver(self.campaign.home, self.run_path, session, humble=self.campaign.is_humble)
        stage = Companion(driver, life, log, self.rng, self.usual, self._note).end()
        code = driver.process.returncode
        starved = is_starved(driver)
        if starved and self.starved < MOST_STARVED:
            self.starved += 1
        else:
            self._judge(life, code, driver, stage)
        for death in session.deaths():
            role = str(death["role"])
            self._note(
                victim=role, way="write", stage=death["stage"], step=death["step"], path=_kind(death["path"])
            )
        self.traces.append(session.trace())
        self.wrong["torn"] += read_everything(self.run_path)
        self.wrong["touched"] += touched(before, finished_cells(self.run_path))
        self.wrong["retrained"] += retrained(trials_of(before), self.traces[-1])
        if life.patient:
            self.wrong["orphans"] += driver.wait_for_orphans(120.0, AGENTS)
            driver.close()
        else:
            self.left_behind.append(driver)
        return not starved

    def _note(self, **kill: Any) -> None:
        self.campaign.note(round=self.number, **{"signal": "KILL", **kill})

    def _judge(self, life: Life, code: int, driver: Driver, stage: str) -> None:
        """Whether the driver ended as it was to."""
        killed = code == -signal.SIGKILL
        if killed and not life.step:
            self._note(victim="driver", way="moment", stage=stage)
        gentle = bool(life.signals) and life.signals[0] != signal.SIGKILL
        if gentle:
            name = {signal.SIGTERM: "TERM", signal.SIGINT: "INT" if len(life.signals) == 1 else "INT twice"}
            self._note(
                signal=name[signal.Signals(life.signals[0])],
                victim="driver",
                way="moment",
                stage=stage,
                code=code,
            )
        tidy = code == 0 or (gentle and code != 1) or (killed and bool(life.stage))
        if not tidy or "Traceback" in driver.said:
            self.wrong["unexpected"].append(
                f"life {len(self.traces)} ({life}): exit {code}: {driver.said[-1500:]}"
            )


def _kind(path: str) -> str:
    """What of a run a path belongs to: its first folder, or the file's name."""
    return (
        path.split("/", maxsplit=1)[0]
        if "/" in path
        else path.split("-", 2)[-1]
        if path.startswith(".tmp-")
        else path
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the campaign, or writes its report; exit 1 if anything was lost, torn or different."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("home", type=Path)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="no round begins after so many")
    parser.add_argument("--pause", type=Path, help="no life begins while this file exists")
    parser.add_argument(
        "--humble", action="store_true", help="at the lowest priority, with all that Ray starts"
    )
    parser.add_argument("--report", type=Path, help="write the counts into this file instead of killing")
    options = parser.parse_args(argv)
    if options.humble:
        humble("self")
    options.home.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(options.home.resolve(), options.seed, options.humble, options.pause)
    if options.report:
        from .kills_report import write

        write(options.report, campaign.told, STAGES)
        return 0
    campaign.run(options.kills, options.minutes)
    return int(any(outcome[name] for outcome in campaign.told["rounds"] for name in WRONG))


if __name__ == "__main__":
    sys.exit(main())
