"""A first config for images that nobody has looked at yet: every choice with its reason and the number behind it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .data.survey import Survey
from .errors import DataError, printable
from .folds import make_folds, stratified_slice

#: From this ratio of the largest to the smallest class on, a model that never names the small one looks good.
STRONG_IMBALANCE = 10.0

#: Sides in pixels between which an image size is proposed. The low ends: pretrained networks halve the picture five
#: times, and of 32 pixels one is left. The high ends: what the portfolio was trained at, and what a CPU can bear.
GPU_SIDES, CPU_SIDES, FEW_CORES_SIDES = (128, 224), (64, 128), (64, 96)
FEW_CORES = 4

#: Share of a GPU's memory that the estimate of a training step may fill; the estimate is one from below.
MEMORY_SHARE = 0.6

#: Shares of the images that may be kept as the test split; how many images are too few for one, and enough.
TEST_SHARES, LEAST_TEST, ENOUGH_TEST = (0.1, 0.2), 10, 1000

#: What is known of the time a run takes: `configs/clothing.yaml` took so many minutes for so many images of so many
#: pixels, in so many folds of so many backbones, on so many cores. A GPU is assumed to sustain so many operations a
#: second, which has not been measured here.
MEASURED = {"minutes": 26, "images": 3068, "side": 96, "k": 5, "backbones": 4, "cores": 2}
GPU_FLOPS = 15e12
BUDGETS_MIN = (10, 20, 30, 60, 120, 240, 480)

K, EPOCHS, MONITOR, SEED = 5, 8, 0.15, 0


@dataclass(frozen=True)
class Hardware:
    """What training can use here.

    Attributes:
        cores: that this process may run on.
        gpu: name of the first GPU; "" without one.
        gpu_bytes: its memory.
        gpus: how many there are.
    """

    cores: int
    gpu: str = ""
    gpu_bytes: int = 0
    gpus: int = 0

    @classmethod
    def here(cls) -> Hardware:
        """This machine's."""
        import torch

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not torch.cuda.is_available():
            return cls(cores)
        first = torch.cuda.get_device_properties(0)
        return cls(cores, str(first.name), int(first.total_memory), torch.cuda.device_count())

    def __str__(self) -> str:
        if self.gpu:
            many = f"{self.gpus} GPUs" if self.gpus > 1 else "a GPU"
            return f"{many} ({printable(self.gpu)}, {self.gpu_bytes / 2**30:.0f} GiB)"
        return f"{self.cores} CPU core{'s' if self.cores > 1 else ''} and no GPU"


