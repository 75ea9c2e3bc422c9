"""Workers that die, hang or cannot read their images, through real Ray: the trial is tried again twice at most, then on
record with its reason; the others go on; nothing waits for ever.

A fault happens to trials with one weight decay, on the fold of the search, after their first epoch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.cli import main
from ensembler.errors import TrainingError
from ensembler.experiment import Experiment
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate, CellJob
from ensembler.tuning import sweep as sweep_module
from ensembler.tuning import watchdog
from ensembler.tuning.bridge import RETRIES
from ensembler.tuning.execute import execute
from ensembler.tuning.plan import Outcome, Trial
from ensembler.tuning.progress import Observers
from tests.without_ray import without_ray

CONFIG = """
name: faults
data: {source: images/train, image_size: 32}
folds: {k: 2, seed: 0, monitor: 0.2}
backbones: [{test_resnet: {weights: random}}]
recipe: {batch_size: 8, flip: false, lr: 1e-3, head_lr: 1e-2, layer_decay: 1.0, label_smoothing: 0.1, dropout: 0.0,
  augment: 0.5}
search: {trials: %d, epochs: 2, algorithm: grid, scheduler: none, space: {weight_decay: %s}}
keep: 99
ensembles: [mean]
numerics: {precision: fp32, channels_last: true}
resources: {cpus: 1, stalled_after: %s}
"""

#: What silence is given to those to whom it happens to hang.
STALLED_AFTER = "10s"

#: Weight decay -> what happens, and in how many attempts.
Plan = Mapping[float, tuple[str, int]]


def _faulty(plan: Plan, home: Path) -> Callable[..., Any]:
    """`fit_cell` for the workers of a plan; defined in here, so that it travels by value."""

    def happen(fault: str, decay: float) -> None:
        import mmap
        import resource
        import signal

        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out
        elif fault == "crashed":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif fault == "memory":
            limit = 64 * 2**20 + int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
            resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
            np.ones(2**28)
        elif fault in ("hung", "stuck", "frozen"):
            hang(fault, decay)
        elif fault == "data":
            raise OSError(5, "Input/output error", "images.npy")

    def hang(fault: str, decay: float) -> None:
        import signal

        (home / f"hangs-{decay}").touch()
        if fault == "hung":
            time.sleep(3600)
        elif fault == "stuck":  # in C, with the interpreter's lock held
            re.match(r"(a+)+$", "a" * 60 + "b")
        else:
            os.kill(os.getpid(), signal.SIGSTOP)

    def train(job: CellJob, data: Any) -> Any:
        from ensembler.training.loop import fit_cell

        decay = job.candidate.recipe.weight_decay
        fault, times = plan.get(decay, ("", 0)) if job.fold == 0 else ("", 0)
        tries = home / f"tries-{decay}-{job.fold}"
        with tries.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(tries.read_text().splitlines()) > times:
            fault = ""
        if fault == "lost":
            data = dataclasses.replace(data, pixels=home / "lost.npy")
        if fault == "nan":
            recipe = dataclasses.replace(job.candidate.recipe, lr=1e30, head_lr=1e30, warmup=0.0, clip=0.0)
            job = dataclasses.replace(job, candidate=dataclasses.replace(job.candidate, recipe=recipe))
        run = fit_cell(job, data)
        while True:
            try:
                epoch = next(run)
            except StopIteration as end:
                return end.value
            yield epoch
            happen(fault, decay)

    return train


class Watched(watchdog.Watchdog):
    """Counts the silence of a worker from when it hangs: on a machine that others use, a healthy one may be silent for
    as long as one that hangs is waited for.

    Attributes:
        taken: the trial that a worker has just taken.
    """

    def __init__(self, given: watchdog.Watchdog, home: Path) -> None:
        super().__init__(given.patience_s("test_resnet"))
        self.taken: Trial | None = None
        self._home = home
        self._notes: dict[str, Path] = {}

    def began(self, trial: str, backbone: str) -> None:
        if self.taken is not None:
            self._notes[trial] = self._home / f"hangs-{self.taken.job.candidate.recipe.weight_decay}"
            self.taken = None
        super().began(trial, backbone)

    def overdue(self, now: float) -> dict[str, str]:
        for trial in list(self._silent):
            if trial not in self._notes or not self._notes[trial].exists():
                self.heard(trial, 0.0)
        late = super().overdue(now)
        for trial in late:
            self._notes[trial].unlink()
        return late


@dataclasses.dataclass
class Told:
    """Tells the watchdog which trial was taken."""

    dog: Watched

    def started(self, trial: Trial, stage_total: int) -> None:
        self.dog.taken = trial

    def epoch(self, trial: Trial, report: Mapping[str, Any]) -> None: ...

    def retried(self, trial: Trial, reason: str, attempt: int) -> None: ...

    def ended(self, trial: Trial, outcome: Outcome) -> None: ...


def _with_faults(plan: Plan, home: Path) -> Callable[..., None]:
    """`execute` with the workers of a plan."""

    def run(
        chain: Any,
        data: Any,
        sink: Any,
        resources: Any,
        observer: Any,
        *rest: Any,
        watchdog: Any,
        **options: Any,
    ) -> None:
        dog = Watched(watchdog, home)
        both = Observers([observer, Told(dog)])
        train = _faulty(plan, home)
        execute(chain, data, sink, resources, both, *rest, train=train, watchdog=dog, **options)

    return run


@dataclasses.dataclass
class Swept:
    """A run whose sweep went through a plan of faults."""

    home: Path
    run: Path
    plan: Plan
    text: str

    @property
    def store(self) -> RunStore:
        return RunStore(self.run)

    def trial(self, fault: str) -> dict[str, Any]:
        """The trial of the search to which a fault of the plan happened."""
        decay = next(decay for decay, (name, _) in self.plan.items() if name == fault)
        return next(
            t for t in self.store.trials() if t["candidate"]["recipe"]["weight_decay"] == pytest.approx(decay)
        )

    def workers(self, fault: str) -> list[str]:
        """The process of each attempt."""
        decay = next(decay for decay, (name, _) in self.plan.items() if name == fault)
        return (self.home / f"tries-{decay}-0").read_text().split()

    def retries(self, fault: str) -> list[dict[str, Any]]:
        number = self.trial(fault)["number"]
        return [e for e in self.store.events() if e["kind"] == "retry" and e["number"] == number]


def _sweep(home: Path, write_experiment: Callable[..., Path], plan: Plan) -> Swept:
    decays = list(plan)
    config = write_experiment(home, CONFIG % (1 + len(decays), decays, STALLED_AFTER), 36)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(None):
        patch.setattr(sweep_module, "execute", _with_faults(plan, home))
        Experiment.from_config(config, home / "run").run()
    return Swept(home, home / "run", plan, "")


def _board(swept: Swept, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["leaderboard", str(swept.run)]) == 0
    return capsys.readouterr().out


#: Each costs a worker that is started anew, some seconds of CPU.
SHORT: Plan = {0.013: ("killed", 9), 0.023: ("hung", 1), 0.033: ("lost", 1), 0.043: ("nan", 9)}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, write_experiment: Callable[..., Path]) -> Swept:
    return _sweep(tmp_path_factory.mktemp("short"), write_experiment, SHORT)


def test_a_trial_whose_worker_is_killed_each_time_is_given_up_and_the_others_are_ranked(
    short: Swept, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = short.trial("killed")
    assert trial["status"] == "failed"
    assert trial["reason"] == (
        "its worker died: it was killed, as the system does when memory runs out, or it crashed (tried 3 times)"
    )
    assert len(set(short.workers("killed"))) == 1 + RETRIES
    assert [r["attempt"] for r in short.retries("killed")] == [1, 2]
    assert all("its worker died" in r["reason"] for r in short.retries("killed"))
    assert f"{trial['name']}: {trial['reason']}" in " ".join(_board(short, capsys).split())
    ranked = {row["name"] for row in short.store.leaderboard() or []}
    assert ranked == {"mean", *(t["name"] for t in short.store.trials() if t["status"] == "finished")}
    assert len(ranked) == 1 + 3


def _assert_as_if_nothing_had_happened(swept: Swept, fault: str) -> None:
    from ensembler.training.loop import train_cell

    trial = swept.trial(fault)
    assert (trial["status"], trial["reason"]) == ("finished", "")
    assert [h["epoch"] for h in trial["history"]] == [1, 2]
    candidate = Candidate.from_dict(trial["candidate"])
    cell = swept.store.cell(candidate.id, 0)
    data, numerics = _training_data(swept), swept.store.manifest()["numerics"]["test_resnet"]
    from ensembler.training.candidate import Numerics

    alone = train_cell(CellJob(candidate, 0, 0, Numerics.from_dict(numerics), 1), data)
    np.testing.assert_array_equal(cell.proba, alone.proba)


def _training_data(swept: Swept) -> Any:
    from ensembler.training.candidate import TrainingData

    experiment = Experiment.from_run(swept.run)
    preparation = experiment.preparation
    images, folds = preparation.prepare(preparation.backbones())
    return TrainingData(
        images.oof,
        images.table.oof.labels,
        images.table.classes,
        tuple((f.train, f.monitor, f.holdout) for f in folds),
        images.table.fingerprint,
        {},
        swept.home / "features",
    )


def test_a_worker_that_hangs_is_ended_and_its_trial_has_the_bits_that_it_would_have_had(short: Swept) -> None:
    (retry,) = short.retries("hung")
    assert re.fullmatch(r"hung: its worker reported nothing for [12]\d s and was ended", retry["reason"])
    first, second = short.workers("hung")
    assert first != second
    assert not Path(f"/proc/{first}").exists()
    _assert_as_if_nothing_had_happened(short, "hung")


def test_images_that_cannot_be_read_for_a_moment_cost_one_attempt(short: Swept) -> None:
    (retry,) = short.retries("lost")
    assert retry["reason"].startswith("FileNotFoundError: [Errno 2] No such file or directory:")
    assert retry["reason"].endswith("lost.npy'")
    _assert_as_if_nothing_had_happened(short, "lost")


def test_what_would_be_the_same_to_the_bit_is_not_tried_again(short: Swept) -> None:
    trial = short.trial("nan")
    assert trial["status"] == "failed"
    assert trial["reason"].endswith("lower lr (1e+30) or head_lr (1e+30)")
    assert len(short.workers("nan")) == 1
    assert short.retries("nan") == []


def test_the_same_command_again_tries_again_what_failed_and_nothing_else(
    short: Swept, write_experiment: Callable[..., Path]
) -> None:
    cells = {p: p.stat().st_mtime_ns for p in short.run.glob("cells/*/*/result.json")}
    killed = short.trial("killed")["number"]
    config = short.home / "small.yaml"
    config.write_text(config.read_text().replace(STALLED_AFTER, "auto"))  # nobody hangs any more
    with without_ray():
        Experiment.from_config(config, short.run).run()
    assert {p: p.stat().st_mtime_ns for p in cells} == cells
    again = {t["number"]: t for t in short.store.trials()}
    assert all(t["status"] == "finished" for t in again.values())
    assert again[killed]["reason"] == ""
    assert short.store.manifest()["failed"] == []


# ---------------------------------------------------------------------- every fault, once and for good


LONG: Plan = {
    0.0013 * number: (fault, times)
    for number, (fault, times) in enumerate(
        [
            ("killed", 1), ("crashed", 9), ("memory", 9), ("hung", 9), ("stuck", 1), ("frozen", 1), ("data", 9),
            ("lost", 9),
        ],
        start=1,
    )
}  # fmt: skip

REASONS = {
    "crashed": "its worker died: it was killed, as the system does when memory runs out, or it crashed",
    "memory": "out of memory: ",
    "hung": "hung: its worker reported nothing for ",
    "data": "OSError: [Errno 5] Input/output error: 'images.npy'",
    "lost": "FileNotFoundError: [Errno 2] No such file or directory:",
}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, write_experiment: Callable[..., Path]) -> Swept:
    return _sweep(tmp_path_factory.mktemp("long"), write_experiment, LONG)


@pytest.mark.slow
@pytest.mark.parametrize("fault", REASONS)
def test_a_fault_for_good_is_on_the_leaderboard_with_its_reason(
    fault: str, long: Swept, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = long.trial(fault)
    assert trial["status"] == "failed"
    assert trial["reason"].startswith(REASONS[fault])
    assert trial["reason"].endswith("(tried 3 times)")
    assert len(set(long.workers(fault))) == 1 + RETRIES
    assert f"{trial['name']}: {trial['reason']}" in " ".join(_board(long, capsys).split())


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "stuck", "frozen"])
def test_a_fault_that_passes_leaves_no_trace(fault: str, long: Swept) -> None:
    assert len(long.retries(fault)) == 1
    assert not Path(f"/proc/{long.workers(fault)[0]}").exists()
    _assert_as_if_nothing_had_happened(long, fault)


@pytest.mark.slow
def test_a_worker_that_ray_ends_for_the_machines_memory_is_told_as_that(
    tmp_path: Path, write_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own monitor, with a threshold that the machine is always over."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "250")
    config = write_experiment(tmp_path, CONFIG % (2, "[0.013]", "auto"), 36)
    assert main(["run", str(config), "-o", str(tmp_path / "run")]) == 2
    reasons = [t["reason"] for t in RunStore(tmp_path / "run").trials()]
    assert len(reasons) == 2
    assert all(reason.startswith("out of memory: Ray ended its worker") for reason in reasons)
    assert all(reason.endswith("(tried 3 times)") for reason in reasons)


# ---------------------------------------------------------------------- nodes


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head trains nothing; nodes are added and removed."""
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    from ensembler.tuning.execute import set_environment

    set_environment()
    monkeypatch.setattr(
        ray_constants, "ENABLE_RAY_CLUSTER", False
    )  # so that it stays on loopback, see loopback.py
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "node_ip_address": "127.0.0.1",
            "object_store_memory": 128 * 2**20,
            "_system_config": {
                "health_check_initial_delay_ms": 500,
                "health_check_period_ms": 500,
                "health_check_failure_threshold": 4,
            },
        },
    )
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


