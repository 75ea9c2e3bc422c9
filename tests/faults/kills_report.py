"""What a campaign of kills has found, as a section of the report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tests.sections import table, write_section

HEADING = "Killed at any moment"

#: What of a round's record must be empty, and what it says.
FINDINGS = {
    "touched": "files of finished Cells lost or written again",
    "retrained": "finished Cells trained again",
    "torn": "files that a reader found torn",
    "over_repeated": "interruptions that cost more than one epoch",
    "different": "files and tables that differ from the undisturbed run's",
    "orphans": "processes that outlived their driver by two minutes",
    "unexpected": "drivers that ended otherwise than they should have",
}


def write(file: Path, told: dict[str, Any], stages: tuple[str, ...]) -> None:
    """Writes the section."""
    kills = [k for k in told["kills"] if k["signal"] == "KILL"]
    rounds = told["rounds"]
    write_section(file, HEADING, "\n\n".join([_intro(told, kills), _by_stage(kills, stages), _steps(kills),
                                              _gentle(told), _found(rounds)]))  # fmt: skip


def _intro(told: dict[str, Any], kills: list[dict[str, Any]]) -> str:
    rounds = told["rounds"]
    victims = Counter(k["victim"] for k in kills)
    writing = sum(k["way"] == "write" for k in kills)
    return (
        f"`python -m tests.faults.kills HOME --kills {len(kills)} --seed {told['seed']}` (`make faults`) at "
        f"{', '.join(told['commits'])}, {told['seconds'] / 60:.0f} minutes on two cores that were shared. "
        f"{len(kills)} times `kill -9`: {victims['driver']} drivers, {victims['worker']} workers; {writing} of them "
        f"({writing / max(1, len(kills)):.0%}) right before a step of a write into the run directory, the others at "
        f"random moments of a stage. {len(rounds)} runs of 60 images, two backbones, a search of four trials, three "
        f"ensembles and a test split; each was resumed until it was over, "
        f"{sum(r['lives'] for r in rounds) / max(1, len(rounds)):.0f} times. A reader read every file "
        f"of the run all the while, {sum(r['reads'] for r in rounds):,} times."
    )


def _by_stage(kills: list[dict[str, Any]], stages: tuple[str, ...]) -> str:
    counts = Counter((k["stage"], k["victim"], k["way"]) for k in kills)
    columns = [(victim, way) for victim in ("driver", "worker") for way in ("moment", "write")]
    rows: list[list[Any]] = [[stage, *(counts[(stage, *column)] for column in columns)] for stage in stages]
    rows.append(["all", *(sum(counts[(s, *column)] for s in stages) for column in columns)])
    head = ["stage", "driver, any moment", "driver, in a write", "worker, any moment", "worker, in a write"]
    return table(head, rows)


def _steps(kills: list[dict[str, Any]]) -> str:
    steps = Counter((k["victim"], k["path"], k["step"]) for k in kills if k["way"] == "write")
    rows = [[victim, path, step, n] for (victim, path, step), n in sorted(steps.items())]
    return "Kills in a write, by what was written and the step that never happened:\n\n" + table(
        ["who", "what", "before", "kills"], rows
    )


def _gentle(told: dict[str, Any]) -> str:
    signals = Counter((k["signal"], k.get("code")) for k in told["kills"] if k["signal"] != "KILL")
    names = {"TERM": "SIGTERM", "INT": "Ctrl-C once", "INT twice": "Ctrl-C twice"}
    rows = [[names[name], code, n] for (name, code), n in sorted(signals.items(), key=str)]
    return "Beside them, gentler ends of a driver, which the same checks follow:\n\n" + table(
        ["signal", "exit code", "times"], rows
    )


def _found(rounds: list[dict[str, Any]]) -> str:
    rows = [[text, sum(len(r[key]) for r in rounds)] for key, text in FINDINGS.items()]
    return (
        table(["what would be a loss", "found"], rows)
        + f"\n\nInterruptions of a trial in training: {sum(r['interruptions'] for r in rounds):,}; epochs that they "
        f"had trained again: {sum(r['repeated'] for r in rounds):,} of {sum(r['epochs'] for r in rounds):,}. Compared "
        "with the undisturbed run, byte by byte: predictions and weights of every Cell, state and predictions of every "
        "ensemble; value by value: the leaderboard (but for what the clock measures), the verdict, the answers on the "
        "test split."
    )