@dataclass(frozen=True)
class Choice:
    """A value for the config, and why it is this one."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Proposal:
    """The choices of a config, in its order; `draft.draft` writes them.

    Attributes:
        test, image_size, unreadable, k, metric: as in the config.
        backbones: a timm name each, with what is known of it.
        hardware: that they were chosen for.
        weights: of every backbone.
        trials, epochs: of the search.
        budget: as in the config.
    """

    test: Choice
    image_size: Choice
    unreadable: Choice
    k: Choice
    metric: Choice
    backbones: tuple[Choice, ...]
    hardware: Hardware
    weights: Choice
    trials: Choice
    epochs: Choice
    budget: Choice


def propose(
    survey: Survey, hardware: Hardware, hub_problem: str | None, test_source: str | None = None
) -> Proposal:
    """The choices for these images on this hardware.

    Args:
        survey: of the images.
        hardware: that they will be trained on.
        hub_problem: why published weights are out of reach, or None.
        test_source: where the table's test rows come from, as the config has to name it; None where the source
            marks them, or has none.

    Raises:
        DataError: a class has fewer than two images, or no folds can be made.
    """
    _refuse_single_images(survey)
    test, k = _split(survey, test_source)
    size = _image_size(survey, hardware)
    backbones = _backbones(hardware, size.value)
    trials = max(12, 3 * len(backbones))
    return Proposal(
        test=test,
        image_size=size,
        unreadable=_unreadable(survey),
        k=k,
        metric=_metric(survey),
        backbones=backbones,
        hardware=hardware,
        weights=_weights(hub_problem),
        trials=Choice(
            trials, f"the default recipe of each of {len(backbones)} backbones first, then variations of them"
        ),
        epochs=Choice(
            "auto",
            f"{EPOCHS} in the search; what is cross-validated has as many more, up to 30, as the budget has time for",
        ),
        budget=_budget(survey, hardware, [b.value for b in backbones], size.value, k.value, trials),
    )


# ---------------------------------------------------------------------- the data


def _refuse_single_images(survey: Survey) -> None:
    few = [(name, n) for name, n in survey.counts.items() if n < 2]
    if few:
        named = ", ".join(f"{printable(name)!r} has {n}" for name, n in few[:3])
        more = f" and {len(few) - 3} more" if len(few) > 3 else ""
        raise DataError(
            f"classes need two readable images or more, one to train on and one to be scored: {named}{more}; "
            "add images, or take the class out of the source"
        )


def _unreadable(survey: Survey) -> Choice:
    if survey.unreadable:
        first, reason = survey.unreadable[0]
        what = f"files that are no readable images: {len(survey.unreadable)}, the first is {first} ({reason})"
        return Choice("skip", f"{what}; left out and listed")
    return Choice("fail", "every header can be read, so a file that does not decode deserves a look")


def _split(survey: Survey, test_source: str | None) -> tuple[Choice, Choice]:
    """The test split and the number of folds: the largest k up to `K` for which folds can be made."""
    table, unreadable = survey.table, {i for i, _ in survey.unreadable}
    oof = table.oof
    kept = ~oof.frame["id"].isin(unreadable).to_numpy()

    def folds(rows: Any) -> Choice:
        chosen = np.flatnonzero(rows & kept)
        groups, fold = (None if column is None else column[chosen] for column in (oof.groups, oof.fold))
        return _k(oof.labels[chosen], groups, fold, table.classes)

    every = np.ones(len(oof), bool)
    if len(table.test):
        marked = f"the source marks {len(table.test):,} test images itself"
        beside = f"{len(table.test):,} images beside the source, read once at the end"
        return Choice(test_source, beside if test_source else marked), folds(every)
    if oof.fold is not None:
        reason = "none: the source has folds of its own, which a test split would thin out"
        return Choice(None, reason), folds(every)
    share = min(max(ENOUGH_TEST / len(oof), TEST_SHARES[0]), TEST_SHARES[1])
    share = math.ceil(share * 100) / 100
    if share * len(oof) < LEAST_TEST:
        return Choice(None, f"none: {share:g} of {len(oof)} images would say nothing"), folds(every)
    rest = every.copy()
    try:
        # As the run will draw it: with the unreadable files, which it learns of later.
        held = stratified_slice(oof.labels, share, SEED, groups=oof.groups, what="test split")
        rest[held] = False
        k = folds(rest)
    except DataError as error:  # what is left would be too little; without a test split there may be enough
        return Choice(None, f"none: every image is needed for the folds, or else: {error}"), folds(every)
    # Half the width of a 95 % interval around an accuracy of 90 %, by the normal approximation.
    margin = 1.96 * math.sqrt(0.9 * 0.1 / len(held))
    reason = f"{len(held):,} images, read once at the end: an accuracy of 90 % is known to {100 * margin:.1f} points"
    return Choice(share, reason), k


def _k(labels: Any, groups: Any, predefined: Any, classes: Sequence[str]) -> Choice:
    if predefined is not None:
        k = len(make_folds(labels, K, SEED, groups=groups, predefined=predefined, class_names=classes))
        return Choice(k, f"the source's own column of folds, which has {k}, is used in its place")
    counts = np.bincount(labels, minlength=len(classes))
    smallest = f"{counts.min()} images of class {classes[int(counts.argmin())]}, the smallest"
    for k in range(min(K, int(counts.min())), 1, -1):
        try:
            make_folds(labels, k, SEED, groups=groups, monitor_fraction=MONITOR, class_names=classes)
        except DataError:
            if k == 2:
                raise
            continue  # fewer folds ask for less of every class and of the groups
        if k == K:
            return Choice(k, f"{K} folds: {smallest}, are enough for that")
        within = " in their groups" if groups is not None else ""
        return Choice(k, f"as many as {smallest},{within} allow")
    raise DataError(f"folds: {smallest}, cannot be held out and trained on; add images of it")


def _metric(survey: Survey) -> Choice:
    (large, most), *_, (small, least) = survey.counts.items()
    ratio = f"{most} images of {large} to {least} of {small}, {survey.imbalance:.3g} to 1"
    if survey.imbalance >= STRONG_IMBALANCE:
        reason = f"every class counts the same: {ratio}; `recipe: {{class_weights: balanced}}` may help it"
        return Choice("balanced_accuracy", reason)
    return Choice(
        "log_loss", f"it asks for right probabilities, not just right answers; {ratio}, is no obstacle"
    )


# ---------------------------------------------------------------------- the machine


def _image_size(survey: Survey, hardware: Hardware) -> Choice:
    low, high = GPU_SIDES if hardware.gpu else CPU_SIDES if hardware.cores >= FEW_CORES else FEW_CORES_SIDES
    side = survey.median_side
    found = f"the median image has a shorter side of {side} pixels"
    if side >= high:
        why = "what most of these weights were trained at" if hardware.gpu else f"what {hardware} can bear"
        return Choice(high, f"{found}; {high} is {why}, and twice the side costs four times the time")
    if side <= low:
        return Choice(low, f"{found}; below {low} a pretrained network has hardly a pixel left at its end")
    return Choice(side // 32 * 32, f"{found}; a multiple of 32 below it")


def _backbones(hardware: Hardware, image_size: int) -> tuple[Choice, ...]:
    from .training.blueprint import describe
    from .training.costs import training_bytes
    from .training.portfolio import PORTFOLIO, family_of
    from .training.recipes import default_recipe

    chosen = []
    small = [entry for entry in PORTFOLIO if entry.small][: 6 if hardware.cores >= 2 * FEW_CORES else 4]
    large = [small[0], *(entry for entry in PORTFOLIO if not entry.small)]
    for entry in large if hardware.gpu else small:
        info = describe(entry.name)
        facts = [family_of(entry.name), f"{info.params / 1e6:.1f} M parameters"]
        if hardware.gpu:
            batch = default_recipe(info.params, info.transformer).batch_size
            need = training_bytes(entry.name, image_size, batch)
            if need > MEMORY_SHARE * hardware.gpu_bytes:
                continue
            facts.append(f"about {max(need / 2**30, 0.1):.1f} GiB at batch {batch}")
        if entry.top1 is not None:
            facts.append(f"ImageNet top-1 {entry.top1:.1f}")
        chosen.append(Choice(entry.name, ", ".join([*facts, info.licence or "licence unknown"])))
    # A GPU too small for any of them still trains what a CPU does.
    return tuple(chosen) or _backbones(Hardware(hardware.cores), image_size)


def _weights(hub_problem: str | None) -> Choice:
    if hub_problem:
        return Choice(
            "pretrained-or-random",
            f"the hub of pretrained weights was out of reach ({hub_problem}): what is not in its cache starts from "
            "random weights, which costs much accuracy; with a network write `pretrained`, or give safetensors files",
        )
    return Choice("pretrained", "the hub answers; the files are fetched when the run begins")


def _budget(
    survey: Survey, hardware: Hardware, backbones: Sequence[str], image_size: int, k: int, trials: int
) -> Choice:
    from .training.costs import flops

    n = survey.n_images
    if hardware.gpu:
        one = sum(flops(name, image_size) for name in backbones) / len(backbones)
        # Forward and backward are three forwards; half of the trials are stopped early.
        passes = n * EPOCHS * (trials / 2 + max(6, len(backbones)) * k)
        minutes = 3 * one * passes / GPU_FLOPS / hardware.gpus / 60
        basis = f"{GPU_FLOPS / 1e12:.0f} teraflops a GPU, which is assumed and not measured"
    else:
        ratios = (
            n / MEASURED["images"],
            (image_size / MEASURED["side"]) ** 2,
            k / MEASURED["k"],
            len(backbones) / MEASURED["backbones"],
            MEASURED["cores"] / hardware.cores,
        )
        minutes = MEASURED["minutes"] * math.prod(ratios)
        basis = (
            f"{MEASURED['images']:,} images of {MEASURED['side']} pixels took {MEASURED['minutes']} minutes "
            f"on {MEASURED['cores']} cores"
        )
    budget = next((b for b in BUDGETS_MIN if b >= 1.5 * minutes), BUDGETS_MIN[-1])
    text = f"{budget // 60}h" if budget >= 60 else f"{budget}m"
    guess = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{max(2, math.ceil(minutes))} minutes"
    return Choice(
        text,
        f"a rough guess is {guess} ({basis}); a run that would take longer trains fewer epochs and says so",
    )
