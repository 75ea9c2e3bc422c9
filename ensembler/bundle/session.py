"""The graph of a bundle at work: onnxruntime and numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .layout import COMBINER_MODEL, IMAGES, MODEL, PROBABILITIES, SAID, WANTED, BundleFiles
from .staged import Stages

#: Images a run of the graph.
BATCH = 64

#: Bytes of a graph: what a protocol buffer can hold.
MAX_MODEL_BYTES = 2 << 30

#: Microseconds that a thread of a session spins before it sleeps (onnxruntime 1.26 and later).
SPIN_US = "1000"

#: The key under which ONNX names a file beside the graph. Names inside our graphs are numbers, so it is nowhere else.
_EXTERNAL = b"location"


class GraphSession:
    """Runs `model.onnx`.

    Args:
        files: of the bundle.
        threads: that one run may use; 0: one a core.

    Raises:
        BundleError: an altered file, data outside the graph, or a graph that is not of this bundle.
    """

    def __init__(self, files: BundleFiles, threads: int = 0) -> None:
        index = files.index
        self._shape = (index["image_size"], index["image_size"], 3)
        self._sizes = (len(index["members"]), int(index["graph"]["folds"]), len(index["classes"]))
        self._batch = max(1, min(BATCH, int(index["graph"].get("batch", BATCH))))
        cascade = index["graph"].get("cascade")
        self._stages = None if cascade is None else Stages.from_index(cascade)
        self._files, self._threads = files, threads
        self._combiner: Any = None
        model = files.read(MODEL)
        files.verify()
        members, folds, classes = self._sizes
        said = (SAID, "tensor(float)", [members, folds, None, classes])
        self._session = self._open(
            MODEL,
            model,
            [(IMAGES, "tensor(uint8)", [None, *self._shape])],
            [(PROBABILITIES, "tensor(float)", [None, classes]), said],
        )
        if self._stages is not None:
            self._require_stages(self._stages)

    def answer(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the ensemble says, (images, classes), and its fold models, (members, folds, images, classes).

        Args:
            pixels: uint8 (images, size, size, 3).
        """
        if not len(pixels):
            members, folds, classes = self._sizes
            return np.empty((0, classes), np.float32), np.empty((members, folds, 0, classes), np.float32)
        return run_graph(self._session, pixels, self._batch)

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the ensemble says, (images, classes); a cascade asks no member that an image does not need."""
        if self._stages is None or not len(pixels):
            return self.answer(pixels)[0]
        return staged_answer(self._session, self._stages, pixels, self._sizes[1:], self._batch)

    def combine(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        """(members, folds, images, classes) to (images, classes), by `combiner.onnx`, loaded when first asked for."""
        if self._combiner is None:
            members, folds, classes = self._sizes
            self._combiner = self._open(
                COMBINER_MODEL,
                self._files.read(COMBINER_MODEL),
                [(SAID, "tensor(float)", [members, folds, None, classes])],
                [(PROBABILITIES, "tensor(float)", [None, classes])],
            )
        answer: NDArray[np.float32] = self._combiner.run(
            [PROBABILITIES], {SAID: np.asarray(proba, np.float32)}
        )[0]
        return answer

    def _require_stages(self, stages: Stages) -> None:
        members, folds, _ = self._sizes
        if len(stages.order) != members:
            raise ValueError(f"a cascade of {len(stages.order)} members in a bundle of {members}")
        wanted = (WANTED, "tensor(bool)", [members, folds])
        if not _fits([wanted], self._session.get_overridable_initializers()):
            raise BundleError(
                f"{self._files.where(MODEL)}: has no input {WANTED!r} for the cascade of this bundle; export again"
            )

    def _open(self, name: str, model: bytes, inputs: list[Any], outputs: list[Any]) -> Any:
        where = self._files.where(name)
        if len(model) > MAX_MODEL_BYTES:
            raise BundleError(f"{where}: holds {len(model):,} bytes; at most {MAX_MODEL_BYTES:,} are read")
        if _EXTERNAL in model:
            raise BundleError(f"{where}: names data outside the graph; a bundle's graph holds all of its own")
        session = new_session(model, where, self._threads)
        for kind, wanted, found in (
            ("inputs", inputs, session.get_inputs()),
            ("outputs", outputs, session.get_outputs()),
        ):
            if not _fits(wanted, found):
                shown = ", ".join(f"{v.name} {v.type} {v.shape}" for v in found)
                raise BundleError(f"{where}: {kind} {shown:.300} are not those of this bundle; export again")
        return session


def staged_answer(
    session: Any, stages: Stages, pixels: NDArray[np.uint8], sizes: tuple[int, int], batch: int = BATCH
) -> NDArray[np.float32]:
    """`GraphSession.predict` of a bare session; `sizes` are folds and classes."""

    def run(rows: NDArray[np.intp], wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
        chosen = pixels if len(rows) == len(pixels) else pixels[rows]
        said = [
            session.run([SAID], {IMAGES: np.ascontiguousarray(chosen[i : i + batch]), WANTED: wanted})[0]
            for i in range(0, len(chosen), batch)
        ]
        answer: NDArray[np.float32] = said[0] if len(said) == 1 else np.concatenate(said, axis=2)
        return answer

    return stages.answer(run, len(pixels), *sizes)


def run_graph(
    session: Any, pixels: NDArray[np.uint8], batch: int = BATCH
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`GraphSession.answer` of a bare session and at least one image, `batch` of them at a time."""
    runs = [
        session.run([PROBABILITIES, SAID], {IMAGES: np.ascontiguousarray(pixels[i : i + batch])})
        for i in range(0, len(pixels), batch)
    ]
    if len(runs) == 1:
        return runs[0][0], runs[0][1]
    return np.concatenate([run[0] for run in runs]), np.concatenate([run[1] for run in runs], axis=2)


def new_session(model: bytes, where: str, threads: int = 0) -> Any:
    """A session of onnxruntime on the CPU.

    Raises:
        BundleError: there is no onnxruntime, or it cannot use the graph.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BundleError("onnxruntime is missing; pip install 'ensembler[runtime]'") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads wait for the next operator by spinning. Without it small operators lose a quarter of their speed; without
    # an end to it, threads that decode the next images lose theirs.
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_US)
    options.log_severity_level = 4  # whatever stops it is in the exception
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # No narrower class: onnxruntime raises one of its own for each kind of failure.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"{where}: onnxruntime cannot use it ({reason}); export again") from error


def _fits(wanted: list[Any], found: list[Any]) -> bool:
    """Whether names, types and the sizes that are fixed are those wanted."""
    if len(wanted) != len(found):
        return False
    for (name, kind, shape), value in zip(wanted, found, strict=True):
        if value.name != name or value.type != kind or len(value.shape) != len(shape):
            return False
        if any(size is not None and size != there for size, there in zip(shape, value.shape, strict=True)):
            return False
    return True
