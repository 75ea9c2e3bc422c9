"""The training path on a GPU, as a share of forward and backward alone; needs no Ray.

    python benchmarks/gpu.py            # prints
    python benchmarks/gpu.py --write    # and writes reports/gpu.md

convnext_tiny, vit_small_patch16_224 and resnet50 at 224 pixels in bfloat16: images a second of an epoch through the
whole path (pixels mapped from disk, copied, augmented on the device, trained) against the same model on one batch that
lies in the GPU's memory; the share of an epoch in which no kernel runs; the peak of the memory. The bar is 0.90.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, commit, interleave, ratio, verdict
from torch.nn import functional as F
from training import BAR, CLASSES, training_data

from ensembler.training import backbone
from ensembler.training.candidate import Candidate, CellJob, Numerics
from ensembler.training.loop import fit_cell
from ensembler.training.recipe import Recipe

BACKBONES = ("convnext_tiny", "vit_small_patch16_224", "resnet50")


@dataclasses.dataclass(frozen=True)
class Found:
    """What was measured of one backbone; `idle` is a share of an epoch's time, `peak` gigabytes."""

    name: str
    bare: float
    path: float
    share: tuple[float, float, float]
    idle: float
    peak: float


def idle_share(step: Any, device: torch.device) -> float:
    """Share of the time of a call in which no kernel runs on the device."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    began = time.perf_counter()
    with torch.profiler.profile(activities=activities) as profile:
        step()
    elapsed = 1e6 * (time.perf_counter() - began)
    spans = sorted(
        (e.time_range.start, e.time_range.end) for e in profile.events() or [] if "CUDA" in str(e.device_type)
    )
    busy, until = 0.0, float("-inf")
    for start, end in spans:  # kernels overlap: count every moment once
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return max(0.0, 1 - busy / elapsed)


def measure(name: str, folder: Path, args: argparse.Namespace, device: torch.device) -> Found:
    """One backbone."""
    data = training_data(folder, args.batches * args.batch, args.size)
    numerics = Numerics("bf16" if device.type == "cuda" else "fp32", channels_last=True)
    recipe = Recipe(epochs=99, patience=99, batch_size=args.batch, lr=1e-4)
    run = fit_cell(CellJob(Candidate(name, "random", "full", recipe), 0, numerics=numerics, threads=4), data)
    model: Any = backbone.create(name, CLASSES, image_size=args.size)
    model = model.to(device, memory_format=torch.channels_last).train()
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch, device=device) % CLASSES

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def bare() -> float:
        wait()
        began = time.perf_counter()
        for _ in range(args.batches):
            model.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=numerics.precision == "bf16"):
                loss = F.cross_entropy(model(images).float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
        wait()
        return float(args.batches * args.batch / (time.perf_counter() - began))

    speeds = interleave({"bare": bare, "path": lambda: next(run).images_per_s}, args.repeats)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    idle = idle_share(lambda: next(run), device)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    run.close()
    bare_speed, path_speed = (statistics.median(speeds[way]) for way in ("bare", "path"))
    return Found(name, bare_speed, path_speed, ratio(speeds, "path", "bare"), idle, peak)


def report(found: list[Found], args: argparse.Namespace) -> str:
    """A Markdown table."""
    what = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    head = [
        "# The training path on a GPU",
        "",
        f"`python benchmarks/gpu.py` at commit `{commit()}`, {what}, {args.size} px, batch {args.batch}, "
        f"median of {args.repeats} epochs in turn.",
        "",
        "| backbone | bare, images/s | path, images/s | share (lowest to highest) | bar | idle | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {f.name} | {f.bare:.0f} | {f.path:.0f} | {f.share[0]:.2f} ({f.share[1]:.2f} to {f.share[2]:.2f}) "
        f"| {BAR:.2f}: {verdict(f.share[0], BAR, at_least=True)} | {f.idle:.0%} | {f.peak:.1f} GB |"
        for f in found
    ]
    return "\n".join([*head, *rows, ""])


def main(argv: list[str] | None = None) -> None:
    """Measures and prints; on a machine without a GPU it says so, unless told to use the CPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--cpu", action="store_true", help="run it where there is no GPU")
    parser.add_argument("--write", action="store_true", help="to reports/gpu.md")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available() and not args.cpu:
        print("no GPU here: nothing is measured")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for name in args.backbones:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(name, Path(folder), args, device))
    text = report(found, args)
    print(text)
    if args.write:
        (ROOT / "reports" / "gpu.md").write_text(text)


if __name__ == "__main__":
    main()
