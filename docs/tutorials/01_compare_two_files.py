"""
Compare two files
=================

Two dose maps in, a table, a JSON and a report out. The maps here are the embedded example, written first to
the two formats that most people have: a DICOM RT Dose, as planning systems write it, and a MetaImage, as
Monte Carlo codes do.
"""

# %%
# Two files
# ---------
# The reference is a simulated lung treatment; the evaluated map is a second simulation with three changes
# built in.

import tempfile
import warnings
from pathlib import Path

import dosemover as dm
from dosemover.examples import EXAMPLE_CHANGES, example_pair

folder = Path(tempfile.mkdtemp())
planned, simulated = example_pair()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # these formats keep the dose alone, which is warned of
    dm.write_dose(planned, folder / "plan.dcm")
    dm.write_dose(simulated, folder / "montecarlo.mha")
print(EXAMPLE_CHANGES)

# %%
# Compare
# -------
# On the command line this is ``dosemover compare plan.dcm montecarlo.mha --report report.html --json
# result.json``. In Python, paths, `DoseMap` objects and arrays (with ``spacing_mm=``) all work.

result = dm.compare(folder / "plan.dcm", folder / "montecarlo.mha")


def show(keys):
    """Value, certified interval and noise of some metrics."""
    for key in keys:
        metric = result.metrics[key]
        interval = "" if metric.lower is None else f"  in [{metric.lower:.3g}, {metric.upper:.3g}]"
        noise = "" if metric.floor is None else f"  noise alone {metric.floor:.2g}"
        print(f"{key:38} {metric.value:8.4g} {metric.unit:3}{interval}{noise}")


show(
    [
        "mass_ratio",
        "rmse_gy",
        "gamma_3_3_global_passing_rate_percent",
        "gamma_2_2_global_passing_rate_percent",
    ]
)
show(["best_shift_mm", "dmd_mm", "dmd_moved_mm", "dmd_changed_percent", "dmd_residual_max_percent"])

# %%
# Gamma 3 %/3 mm passes. The output change shows in ``mass_ratio``, the millimetre in ``best_shift_mm`` and
# ``dmd_moved_mm``, the hot spot in the largest residual.
#
# What noise alone would give
# ---------------------------
# The files hold no uncertainty, so the noise level was estimated from the maps; where it was found, the
# numbers say so. Batches or an uncertainty map make it a statement: ``--evaluated-uncertainty MAP`` or
# ``--evaluated-batches GLOB`` on the command line. The example's own maps carry eight batches each:

result = dm.compare(planned, simulated, metrics=["dmd_mm", "mass_ratio", "rmse_gy"])
show(["dmd_mm", "mass_ratio", "rmse_gy"])
print(result.metrics["dmd_mm"].settings["significance"])

# %%
# Before the numbers
# ------------------
# ``result.warnings`` holds what to know before reading any of them: units or integrals that do not fit,
# batches that are not those of the map, and a reference maximum that is one badly known voxel. Thresholds
# and percentages refer to that maximum; with ``--prescription GY`` (``prescription_gy=``) they refer to the
# prescription.

print(result.warnings or "nothing to warn of")

# %%
# A gate for a pipeline
# ---------------------
# ``--fail-if`` makes the exit code a test. In Python it is an ordinary comparison:

limit_mm = 1.0
upper = result.metrics["dmd_mm"].upper
print("accept" if upper <= limit_mm else f"look at it: the dose may have moved and changed by {upper:.2f} mm")
