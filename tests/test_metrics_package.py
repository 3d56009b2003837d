"""The package offers its names at first use."""

import subprocess
import sys

import pytest

import dosemover.metrics as metrics


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_public_name_exists_and_is_documented(name):
    assert getattr(metrics, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'gama'"):
        _ = metrics.gama


def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import sys, dosemover.metrics; "
        "print([m for m in ('numba', 'skimage', 'scipy.optimize', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
