"""
Add a metric
============

A metric is a function of two dose maps. A *family* tells the comparison its keys and units; noise floor, p
value, table and JSON then come by themselves. As an example: by how much the volume inside the 50 % isodose
changes.
"""

# %%
# The function
# ------------
# Keyword-only maps, units in the name, an error that says what to do.

import numpy as np

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.metrics import isodose_volume_cc


def treated_volume_change_cc(*, reference: DoseMap, evaluated: DoseMap, level_percent: float = 50.0) -> float:
    """Volume above a share of the reference maximum: evaluated less reference [cm3]."""
    if not 0 < level_percent < 100:
        raise InputError(
            f"`level_percent` must lie between 0 and 100, got {level_percent}. No isodose is there. Pass 50."
        )
    level_gy = level_percent / 100 * reference.max_gy
    volumes = [isodose_volume_cc(dose=dose, level_gy=level_gy) for dose in (reference, evaluated)]
    return volumes[1] - volumes[0]


# %%
# Its test
# --------
# Every number has an outside witness. Here a closed form: on a ramp of 1 Gy/mm, raised by 0.7 Gy, the
# isodose moves by 0.7 mm.

grid_mm = np.arange(40.0)
ramp = np.broadcast_to(40.0 - grid_mm, (10, 10, 40))
maps = [DoseMap.from_array(dose, spacing_mm=(1.0, 1.0, 1.0)) for dose in (ramp, ramp + 0.7)]
found = treated_volume_change_cc(reference=maps[0], evaluated=maps[1])
expected = 0.7 * 10 * 10 / 1000
print(f"{found:.4f} cm3, expected {expected:.4f}")
assert abs(found - expected) < 1e-6

# %%
# The family
# ----------
# `keys` names what it computes and the units, `both` those keys of which large and small values alike speak
# of a difference; others are `smaller` or, by default, larger. `compute` yields results and may leave maps
# in the context.

from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, fixed_keys
from dosemover.comparison.result import MetricResult


def compute(context: ComparisonContext, wanted):
    """The change of the treated volume, at the reference's voxels."""
    value = treated_volume_change_cc(reference=context.reference, evaluated=context.evaluated_here)
    yield MetricResult(
        key="treated_volume_change_cc", value=value, unit="cm³", settings={"level_percent": 50.0}
    )


TREATED_VOLUME = Family(
    name="treated_volume",
    keys=fixed_keys(treated_volume_change_cc="cm³"),
    compute=compute,
    both=frozenset({"treated_volume_change_cc"}),
)

# %%
# In the comparison
# -----------------
# Inside the package, the family goes into the tuple of `comparison/families.py`, and two sentences into
# `report/sentences.py`. For a trial from outside, the tuple can be extended for one session:

import dosemover as dm
from dosemover.comparison import families
from dosemover.examples import example_pair

families.FAMILIES = (*families.FAMILIES, TREATED_VOLUME)

result = dm.compare(*example_pair(), metrics=["treated_volume", "isodose_dice_50"], null=19)
metric = result.metrics["treated_volume_change_cc"]
print(f"{metric.value:.2f} {metric.unit}, p {metric.p:.2g}")
print(f"noise alone: {metric.floor:.2f} ± {metric.floor_sd:.2f} {metric.unit}")
print(metric.settings["significance"])

# %%
# It has a floor and a p value from relabelled batches without a line written for them, and it is in the
# JSON:

import json

print(json.dumps(json.loads(result.to_json())["metrics"]["treated_volume_change_cc"], indent=1)[:400])
