"""Images as a network sees them while it trains: the plain image and, beside it, what its recipe makes of it.

Augmentation needs torch, so a command of its own draws the pictures into a folder that lives as long as the server.
"""

from __future__ import annotations

import dataclasses
import html
import json
import shutil
import sys
import tempfile
import weakref
from base64 import b64encode
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from ..store import RunStore, understood
from ..training.candidate import Candidate, digest
from ..training.recipe import Recipe
from . import jobs
from .wording import capital, lines, listed

#: Pictures in all: rows of images, and draws of each beside the plain one.
IMAGES, DRAWS = 6, 4

#: Seconds between two looks at the command.
POLL_S = 0.5

#: Largest side of a picture in pixels.
SIDE = 256

#: Candidates to choose from, in a run that has not chosen yet.
MOST = 50


def section(store: RunStore, oof: pd.DataFrame, image_size: int) -> None:
    """Draws the section of a run's images.

    Args:
        store: the run.
        oof: its images, columns path and label.
        image_size: side that the networks see.
    """
    st.subheader("What the networks see", anchor=False)
    with understood(store.path):
        found = candidates(store)
    if not found or not image_size or oof.empty:
        lines(
            "Nothing of this run was trained on changed images: frozen features are computed from plain ones."
        )
        return
    name = st.selectbox("Candidate", list(found), key="network", bind="query-params")
    recipe = found[name].recipe
    lines(augmentation(recipe))
    if not st.session_state.get("pictures"):
        if st.button("Draw some", icon=":material/image:"):
            st.session_state["pictures"] = True
            st.rerun()
        return
    if st.button("Other images", icon=":material/casino:"):
        st.session_state["samples"] = st.session_state.get("samples", 0) + 1
    seed = int(st.session_state.get("samples", 0))
    rows = sample(oof, IMAGES, seed)
    size = min(image_size, SIDE)
    asked = [str(store.path), found[name].id, seed, list(rows["path"]), size]
    target = _folder().path / digest(asked)
    if not (target / "index.json").is_file():
        job = jobs.find(target)
        if job is None:
            jobs.start(target, command(target, found[name], list(rows["path"]), size, seed))
        elif not job.running:
            st.error("The pictures could not be drawn:", icon=":material/error:")
            st.code(job.said() or "no reason was given", language=None, wrap_lines=True)
            if st.button("Try again", icon=":material/refresh:"):
                jobs.start(target, command(target, found[name], list(rows["path"]), size, seed))
                st.rerun()
            return
        _watch(target)
        return
    with understood(target):
        st.html(gallery(target, list(rows["label"])))
    st.caption(
        f"Each row is an image: first as it is, then as {DRAWS} epochs would see it. Validation, tests and predictions "
        "use the plain image. Where a picture no longer shows its class, the augmentation is too strong."
    )


def candidates(store: RunStore) -> dict[str, Candidate]:
    """Candidates that were trained on augmented images, by name; of a search, while nothing was chosen yet."""
    chosen = [c for c in store.candidates() if c.fine_tuned]
    if not chosen:
        chosen = [Candidate.from_dict(t["candidate"]) for t in store.trials()[:MOST]]
    return {candidate.name: candidate for candidate in chosen}


def sample(oof: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Some images, of as many classes as can be; another seed draws others."""
    draw = np.random.default_rng(seed)
    order = oof.iloc[draw.permutation(len(oof))]
    turn = order.groupby("label", sort=False).cumcount()
    return order.loc[turn.sort_values(kind="stable").index].head(most)


def command(target: Path, candidate: Candidate, paths: list[str], size: int, seed: int) -> list[str]:
    """What draws the pictures, in a process of its own."""
    recipe = json.dumps(dataclasses.asdict(candidate.recipe))
    options = [f"--backbone={candidate.backbone}", f"--recipe={recipe}", f"--size={size}"]
    options += [f"--draws={DRAWS}", f"--seed={seed}", f"--output={target}"]
    return [sys.executable, "-m", "ensembler.training.preview", *options, "--", *paths]


def augmentation(recipe: Recipe) -> str:
    """What a recipe does to images, in words.

    >>> augmentation(Recipe(augment=0.5, flip=False))
    'Turned, cropped, shifted and recoloured at strength 0.5 of 2.'
    """
    parts = []
    if recipe.policy == "trivial":
        parts.append("one random change each (TrivialAugment)")
    elif recipe.policy == "rand":
        parts.append(
            f"{recipe.rand_ops} random changes each, of strength {recipe.rand_magnitude:.3g} of 30 (RandAugment)"
        )
    elif recipe.augment:
        parts.append(f"turned, cropped, shifted and recoloured at strength {recipe.augment:.3g} of 2")
    if recipe.flip:
        parts.append("half of them mirrored")
    if recipe.erasing:
        parts.append(f"a rectangle erased in {recipe.erasing:.0%}")
    if recipe.mixup:
        parts.append("blended with one another (mixup)")
    if recipe.cutmix:
        parts.append("with a patch of another image (CutMix)")
    if not parts:
        return "No augmentation: the network sees the plain images."
    return capital(listed(parts)) + "."


def gallery(folder: Path, labels: list[str]) -> str:
    """HTML of the pictures: a row an image, which wraps where there is no room.

    Args:
        folder: written by `training.preview`.
        labels: class of each image that was asked for.
    """
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    draws = int(index["draws"])
    rows = []
    for i in map(int, index["shown"]):
        pictures = []
        for draw in range(draws + 1):
            data = b64encode((folder / f"{i}-{draw}.png").read_bytes()).decode()
            what = "plain" if draw == 0 else f"augmented, draw {draw}"
            alt = html.escape(f"{labels[i]}, {what}", quote=True)
            gap = ";margin-right:2%" if draw == 0 else ""
            pictures.append(
                f'<img src="data:image/png;base64,{data}" alt="{alt}" '
                f'style="width:{90 / (draws + 1):.1f}%;max-width:9rem;border-radius:4px{gap}">'
            )
        rows.append(
            '<figure style="margin:0 0 .9rem 0"><figcaption style="font-size:.9rem;overflow-wrap:anywhere">'
            f"{html.escape(labels[i])}</figcaption>"
            f'<div style="display:flex;gap:1%">{"".join(pictures)}</div></figure>'
        )
    unread = [
        f"<p>{html.escape(labels[int(i)])}: {html.escape(str(r))}</p>" for i, r in index["unreadable"].items()
    ]
    return "".join([*rows, *unread])


@st.fragment(run_every=POLL_S)
def _watch(target: Path) -> None:
    job = jobs.find(target)
    if job is None or not job.running:
        st.rerun()
    st.status(f"Drawing for {job.seconds:.0f} s", expanded=False)


class _Folder:
    """A private folder for pictures, removed when the server ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ensembler-previews-"))
        weakref.finalize(self, shutil.rmtree, self.path, True)


@st.cache_resource(show_spinner=False)
def _folder() -> _Folder:
    return _Folder()
