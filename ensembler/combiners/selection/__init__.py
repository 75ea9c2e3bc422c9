"""Forward selection with replacement (Caruana et al. 2004): the search behind `greedy` and `bagging`.

`search.py` is the method. What makes it fast is beside it, a file a metric: a `Library` holds what all searches over
the same rows share, and makes an `Objective`, which knows the loss of every ensemble that is one member away.
"""

from .library import Library
from .objective import Objective
from .search import DECIMALS, select

__all__ = ["DECIMALS", "Library", "Objective", "select"]
