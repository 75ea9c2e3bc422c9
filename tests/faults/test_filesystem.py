"""File operations that fail, some of each step of a run; all of them are tried by `make faults`.

The harness and what it promises: `tests/faults/filesystem.py`. It runs in a process of its own, because the shim has
to be there when a process starts.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.shim import READ_ONLY, Kind, build, compiler, environment

ROOT = Path(__file__).parents[2]

#: A finished run; its images are not there.
FINISHED = Path(__file__).parent / "run_version_1"

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="no C compiler, or not Linux: the shim cannot be built"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shim"))


def _ensembler(*arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ensembler", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def _tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# ---------------------------------------------------------------------- the campaign


def test_a_run_survives_whatever_operation_fails(library: Path, tmp_path: Path) -> None:
    lines = tmp_path / "cases.jsonl"
    command = [sys.executable, "-m", "tests.faults.filesystem", str(lines), "--sample", "20"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(library), capture_output=True, text=True, check=False
    )
    results = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {r["step"]: r["broken"] for r in results if r["broken"]} == {}
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(results) >= 16
    assert sum(r["exit"] == 2 for r in results) > len(results) / 2, "most failures cannot be hidden"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_writer_of_a_run_passes_the_shim_by(library: Path, tmp_path: Path) -> None:
    """The kernel sees no more of what writes into a run than the shim does."""
    program = """
import sys
from pathlib import Path
from tests.faults import filesystem, shim, small_run
campaign = filesystem.Campaign(Path(sys.argv[1]))
small_run.write_experiment(campaign.home)
small_run.stand_in()
campaign.shim.arm(campaign.run, shim.EVERYTHING, 0, 0, False)
for step in small_run.STEPS[:2]:
    code, said = campaign._call(step)
    assert code == 0, said
print("seen", campaign.shim.seen)
"""
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    calls = "open,openat,creat,write,pwrite64,writev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat,"
    calls += "unlink,unlinkat,rmdir,link,linkat,fallocate,copy_file_range,sendfile"
    command = ["strace", "-f", "-y", "-qq", "-o", str(trace), "-e", f"trace={calls}"]
    command += ["-E", f"LD_PRELOAD={library}", "-E", f"ENSEMBLER_CACHE={home / 'cache'}"]
    done = subprocess.run(
        [*command, sys.executable, "-c", program, str(home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in done.stderr and "seen" not in done.stdout:
        pytest.skip("this machine does not let strace trace")
    assert done.returncode == 0, done.stderr[-3000:]
    run = re.escape(str(home / "run"))
    # A call with two paths is one operation; names relative to a descriptor are shown with its path.
    below = re.compile(rf"[\"<]{run}[\"/>]")
    calls_below = [
        line for line in trace.read_text().splitlines() if below.search(line) and "resumed>" not in line
    ]
    seen = int(re.search(r"seen (\d+)", done.stdout)[1])  # type: ignore[index]
    assert seen == len(calls_below) > 300


# ---------------------------------------------------------------------- a real sweep, on Ray


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_worker_that_cannot_write_ends_the_sweep_which_goes_on_when_it_can(
    code: int, library: Path, finished_run: Any, tmp_path: Path
) -> None:
    """The third operation on a Cell fails in the worker, and all after it, until the file `full` is gone."""
    full, run = tmp_path / "full", tmp_path / "run"
    full.touch()
    env = environment(library, run / "cells", Kind.OPEN | Kind.WRITE | Kind.FSYNC, 3, code, True, full)
    done = _ensembler("run", finished_run.config, "-o", run, env=env)
    assert done.returncode == 2, done.stderr[-3000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {run}/cells/")
    assert f"cannot be written: {os.strerror(code)}; " in last
    assert not list(run.glob("cells/*/[!.]*/result.json"))
    full.unlink()
    again = _ensembler("run", finished_run.config, "-o", run, env=env)
    assert again.returncode == 0, again.stderr[-3000:]
    quiet = finished_run.run
    for file in quiet.glob("cells/*/*/proba.npy"):
        np.testing.assert_array_equal(np.load(run / file.relative_to(quiet)), np.load(file))
    assert not list(run.rglob(".tmp-*"))


# ---------------------------------------------------------------------- read-only


@pytest.fixture
def read_only(library: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the finished run, and the environment in which nothing can be written into it: root may write past
    permissions, so the file system itself has to refuse."""
    run = tmp_path / "run"
    shutil.copytree(FINISHED, run)
    (run / ".lock").unlink(missing_ok=True)
    return run, environment(library, run, READ_ONLY, code=errno.EROFS)


