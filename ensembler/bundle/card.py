"""The model card: what a stranger has to know before using a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..metrics import get_metric
from ..training.licences import forbids_commercial_use

#: Characters that Markdown could read as more than themselves, as far as names may hold them.
_MARKUP = "\\`*[]|$"


def model_card(
    name: str,
    row: Mapping[str, Any],
    verdict: str,
    classes: Sequence[str],
    members: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any],
    deployed: Mapping[str, Any] | None = None,
) -> str:
    """Markdown with Hugging Face's front matter.

    Args:
        name: of the experiment.
        row: of the leaderboard.
        verdict: the sentence on top of the leaderboard.
        classes: in column order.
        members: name, architecture, weights, licence of each.
        data: images, fingerprint, image_size, k, test_images.
        deployed: what runs: graph (see `bundle.json`; None without one), collapse, and the trade_off of a cascade.
    """
    licences = sorted({m["licence"] or "unknown" for m in members})
    front = [
        "---",
        "library_name: ensembler",
        "pipeline_tag: image-classification",
        f"license: {licences[0] if len(licences) == 1 else 'other'}",
        "tags: [image-classification, ensemble, timm]",
        "---",
    ]
    metric = get_metric(row["metric"]).title
    scores = [
        f"| {metric}, out of fold | {_number(row['cv'])} | {_interval(row['cv_low'], row['cv_high'])} |"
    ]
    if row.get("test") is not None:
        scores.append(f"| {metric}, {data['test_images']} test images | {_number(row['test'])} | |")
    scores += [
        f"| accuracy, out of fold | {_number(row['accuracy'])} | |",
        f"| log loss, out of fold | {_number(row['log_loss'])} | |",
        f"| calibration error (ECE), out of fold | {_number(row['ece'])} | |",
    ]
    price = []
    if row.get("latency_ms") is not None:
        price.append(f"{row['latency_ms']:.1f} ms an image at batch 1 on the machine of the run")
    if row.get("params") is not None:
        price.append(f"{row['params'] / 1e6:.1f} million parameters in all")
    listed = [
        "| "
        + " | ".join(_text(m[k] or "unknown") for k in ("name", "architecture", "weights", "licence"))
        + " |"
        for m in members
    ]
    bound = sorted({m["licence"] for m in members if m["licence"] and m["weights"] != "random"})
    terms = "".join(
        f"\nWhat started from published weights under {_text(licence)} may not be used commercially.\n"
        for licence in bound
        if forbids_commercial_use(licence)
    )
    body = f"""
# {_text(name)}: {_text(row["name"])}

{_text(verdict)}

Classifies a photograph into one of {len(classes)} classes: {", ".join(_text(c) for c in classes)}.

| | score | 95 % interval |
|---|---|---|
{chr(10).join(scores)}

Cost: {"; ".join(price) or "not measured"}.

## How to run it

    ensembler predict . photo.jpg

    from ensembler.bundle import Bundle
    Bundle.load(".").predict(["photo.jpg"])

## What is inside

{_inside(row["name"], data["k"], deployed or {})}

| member | architecture | weights it started from | licence of the architecture's published weights |
|---|---|---|---|
{chr(10).join(listed)}
{terms}{_savings((deployed or {}).get("trade_off", []), (deployed or {}).get("graph"))}
## Data and intended use

Trained on {data["images"]} images at {data["image_size"]} x {data["image_size"]} pixels (content fingerprint
`{str(data["fingerprint"])[:16]}`). Meant for images of the same kind and the same classes: every image gets one of
them, also one that shows none. Out-of-fold scores come from models that had not seen the image in training, early
stopping or calibration; check the bundle on images of your own before you rely on it.
"""
    return "\n".join(front) + "\n" + body


def _inside(name: str, k: int, deployed: Mapping[str, Any]) -> str:
    """What runs, and how far it was found to be from what was scored."""
    way = deployed.get("collapse", "folds")
    text = f"Every member is the average of its {k} fold models, and `{name}` is made of:"
    if way == "distill":
        text = f"One network that was taught by the best ensemble answers in place of `{name}`:"
    elif way != "folds":
        text = (
            f"Every member is one network ({way}) in place of its {k} fold models, and `{name}` is made of:"
        )
    graph = deployed.get("graph")
    if graph is None:
        return text
    found = graph["against_torch"]
    told = (
        f"`model.onnx` holds all of it in one graph ({graph['precision']}). Against PyTorch, on {found['images']} "
        f"images of the run, no probability of a member differs by more than {found['members']:.1g}, none of the "
        f"ensemble by more than {found['ensemble']:.1g}"
    )
    if found["on_edge"]:
        told += f", but for {found['on_edge']} images at which the combiner itself jumps"
    told += "."
    if graph["precision"] != "fp32":
        told += (
            f" That changes the accuracy on their out-of-fold rows by {100 * found['accuracy']:+.2f} points and the "
            f"log loss by {found['log_loss']:+.4f}."
        )
    return f"{told}\n\n{text}"


def _savings(points: Sequence[Mapping[str, Any]], graph: Mapping[str, Any] | None) -> str:
    """The trade-off of a cascade, and where it is none."""
    if not points:
        return ""
    lines = [
        f"| {what} | {point['accuracy']:.4f} | {point['asked']:.2f} | "
        f"{'unknown' if point['latency_ms'] is None else format(point['latency_ms'], '.1f')} |"
        for what, point in zip(
            [*(f"{100 * point['max_loss']:g} points" for point in points[:-1]), "all members, always"],
            points,
            strict=True,
        )
    ]
    runs = graph is not None and graph.get("cascade") is not None
    how = "an image is run through" if runs else "an image would need (this bundle runs all of them, always)"
    return f"""
## What the cascade saves

By how much its accuracy was allowed to fall, and what came of it on out-of-fold rows that it was not fitted to: the
members that {how} on average, and their milliseconds one after another at batch 1.

| accuracy allowed to fall by | accuracy | members | ms an image |
|---|---|---|---|
{chr(10).join(lines)}
"""


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _interval(low: Any, high: Any) -> str:
    return "" if low is None else f"{low:.4f} to {high:.4f}"


def _text(value: object) -> str:
    """Names are text, also those that look like markup."""
    plain = str(value).replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    return "".join(f"\\{c}" if c in _MARKUP else c for c in plain)
