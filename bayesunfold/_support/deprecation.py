"""Old names that still work for a while, and say what they are called now."""

from __future__ import annotations

import warnings
from typing import Any

__all__ = ["RenamedAttribute"]


def __dir__() -> list[str]:
    return __all__


class RenamedAttribute:
    """An attribute under its old name; reading it warns.

    Parameters
    ----------
    new : str
        The name it has now.
    removed_in : str
        Version in which the old name goes.

    Warns
    -----
    FutureWarning
        Shown to users wherever they read the attribute, as Python does not do with DeprecationWarning.

    Examples
    --------
    >>> class Toys:
    ...     truth = 3
    ...     nature = RenamedAttribute("truth", removed_in="0.4")
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as seen:
    ...     warnings.simplefilter("always")
    ...     value = Toys().nature
    >>> value, str(seen[0].message)
    (3, 'Toys.nature is now Toys.truth; the old name goes with version 0.4.')
    """

    def __init__(self, new: str, removed_in: str) -> None:
        self.new, self.removed_in, self.old = new, removed_in, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        name = owner.__name__
        msg = f"{name}.{self.old} is now {name}.{self.new}; the old name goes with version {self.removed_in}."
        warnings.warn(msg, FutureWarning, stacklevel=2)
        return getattr(instance, self.new)