@pytest.mark.parametrize("verb", [("leaderboard",), ("report", "-o", "{out}")])
def test_what_reads_works_on_a_run_that_is_read_only(
    verb: tuple[str, ...], read_only: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    run, env = read_only
    (run / "leaderboard.parquet").unlink()  # is made anew, and not kept
    before = _tree(run)
    first, *rest = (part.format(out=tmp_path / "out") for part in verb)
    done = _ensembler(first, run, *rest, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert _tree(run) == before


@pytest.mark.parametrize("verb", ["combine", "compare", "report", "run"])
def test_what_writes_says_that_a_run_is_read_only(verb: str, read_only: tuple[Path, dict[str, str]]) -> None:
    run, env = read_only
    before = _tree(run)
    arguments = (verb, run / "config.yaml", "-o", run) if verb == "run" else (verb, run)
    done = _ensembler(*arguments, env=env)
    assert done.returncode == 2, done.stderr[-3000:]
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert re.match(
        rf"error: {re.escape(str(run))}\S*: cannot be written: Read-only file system; make it writable or choose "
        r"another folder, then run the same command again",
        line,
    )
    assert _tree(run) == before


def test_the_app_shows_a_run_that_is_read_only(
    read_only: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    run, env = read_only
    (run / "leaderboard.parquet").unlink()
    program = """
import sys
from streamlit.testing.v1 import AppTest
from ensembler.app.main import PAGES

def draw(module, needs, path):
    import importlib

    from ensembler.app.reading import view
    from ensembler.store import RunStore

    store = RunStore(path)
    importlib.import_module(f"ensembler.app.{module}").page(view(store) if needs == "results" else store)

for page in (page for group in PAGES.values() for page in group if page.needs != "folder"):
    app = AppTest.from_function(draw, args=(page.module, page.needs, sys.argv[1]), default_timeout=120).run()
    assert not app.exception, (page, app.exception)
    assert not app.error, (page, [e.value for e in app.error])
    print(page.module)
"""
    script = tmp_path / "pages.py"  # Streamlit reads a page's source from its file
    script.write_text(program)
    before = _tree(run)
    done = subprocess.run(
        [sys.executable, str(script), str(run)],
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.split()) >= 9
    assert _tree(run) == before


# ---------------------------------------------------------------------- file systems that cannot


@pytest.mark.parametrize(
    ("kinds", "code", "says"),
    [
        (Kind.LOCK, errno.ENOLCK, "keeps no locks (No locks available), so two drivers could fill the run"),
        (
            Kind.LOCK,
            errno.ENOTSUP,
            "keeps no locks (Operation not supported), so two drivers could fill the run",
        ),
        (Kind.RENAME, errno.EEXIST, "has no atomic rename (File exists), so a crash could leave half a file"),
        (
            Kind.RENAME,
            errno.ENOSYS,
            "has no atomic rename (Function not implemented), so a crash could leave",
        ),
    ],
)
def test_a_file_system_that_cannot_is_refused_before_anything_is_written(
    kinds: Kind, code: int, says: str, library: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = _ensembler(
        "run",
        FINISHED / "config.yaml",
        "-o",
        run,
        env=environment(library, run, kinds, code=code, for_good=True),
    )
    assert done.returncode == 2, done.stderr[-3000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {run}: its file system {says}")
    assert last.endswith("; choose a folder on another, such as a local disk")
    assert not run.exists()


# ---------------------------------------------------------------------- a disk that is really full


def test_numpy_hides_a_full_disk_and_the_store_does_not(tmp_path: Path) -> None:
    """Why no array is written by `np.save`: what C's stdio still holds when it is closed is lost without a word."""
    from ensembler.atomic import write_array

    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    values = np.zeros(100, np.float32)
    with full.open("r+b", buffering=0) as stream:
        values.tofile(stream)
    with pytest.raises(OSError, match="No space left on device"), full.open("wb") as stream:
        write_array(stream, values)
    with (tmp_path / "a.npy").open("wb") as stream:
        write_array(stream, values)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values)
