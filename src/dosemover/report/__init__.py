"""Figures and the self-contained HTML report."""

from __future__ import annotations

from dosemover.report.figures import (
    plot_displacement,
    plot_dvh,
    plot_gamma,
    plot_profiles,
    plot_scale_profiles,
    plot_slices,
    plot_z_histogram,
)
from dosemover.report.page import render_report, write_report
from dosemover.report.sentences import explain, verdict

__all__ = [
    "explain",
    "plot_displacement",
    "plot_dvh",
    "plot_gamma",
    "plot_profiles",
    "plot_scale_profiles",
    "plot_slices",
    "plot_z_histogram",
    "render_report",
    "verdict",
    "write_report",
]
