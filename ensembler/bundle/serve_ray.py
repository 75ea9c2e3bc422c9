"""A bundle on Ray Serve, for those who outgrow one machine: the application of `ensembler serve`, in many replicas.

    from ensembler.bundle.serve_ray import deployment
    from ray import serve

    serve.run(deployment("/shared/bundles/birds", replicas=4))

or, from a shell, `serve run ensembler.bundle.serve_ray:from_environment` with ENSEMBLER_BUNDLE set. Needs
`pip install "ray[serve]"`; Ray's proxy then does what uvicorn does in `ensembler serve`, so its own settings say where
it listens (`http_options`) and how long it waits for slow heads; token, limits, batches and pages are the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import BundleError, ConfigError
from .pages import read_card
from .runtime import Bundle
from .serve import read_token


def deployment(
    bundle_path: str | Path,
    *,
    replicas: int = 1,
    cpus: float = 1,
    gpus: float = 0,
    token_file: Path | None = None,
    settings: Any = None,
) -> Any:
    """A Ray Serve application, to be given to `serve.run`.

    Args:
        bundle_path: a bundle that every machine of the cluster sees, or `hf:USER/NAME`.
        replicas: processes, each with a copy of the bundle.
        cpus, gpus: of a replica.
        token_file: see `ensembler serve`; read here, and sent to the replicas.
        settings: `service.Settings`; the token is taken from `token_file`.

    Raises:
        BundleError: `ray[serve]` is not installed.
        ConfigError: a token that is none.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise BundleError(
            f"Ray Serve is not installed ({error.name or error}); pip install 'ray[serve]'"
        ) from error
    from dataclasses import replace

    from .service import Settings

    chosen = settings or Settings()
    if token_file is not None:
        chosen = replace(chosen, token=read_token(token_file))
    name = str(bundle_path)

    def build() -> Any:
        return build_app(name, chosen)

    options = {"num_cpus": cpus, "num_gpus": gpus}

    @serve.deployment(name="ensembler", num_replicas=replicas, ray_actor_options=options)
    @serve.ingress(build)
    class Replica:
        """Holds the application; Ray Serve calls it."""

    deployment: Any = Replica  # what the decorators have made of it
    return deployment.bind()


def build_app(bundle_path: str, settings: Any) -> Any:
    """The application of `service`, around a bundle that is loaded where this runs."""
    from .service import create_app

    return create_app(Bundle.load(bundle_path), read_card(Path(bundle_path)), settings)


def from_environment(_: dict[str, str] | None = None) -> Any:
    """The same from ENSEMBLER_BUNDLE, ENSEMBLER_REPLICAS and ENSEMBLER_TOKEN_FILE, for Ray's own command line.

    Raises:
        ConfigError: ENSEMBLER_BUNDLE is not set, or ENSEMBLER_REPLICAS is no number.
    """
    bundle = os.environ.get("ENSEMBLER_BUNDLE")
    if not bundle:
        raise ConfigError("ENSEMBLER_BUNDLE: is not set; give it the folder of a bundle")
    replicas = os.environ.get("ENSEMBLER_REPLICAS", "1")
    if not replicas.isdecimal() or int(replicas) < 1:
        raise ConfigError(f"ENSEMBLER_REPLICAS {replicas!r}: expected a number, 1 or more")
    token = os.environ.get("ENSEMBLER_TOKEN_FILE")
    return deployment(
        bundle,
        replicas=int(replicas),
        token_file=Path(token) if token else None,
    )
