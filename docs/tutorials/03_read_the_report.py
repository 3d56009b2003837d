"""
Read the report
===============

``dosemover compare ... --report report.html`` writes one self-contained page. `This one
<../example_report.html>`__ is the embedded example's; open it beside this page. Here is what its parts
mean, and the same figures from Python.
"""

# %%
# The verdict
# -----------
# The first line of the report says how far the dose moved and by how much it changed, and what noise alone
# would give.

import dosemover as dm
from dosemover.examples import example_pair
from dosemover.report import explain, verdict

result = dm.compare(*example_pair(), profile=True)
print(verdict(result))

# %%
# The table
# ---------
# Each row has a value, a certified interval where there is one, the noise floor, and a p value. *p below*
# marks the smallest that the number of draws allows: the true one may be far smaller. Two sentences say
# what a number means and what it cannot see; read the second one.

for key in ("dmd_mm", "mass_ratio", "gamma_2_2_global_passing_rate_percent"):
    metric = result.metrics[key]
    words = explain(metric)
    print(f"{words.title}\n  {words.means}\n  cannot see: {words.blind}")
    value = f"{metric.value:.4g} {metric.unit}".rstrip()
    print(f"  {value}, noise alone {metric.floor:.3g} ± {metric.floor_sd:.2g}\n")

# %%
# Slices
# ------
# Reference, evaluated, difference, gamma, the change map with arrows, and the flat norm's gains and losses,
# in three planes that move together. Isodose lines belong to the reference.

import matplotlib.pyplot as plt

from dosemover.report import (
    plot_displacement,
    plot_gamma,
    plot_profiles,
    plot_scale_profiles,
    plot_slices,
    plot_z_histogram,
)

figure, axes = plt.subplots(2, 2, figsize=(11, 8.6), layout="constrained")
plot_slices(result, key="difference_gy", ax=axes[0, 0])
plot_gamma(result, ax=axes[0, 1])
plot_displacement(result, ax=axes[1, 0])
plot_slices(result, key="dmd_residual_gy", ax=axes[1, 1])
plt.show()

# %%
# The red line in the difference is the narrow extra field. Beside it, strips of either sign at opposite
# edges are what a shift looks like to a voxelwise difference; the arrows say it directly, +x all over, and
# the blue of the change map is the lower output. What neither movement nor change explains is left in the
# residual: the narrow field.
#
# Profiles
# --------
# Both doses along a line through the maximum, and the Dose Mover's Distance over the exchange length L.
# Where that curve is flat, the difference is movement; where it grows in proportion to L, it is change.

figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
plot_profiles(result, ax=axes[0])
plot_scale_profiles(result, key="dmd_mm", ax=axes[1])
plt.show()

# %%
# Noise
# -----
# Difference over uncertainty against the normal curve that noise alone would give. Wider shoulders are real
# differences, or uncertainties that are too small.

plot_z_histogram(result)
plt.show()

# %%
# The rest
# --------
# Regions of low sampling are outlined, smoothed over three voxels and without pieces of fewer than nine
# voxels of a slice; the table beside them counts every voxel. The share of a metric that comes from them is
# given:

for key in ("rmse_gy", "dmd_mm"):
    share = result.metrics[key].settings.get("low_sampling_share_percent")
    print(f"{key}: {share:.1f} % from voxels with more than 10 % uncertainty")

# %%
# At the end stand all settings, the files beside the two maps (structures, batches, uncertainties), versions
# and seeds, so that the numbers can be made again, and the papers behind the metrics.
