"""From a row of the leaderboard to a folder, or one zip, that predicts alone."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ..atomic import below, reading, write_file, write_folder
from ..combiners import Combiner
from ..combiners.cascade import Cascade
from ..errors import BundleError
from .archive import open_archive
from .card import model_card
from .layout import CARD, COMBINER, COMBINER_MODEL, FORMAT, INDEX, MODEL, file_digest
from .member import Member
from .monitor.reference import attach
from .networks import Networks
from .options import ExportOptions
from .runtime import Bundle
from .staged import Stages

if TYPE_CHECKING:
    from ..evaluation.trade_off import TradeOff
    from .graph.check import Sample
    from .monitor.reference import Reference


@dataclass(frozen=True, eq=False)
class MemberSource:
    """A member of the exported row, and where its fold models lie.

    Attributes:
        name: of the candidate.
        architecture, weights, licence: for the card.
        member: the same built, whose normalisation and shared body are exported.
        folds: (weights file, temperature) of each fold.
    """

    name: str
    architecture: str
    weights: str
    licence: str
    member: Member
    folds: Sequence[tuple[Path, float]]


def write_bundle(
    target: Path,
    *,
    experiment: str,
    row: Mapping[str, Any],
    verdict: str,
    classes: Sequence[str],
    image_size: int,
    members: Sequence[MemberSource],
    combiner: Combiner | None,
    data: Mapping[str, Any],
    versions: Mapping[str, Any],
    sample: Callable[[], Sample],
    reference: Callable[[Path], Reference | None] | None = None,
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
    curve: Sequence[TradeOff] = (),
) -> Path:
    """Writes a bundle whole, by one rename; see `layout` for what is in it.

    Args:
        target: a folder, or a file whose name ends in .zip.
        experiment: its name.
        row: of the leaderboard.
        verdict: the sentence on top of the leaderboard.
        classes: in column order.
        image_size: side of the images.
        members: in the order of the combiner's.
        combiner: fitted; None for one member alone.
        data: images, fingerprint, image_size, k, test_images.
        versions: of the libraries that trained it.
        sample: out-of-fold images, asked for where a graph is written.
        reference: makes what `ensembler monitor` holds new images against, given the folder as far as it is written.
        options: formats, precision, limits.
        curve: of a cascade, what it saves and loses; see `trade_off`.

    Raises:
        BundleError: the target exists and is no bundle; the graph differs from PyTorch; the bundle is too slow.
        StoreError: it cannot be written.
    """
    target = target.resolve()
    if target.exists() and not open_archive(target).has(INDEX):
        raise BundleError(f"{target}: exists and is no bundle; choose another place with -o")

    def fill(folder: Path) -> None:
        graph, note = None, None
        if options.format != "torch":
            try:
                graph = _write_graph(folder, members, combiner, classes, sample(), options)
            except UnsupportedGraphError as error:
                if options.format is not None:
                    raise
                note = str(error)
                print(f"warning: no graph is written: {note}", file=sys.stderr)
        with_weights = graph is None or options.format == "both"
        entries = [_member_entry(folder, i, source, with_weights) for i, source in enumerate(members)]
        state = None if combiner is None else _write_combiner(folder, combiner, with_weights)
        about = [
            {"name": m.name, "architecture": m.architecture, "weights": m.weights, "licence": m.licence}
            for m in members
        ]
        points = [asdict(point) for point in curve]
        deployed = {"graph": graph, "collapse": options.collapse, "trade_off": points}
        card = model_card(experiment, row, verdict, classes, about, data, deployed)
        (folder / CARD).write_text(card, encoding="utf-8")
        files = [path for path in below(folder) if path.is_file()]
        index = {
            "format": FORMAT,
            "experiment": experiment,
            "name": row["name"],
            "classes": list(classes),
            "image_size": image_size,
            "preprocessing": {"resize": "bicubic, squashed to a square", "channels": "RGB", "dtype": "uint8"},
            "members": entries,
            "combiner": state,
            "graph": graph,
            "trade_off": points,
            "collapse": options.collapse,
            "note": note,
            "scores": dict(row),
            "data": dict(data),
            "versions": dict(versions),
            "files": {p.relative_to(folder).as_posix(): file_digest(p) for p in files},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=1, allow_nan=False), encoding="utf-8")
        made = None if reference is None else reference(folder)
        if made is not None:
            attach(folder, made)
        if options.max_latency_ms is not None:
            _refuse_slow(folder, row["name"], options.max_latency_ms)

    if target.suffix.lower() == ".zip":
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ensembler-") as scratch:
            fill(Path(scratch))
            write_file(target, lambda stream: _zip(Path(scratch), stream))
    else:
        write_folder(target, fill, keep_if=lambda _: False)
    return target


class UnsupportedGraphError(BundleError):
    """What is exported has no form as a graph."""


class TooSlowError(BundleError):
    """The bundle takes longer than it may."""


def latency_ms(bundle: Bundle, batch: int = 1, repeats: int = 20) -> float:
    """Milliseconds of one image of a batch for which every member runs, on this machine: the fastest of several."""
    pixels = np.zeros((batch, bundle.image_size, bundle.image_size, 3), np.uint8)
    times = []
    for number in range(repeats + 3):
        began = time.perf_counter()
        bundle.answer(pixels)
        if number >= 3:
            times.append(time.perf_counter() - began)
    return 1000 * min(times) / batch


# ---------------------------------------------------------------------- pieces


def _write_graph(
    folder: Path,
    sources: Sequence[MemberSource],
    combiner: Combiner | None,
    classes: Sequence[str],
    sample: Sample,
    options: ExportOptions,
) -> dict[str, Any]:
    """Writes the graph once it has been held against PyTorch; returns what the index says of it."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BundleError(
            f"{error.name} is missing; pip install 'ensembler[train]', or --format torch"
        ) from error
    from .graph.check import compare
    from .graph.merge import combiner_graph, ensemble_graph, folds_of
    from .graph.precision import half_weights, quantised

    members = {source.name: source.member for source in sources}
    n_folds = folds_of(members)
    stages = _stages(members, combiner, options)
    try:
        model, networks = ensemble_graph(members, combiner, len(classes), staged=stages is not None)
        alone = None if combiner is None else combiner_graph(combiner, list(members), len(classes), n_folds)
    except BundleError as error:
        raise UnsupportedGraphError(str(error)) from error
    if options.precision == "fp16":
        model = half_weights(model)
    elif options.precision == "int8":
        model = quantised(model, networks, sample.pixels)
    content = model.SerializeToString()
    batch = _batch(n_folds, len(classes))
    torch = Networks(members, combiner, tuple(classes))
    found = compare(
        content, sample, torch.answer(sample.pixels), torch.combine, options.precision, batch, stages
    )
    found.refuse(options.precision)
    (folder / MODEL).write_bytes(content)
    if alone is not None:
        (folder / COMBINER_MODEL).write_bytes(alone.SerializeToString())
    return {
        "folds": n_folds,
        "batch": batch,
        "precision": options.precision,
        "against_torch": found.to_dict(),
        "cascade": None if stages is None else stages.to_index(),
    }


