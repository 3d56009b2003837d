"""
Add a metric
============

A metric is a function of two dose maps. `dosemover.comparison.register` tells the comparison its key and
unit; noise floor, p value, table, JSON and report then come by themselves. As an example: by how much the
volume inside the 50 % isodose changes.
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
# Registered
# ----------
# The key ends in the unit. ``direction`` says which values speak of a difference: "larger" ones unless told,
# here those on "both" sides of the floor. ``words`` are for the report: what the number is called, what it
# means and, most of all, what it cannot see.

from dosemover.comparison import Words, register

register(
    treated_volume_change_cc,
    keys={"treated_volume_change_cc": "cm³"},
    direction="both",
    words={
        "treated_volume_change_cc": Words(
            title="Change of the treated volume",
            means="The volume inside the 50 % isodose changed by {value}.",
            blind="Motion of that volume, and dose that changes inside it or outside.",
        )
    },
)

# %%
# In the comparison
# -----------------
# It is asked for by its key, beside any other.

import dosemover as dm
from dosemover.examples import example_pair

result = dm.compare(*example_pair(), metrics=["treated_volume_change_cc", "isodose_dice_50"], null=19)
metric = result.metrics["treated_volume_change_cc"]
print(f"{metric.value:.2f} {metric.unit}, p {metric.p:.2g}")
print(f"noise alone: {metric.floor:.2f} ± {metric.floor_sd:.2f} {metric.unit}")
print(metric.settings["significance"])

# %%
# It has a floor and a p value from relabelled batches without a line written for them, it has a row in the
# report with the words above, and it is in the JSON:

import json

from dosemover.report import explain

print(explain(metric).means)
print(json.dumps(json.loads(result.to_json())["metrics"]["treated_volume_change_cc"], indent=1)[:400])

# %%
# On the command line, a file with the function and the call of ``register`` does the same, and
# ``--fail-if`` understands the new key::
#
#     dosemover compare plan.dcm mc.mhd --plugin treated_volume.py --fail-if "treated_volume_change_cc>1"
#
# The function is called on every draw of noise, so it must not change its maps; what it raises becomes the
# metric's status. A metric of the package itself is a ``Family`` in ``comparison/families.py``, with its
# words in ``report/texts.py``.