class Leaving:
    """Takes a node away when a trial has reported `after` epochs in all."""

    def __init__(self, cluster: Any, after: Mapping[int, Any]) -> None:
        self.cluster = cluster
        self.after = dict(after)
        self.epochs = 0

    def started(self, trial: Any, stage_total: int) -> None: ...

    def epoch(self, trial: Any, report: Mapping[str, Any]) -> None:
        self.epochs += 1
        node = self.after.pop(self.epochs, None)
        if node is not None:
            self.cluster.remove_node(node, allow_graceful=False)

    def retried(self, trial: Any, reason: str, attempt: int) -> None: ...

    def ended(self, trial: Any, outcome: Any) -> None: ...


def _add(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=128 * 2**20)


@pytest.mark.slow  # its seconds depend on when Ray notices
def test_nodes_that_are_lost_lose_no_trial_and_when_the_last_is_gone_the_sweep_ends(
    nodes: Any,
    tmp_path: Path,
    write_experiment: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watchdog, "NO_NODE_S", 3.0)
    config = write_experiment(tmp_path, CONFIG % (3, "[0.013, 0.023]", "auto"), 36)
    experiment = Experiment.from_config(config, tmp_path / "run")
    leaving = Leaving(nodes, {1: _add(nodes), 7: _add(nodes)})
    nodes.wait_for_nodes()
    with pytest.raises(
        TrainingError, match=r"Ray: no node is left that can run a trial, for .* all nodes .* 0 CPUs"
    ):
        experiment.run(leaving)
    store = RunStore(tmp_path / "run")
    retries = [e for e in store.events() if e["kind"] == "retry"]
    assert {e["reason"] for e in retries} == {"its node was lost"}
    assert not any(e["state"] == "failed" for e in store.events() if e["kind"] == "trial")
    finished = len(list(store.path.glob("cells/*/*/result.json")))
    assert finished >= 2
    # The command goes on once there is a node again.
    _add(nodes)
    assert main(["run", str(config), "-o", str(tmp_path / "run")]) == 0
    assert len(store.leaderboard() or []) == 1 + 3