def _stages(
    members: Mapping[str, Member], combiner: Combiner | None, options: ExportOptions
) -> Stages | None:
    """How a cascade is run; None for everything else, and where its networks have to stay in one piece."""
    if not isinstance(combiner, Cascade):
        return None
    if options.precision != "fp32":
        print(
            f"warning: {options.precision}: the cascade runs all its members on every image; with --precision fp32 it "
            "runs those that an image needs",
            file=sys.stderr,
        )
        return None
    return Stages(
        tuple(map(int, combiner.order_)),
        tuple(map(float, combiner.thresholds_)),
        tuple(member.body is not None or len(member.temperatures) == 1 for member in members.values()),
    )


def _batch(n_folds: int, n_classes: int) -> int:
    """Images of a run: as many as keep the largest table, of ranks, within 256 MB."""
    return max(1, min(64, (1 << 25) // (n_folds * n_classes * 130)))


def _member_entry(folder: Path, number: int, source: MemberSource, with_weights: bool) -> dict[str, Any]:
    folds: list[dict[str, Any]] = []
    body: Mapping[str, NDArray[Any]] | None = None
    if with_weights:
        home = folder / "members" / str(number)
        home.mkdir(parents=True)
        for fold, (file, temperature) in enumerate(source.folds):
            with (home / f"{fold}.safetensors").open("wb") as out:
                out.writelines(_blocks(file))
            folds.append({"file": f"members/{number}/{fold}.safetensors", "temperature": temperature})
        body = source.member.body_arrays()
        if body is not None:
            (home / "body.safetensors").write_bytes(save(dict(body)))
    return {
        "name": source.name,
        "architecture": source.architecture,
        "weights": source.weights,
        "licence": source.licence,
        "mean": list(source.member.mean),
        "std": list(source.member.std),
        "hidden": list(source.member.hidden),
        "mirror": source.member.mirror,
        "temperatures": [temperature for _, temperature in source.folds],
        "folds": folds,
        "body": f"members/{number}/body.safetensors" if body is not None else None,
    }


def _blocks(file: Path) -> Iterator[bytes]:
    """A file's content; an error of reading it names it, where one of writing names the bundle."""
    with reading(file, "delete its folder and run again"), file.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block


def _write_combiner(folder: Path, combiner: Combiner, with_weights: bool) -> dict[str, Any]:
    state, arrays = combiner.get_state()
    if with_weights:
        (folder / COMBINER).write_bytes(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    return state


def _refuse_slow(folder: Path, name: str, limit: float) -> None:
    took = latency_ms(Bundle.load(folder))
    if took > limit:
        raise TooSlowError(
            f"{name}: takes {took:.1f} ms an image on this machine, and may take {limit:g}; choose a smaller ensemble, "
            "--collapse, or a higher --max-latency-ms"
        )


def _zip(folder: Path, stream: Any) -> None:
    """Stored, not packed: weights do not shrink, and what is not packed cannot grow."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for file in below(folder):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
