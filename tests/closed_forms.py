"""Closed forms that the tests compare with: one function per published equation."""


def gamma_of_a_ramp(
    *, difference_gy: float, slope_gy_per_mm: float, dose_criterion_gy: float, distance_criterion_mm: float
) -> float:
    """Gamma on a linear dose, |chi| of Bakai et al. 2003: difference / sqrt(dD^2 + (slope dd)^2)."""
    return abs(difference_gy) / (dose_criterion_gy**2 + (slope_gy_per_mm * distance_criterion_mm) ** 2) ** 0.5


def gamma_of_a_step(
    *,
    to_edge_mm: float,
    ramp_mm: float,
    height_gy: float,
    dose_criterion_gy: float,
    distance_criterion_mm: float,
) -> float:
    """Gamma of a plateau point ``to_edge_mm`` beyond the plateau of a step that falls linearly over a ramp.

    Low et al. 1998: the closest point lies on the ramp, before its upper end where the ramp is steep: the
    distance of a point from a line segment in criterion units.
    """
    far = to_edge_mm / distance_criterion_mm  # upper end of the ramp, no dose difference
    step = ramp_mm / distance_criterion_mm
    rise = height_gy / dose_criterion_gy
    t = min(1.0, max(0.0, far * step / (step**2 + rise**2)))
    return ((far - t * step) ** 2 + (t * rise) ** 2) ** 0.5
