"""A Ray of one machine that nobody else can reach, and that keeps no secrets of the environment in its logs."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Off, Ray takes the loopback address for that of its node, as it always does on macOS and Windows. The processes that
#: it starts read the variable; this one may have imported Ray already, and then goes by the constant.
_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def on_loopback() -> Iterator[None]:
    """Within, a Ray that is started listens on 127.0.0.1 alone.

    `ray.init(_node_ip_address="127.0.0.1")` does not do it: Ray puts the address that other machines see in its place.
    Its servers then listen on that, and its agents on every address there is.
    """
    from ray._private import ray_constants

    constant, variable = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(_VARIABLE)
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[_VARIABLE] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        if variable is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = variable


def warn_if_reachable() -> None:
    """Says on standard error where this Ray, which was to be on loopback, listens instead."""
    import ray

    addresses = {str(node["NodeManagerAddress"]) for node in ray.nodes()}
    for address in sorted(a for a in addresses if not ipaddress.ip_address(a).is_loopback):
        print(
            f"warning: Ray {ray.__version__} listens on {address} rather than on loopback; others who reach this "
            "machine are kept out by Ray's token alone",
            file=sys.stderr,
        )


def withhold_secrets() -> None:
    """Lets Tune hand on to workers its own settings alone.

    It hands on the keys of AWS as well, which a sweep does not use, and Ray writes what is handed on into a log.
    """
    from ray.tune.execution import class_cache

    known = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {
        name for name in known if name.startswith(("RAY_", "TUNE_", "TRAIN_"))
    }
