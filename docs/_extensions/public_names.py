"""Where each public name of the package is documented."""

from __future__ import annotations

import dosemover


def home_of_public_names() -> dict[str, str]:
    """Path below the package, where it is described, of every name that `dosemover` offers."""
    return {name: f"{module}.{name}" for module, names in dosemover._MODULES.items() for name in names}
