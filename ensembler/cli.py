"""The command line: how a verb is called, and how it ends.

Results go to standard output, progress to standard error. Exit 0 done; 2 the user can mend it, one line says how,
or for `audit` its findings; 3 an alarm of `monitor`; 1 a bug; 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from .arguments import parser
from .errors import EnsemblerError
from .signals import TERMINATED

#: Verb -> what has to be installed for it, where that is not all that trains.
_EXTRAS = {"predict": "runtime", "serve": "serve", "app": "app", "monitor": "serve", "push": "serve"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    args = parser().parse_args(argv)
    try:
        code: int | None = args.verb(args)
        sys.stdout.flush()
    except EnsemblerError as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as end:
        return _ended_by_hand(end)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ModuleNotFoundError as error:
        return _not_installed(error, args.command)
    except Exception:  # a bug of ours, whatever it is
        return _bug()
    else:
        return code or 0
    return 0


def _ended_by_hand(end: KeyboardInterrupt | SystemExit) -> int:
    if isinstance(end, SystemExit) and end.code != TERMINATED:
        raise end
    word, code = ("terminated", TERMINATED) if isinstance(end, SystemExit) else ("interrupted", 130)
    print(f"{word}; run the same command again to go on", file=sys.stderr)
    return code


def _not_installed(error: ModuleNotFoundError, verb: str) -> int:
    library = str(error.name).split(".")[0]
    if library == "ensembler":
        return _bug()
    extra = _EXTRAS.get(verb, "train")
    print(f"error: {library} is not installed; pip install 'ensembler[{extra}]'", file=sys.stderr)
    return 2


def _bug() -> int:
    traceback.print_exc()
    print("error: this is a bug in ensembler; please report the lines above", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
