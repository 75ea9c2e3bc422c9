"""Where a backbone starts: weights from the hub, its cache, or a file, found once in the driver.

No worker ever asks a hub.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import WeightsError
from ..reach import hub_out_of_reach, why_refused
from .backbone import open_weights, timm_module


@dataclass(frozen=True)
class Weights:
    """Where a backbone starts.

    Attributes:
        label: "random", or "<file name>#<digest>"; what `Candidate.weights` holds.
        file: a safetensors file on this machine; None for random weights.
        note: what a reader of the leaderboard must know, or "".
    """

    label: str
    file: Path | None
    note: str = ""


def find_weights(backbone: str, weights: str, base_dir: Path) -> Weights:
    """The file that a backbone starts from, fetched from the hub when it is not in its cache.

    Args:
        backbone: timm's name, with or without a tag.
        weights: "pretrained", "pretrained-or-random", "random", or a path to a `.safetensors` file.
        base_dir: what a relative path is relative to.

    Raises:
        WeightsError: a missing or foreign file, no published weights, or a hub out of reach.
    """
    if weights == "random":
        return Weights("random", None)
    if weights in ("pretrained", "pretrained-or-random"):
        try:
            file = _from_hub(backbone)
        except WeightsError as error:
            if weights == "pretrained":
                raise
            return Weights("random", None, note=f"random weights: {error}")
    else:
        file = (base_dir / weights).resolve()
        if not file.is_file():
            raise WeightsError(
                f"backbone {backbone!r}: weights {weights!r}: no such file ({file}); "
                "give its path from the config's folder"
            )
    with open_weights(file) as header:
        list(header.keys())
    return Weights(f"{file.name}#{_file_digest(file)}", file)


def _from_hub(backbone: str) -> Path:
    cfg = timm_module().get_pretrained_cfg(backbone)
    repository = getattr(cfg, "hf_hub_id", None)
    if not repository:
        raise WeightsError(
            f"backbone {backbone!r}: timm publishes no weights for it; give `weights: random` or a file"
        )
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository = repository if repository != "timm/" else f"timm/{cfg.architecture}.{cfg.tag}"
    cached = try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    way_out = "give `weights: FILE`, `weights: random`, or `weights: pretrained-or-random`"
    problem = hub_out_of_reach()
    if problem:
        raise WeightsError(f"backbone {backbone!r}: the hub is out of reach ({problem}); {way_out}")
    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # its client raises its own errors, its HTTP library's and the system's
        reason = why_refused(error)
        raise WeightsError(
            f"backbone {backbone!r}: the hub refused {repository!r} ({reason}); {way_out}"
        ) from error


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
