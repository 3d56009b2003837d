"""
Simulate and compare
====================

The built-in photon Monte Carlo writes dose with batches and uncertainty, so a comparison knows its noise.
Here a 120 kV field on a water tank is moved by 0.5 mm, a tenth of a voxel, and the question is how many
histories it takes to see that.
"""

# %%
# Two simulations
# ---------------
# Kerma deposition, track-length estimator: right for kV photons. The same can be said in a TOML file and
# run with ``dosemover simulate beam.toml -o out``.

from dosemover import montecarlo as mc

PHOTONS = 1.5e14
TUBE = mc.Spectrum.bremsstrahlung(0.12, filters=(("aluminium", 3.0),))  # g/cm2: 11 mm


def simulated(shift_mm, histories, seed):
    """A 60 mm field on a water tank, in 10 batches; the tube's output is the same for all."""
    beam = mc.Beam(spectrum=TUBE, field_mm=60.0, isocenter_mm=(shift_mm, 0.0, 0.0), penumbra_mm=5.0)
    config = mc.SimulationConfig(
        phantom=mc.water_tank(size_mm=140.0, voxel_mm=5.0, center_mm=(0.0, 70.0, 0.0)),
        sources=(beam,),
        histories=histories,
        photons=PHOTONS,
        batches=10,
        seed=seed,
        estimator="track_length",
    )
    return mc.simulate(config).to_dose_map(name=f"{shift_mm:g} mm, seed {seed}")


reference = simulated(0.0, 200_000, seed=1)
high = reference.dose_gy > 0.5 * reference.max_gy
noise = (reference.uncertainty_gy / reference.dose_gy)[high].mean()
print(f"{reference.grid.shape} voxels, {reference.max_gy:.2f} Gy at most, noise {100 * noise:.1f} %")

# %%
# ``photons`` gives both maps the same absolute scale. Normalising each to its own maximum would not: a
# maximum is noisy, and a factor that differs by half a percent is a change of output, which the Dose
# Mover's Distance sees.

# %%
# Nothing against something
# -------------------------
# First the null: the same beam with another seed. Then the moved one.

import dosemover as dm

KEYS = ["dmd_mm", "moment_w2_mm", "center_shift_mm", "rmse_gy", "gamma_2_2_global_passing_rate_percent"]

for name, shift in (("the same beam", 0.0), ("moved by 0.5 mm", 0.5)):
    print(f"\n{name}")
    result = dm.compare(reference, simulated(shift, 200_000, seed=2), metrics=KEYS, gamma=[(2, 2)])
    for key in KEYS:
        metric = result.metrics[key]
        p = "p below" if metric.p_is_smallest else "p ="
        print(f"  {key:40} {metric.value:8.3g} {metric.unit:2} noise {metric.floor:8.3g}  {p} {metric.p:.2g}")

# %%
# How many histories
# ------------------
# Floors of distances fall as one over the root of the histories. To see a change of a given size with room
# to spare, the floor should be a third of it:

from dosemover.noise import histories_factor

floor = result.metrics["dmd_mm"].floor
factor = histories_factor(floor=floor, goal=0.5 / 3)
print(f"floor {floor:.3f} mm at 200 000 histories a side; 0.5 mm / 3 needs {factor:.1f} times as many")

# %%
# Where it moved
# --------------
# The maps of a comparison are drawn by `dosemover.report`; the arrows are scaled up.

import matplotlib.pyplot as plt

from dosemover.report import plot_displacement, plot_z_histogram

result = dm.compare(reference, simulated(0.5, 400_000, seed=3), metrics=["dmd_mm", "chi2_per_voxel"])
figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
plot_displacement(result, ax=axes[0])
plot_z_histogram(result, ax=axes[1])
plt.show()

# %%
# The histogram of difference over uncertainty hardly departs from the normal curve: no voxel knows that the
# beam moved. All of them together do.
