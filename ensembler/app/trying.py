"""A bundle tried on one image: what it answers, and what each of its members would answer alone.

The bundle predicts in a process of its own, because that imports torch. The picture is handed to it on its standard
input, from a file without a name: it is kept nowhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from ..bundle.layout import INDEX
from ..data.decode import header_size, preview
from ..data.folder import EXTENSIONS
from ..errors import BundleError, EnsemblerError, UnreadableImageError
from ..figures import answer_figure, answer_frame, member_answers_frame
from . import jobs
from .charts import draw
from .wording import headline, lines, plain

#: Seconds between two looks at a bundle that thinks.
POLL_S = 0.5

#: Bytes and pixels of an uploaded image. The bytes are those of `server.maxUploadSize`, which the server refuses first.
MAX_BYTES = 20 * 1000 * 1000
MAX_PIXELS = 50 * 1000 * 1000

#: Side in pixels at which the image is shown.
SHOWN = 480

#: Classes that are drawn.
TOP = 5


def section(bundle: Path) -> None:
    """The part of a page on which a bundle can be tried."""
    st.subheader("Try it on an image", anchor=False)
    lines("The image is sent to the machine that runs the app, shown to the bundle, and not kept.")
    upload = st.file_uploader(
        "Image", [e[1:] for e in EXTENSIONS], key=f"try-{bundle.name}", max_upload_size=MAX_BYTES // 1_000_000
    )
    if upload is None:
        return
    try:
        image = upload.getvalue()
        shown = _preview(require_small(image))
        _answered(bundle, image, shown)
    except EnsemblerError as error:
        st.error(plain(error), icon=":material/broken_image:")


def require_small(image: bytes) -> bytes:
    """The same bytes, where they are an image that may be decoded; only its header is read.

    What a file is called does not matter: its content has to be one of the formats that training reads.

    Raises:
        UnreadableImageError: too many bytes or pixels, or no image.
    """
    if len(image) > MAX_BYTES:
        raise UnreadableImageError(
            f"the image: has {len(image) / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read"
        )
    width, height = header_size(image, name="the image")
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(
            f"the image: has {width:,} x {height:,} pixels; at most {MAX_PIXELS // 1_000_000} million are read"
        )
    return image


def command(bundle: Path) -> list[str]:
    """What answers."""
    return [sys.executable, "-m", "ensembler.bundle.ask", str(bundle)]


def understood(printed: str) -> dict[str, Any]:
    """What was answered.

    Raises:
        BundleError: that is no answer.
    """
    try:
        answer: dict[str, Any] = json.loads(printed)
        n = len(answer["classes"])
        members = [(str(member["name"]), member["proba"]) for member in answer["members"]]
        proba = [answer["proba"], *(vote for _, vote in members)]
        if not n or np.asarray(proba, float).shape != (1 + len(members), n):
            raise ValueError("as many probabilities as classes are expected")
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(
            f"the bundle has given no answer that can be read ({error}); export it again"
        ) from error
    return answer | {"members": members}


def words(answer: dict[str, Any]) -> str:
    """The answer as a sentence."""
    best = int(np.argmax(answer["proba"]))
    share = float(answer["proba"][best])
    certain = "more than 99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"
    return f"{answer['classes'][best]}, {certain}"


def agreement(frame: pd.DataFrame) -> str:
    """How far the members agree, in a sentence."""
    n = int(frame["agrees"].sum())
    if n == len(frame):
        return f"All {n} members say so by themselves."
    return f"{n} of {len(frame)} members say so by themselves."


# ---------------------------------------------------------------------- pieces


def _answered(bundle: Path, image: bytes, shown: bytes) -> None:
    """The picture and what is said of it, once that is known."""
    made = (bundle / INDEX).stat().st_mtime_ns
    key = bundle / f"answer-{made}-{hashlib.sha256(image).hexdigest()}"
    kept: dict[str, Any] = st.session_state.setdefault("answers", {})
    if kept.get("key") != key:
        job = jobs.find(key) or jobs.start(key, command(bundle), given=image)
        if job.running:
            st.image(shown, width=SHOWN // 2)
            _watch(key)
            return
        ok, printed, said = job.ok, job.printed(), job.said()
        jobs.forget(key)
        kept.update(key=key, answer=None, wrong=None)  # also what went wrong: it is asked once an image
        try:
            kept["answer"] = _heard(ok, printed, said)
        except BundleError as error:
            kept["wrong"] = error
    if kept["wrong"] is not None:
        raise kept["wrong"]
    _show(kept["answer"], shown)


def _heard(ok: bool, printed: str, said: str) -> dict[str, Any]:
    if not ok:
        reason = said.splitlines()[-1].removeprefix("error:").strip() if said else "no reason was given"
        raise BundleError(f"the bundle has not answered: {reason}")
    return understood(printed)


def _show(answer: dict[str, Any], shown: bytes) -> None:
    members = answer["members"] if len(answer["members"]) > 1 else []
    picture, said = st.columns([1, 2])
    with picture:
        st.image(shown, caption="As it is understood: upright, without transparency")
    with said:
        headline(words(answer))
        frame = answer_frame(answer["classes"], answer["proba"], members, TOP)
        if members:
            lines(agreement(member_answers_frame(answer["classes"], answer["proba"], members)))
        draw(
            answer_figure(frame),
            "answer",
            f"Probabilities of the {TOP} most probable classes: {words(answer)}",
        )
    if members:
        st.dataframe(
            member_answers_frame(answer["classes"], answer["proba"], members),
            hide_index=True,
            column_config={
                "member": "Member",
                "label": "Says by itself",
                "probability": st.column_config.ProgressColumn(
                    "Probability", format="percent", min_value=0, max_value=1
                ),
                "agrees": st.column_config.CheckboxColumn("Same as all together"),
            },
        )


@st.fragment(run_every=POLL_S)
def _watch(key: Path) -> None:
    job = jobs.find(key)
    if job is None or not job.running:
        st.rerun()
    with st.status(f"Asking the bundle for {job.seconds:.0f} s", expanded=True).container():
        lines("It is loaded anew for each image, which takes a few seconds.")


@st.cache_data(max_entries=8, show_spinner=False)
def _preview(image: bytes) -> bytes:
    """A small PNG of the image.

    Raises:
        UnreadableImageError: it does not decode.
    """
    stream = io.BytesIO()
    preview(image, SHOWN, max_pixels=MAX_PIXELS, name="the image").save(stream, "PNG")
    return stream.getvalue()
