"""One plain sentence per metric: what the number means, and what it cannot see."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dosemover.comparison.families import words_of
from dosemover.comparison.result import ComparisonResult, MetricResult
from dosemover.comparison.sentence import histories
from dosemover.comparison.sentence import verdict as moved_and_changed
from dosemover.report.formatting import is_number, number, p_value, percent, quantity

GROUPS = {
    "transport": "Transport: how far the dose moved",
    "amount": "Amount: dose against dose, voxel by voxel",
    "space": "Space: dose and distance together",
    "moments": "Moments: transport from a few numbers",
    "structures": "Structures: what the organs receive",
    "other": "Other",
}
"""Groups of the verdict table and their headings, in the order of the page."""

SIGNIFICANT_P = 0.01
"""Below this p value the report calls a difference more than noise."""

SIGNIFICANT_Z = 3.0
"""The same without a p value, in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What the report says about one metric.

    Parameters
    ----------
    title : str
        The metric's name in words.
    group : str
        A key of `GROUPS`.
    means : str
        What the number means, in one sentence.
    blind : str
        What it cannot see, in one sentence.
    """

    title: str
    group: str
    means: str
    blind: str


_TEXTS: tuple[tuple[str, str, str, str, str], ...] = (
    # key pattern, group, title, means, blind
    (
        "dmd_mm",
        "transport",
        "Dose Mover's Distance",
        "Moving and changing together cost {value}: 1 % of change counts as {exchange} mm of movement.",
        "A small hot spot in a plateau, which it explains by its neighbours moving: read the residual too.",
    ),
    (
        "dmd_moved_mm",
        "transport",
        "DMD: moved",
        "The dose moved by {value} (root mean square over the dose).",
        "In which direction, and in how much of the field: see the arrows.",
    ),
    (
        "dmd_changed_percent",
        "transport",
        "DMD: changed",
        "On the way the dose changed by {value} (root mean square over the dose).",
        "The sign: more in one place and less in another add up. A low-dose bath weighs heavily.",
    ),
    (
        "dmd_residual_max_percent",
        "transport",
        "DMD: largest residual",
        "After the motion is taken out, one voxel still differs by {value} of the reference maximum.",
        "How many voxels do, and it is driven by noise: read the 99th percentile beside it.",
    ),
    (
        "dmd_residual_p99_percent",
        "transport",
        "DMD: residual, 99th percentile",
        "After the motion is taken out, 99 % of the voxels agree within {value} of the reference maximum.",
        "The worst 1 % of the voxels.",
    ),
    (
        "kr_mm",
        "transport",
        "Flat norm",
        "Moving nothing further than the reach of {reach} mm, and paying for gain and loss, costs {value}.",
        "The shift of a wide field, which it reads as loss at one edge and gain at the other.",
    ),
    (
        "kr_moved_mm",
        "transport",
        "Flat norm: moved",
        "The part of it that moved makes {value}.",
        "Whatever is cheaper to lose and gain than to move.",
    ),
    (
        "kr_gained_percent",
        "transport",
        "Flat norm: gained",
        "{value} of the reference dose appeared with nothing within reach to come from.",
        "Dose that could have come from within reach.",
    ),
    (
        "kr_lost_percent",
        "transport",
        "Flat norm: lost",
        "{value} of the reference dose vanished with nowhere within reach to go.",
        "Dose that could have gone within reach.",
    ),
    (
        "w1_mm",
        "transport",
        "Wasserstein distance W₁",
        "A unit of dose travels {value} on average.",
        "Any change of the total dose: both maps are normalised first. Read the mass ratio beside it.",
    ),
    (
        "w2_mm",
        "transport",
        "Wasserstein distance W₂",
        "A unit of dose travels {value} (root mean square).",
        "Any change of the total dose; far-travelling traces count quadratically. Read the mass ratio too.",
    ),
    (
        r"sliced_w[12]_mm",
        "transport",
        "Sliced Wasserstein distance",
        "Seen in projections, the dose travels {value}, averaged over all directions.",
        "The total dose; and a projection shows only part of a movement, so it reads less than W.",
    ),
    (
        "sinkhorn_divergence_mm",
        "transport",
        "Sinkhorn divergence",
        "With plans blurred, the dose travels {value}.",
        "The total dose, and movements much smaller than its blur in noise.",
    ),
    (
        "sobolev_w2_mm",
        "transport",
        "Weighted Sobolev distance",
        "To first order in the change, the dose travels {value}.",
        "The total dose; it is off for movements that are large against the field's edges.",
    ),
    (
        "emd_mm",
        "transport",
        "Earth mover's distance of voxel atoms",
        "Between voxel centres a unit of dose travels {value}.",
        "Movements below a voxel, which it overstates: a cross-check for small maps.",
    ),
    (
        "mass_ratio",
        "amount",
        "Total dose ratio",
        "In all, the evaluated map holds {change} dose (evaluated over reference).",
        "Where it is.",
    ),
    (
        "mean_difference_gy",
        "amount",
        "Mean difference",
        "On average the evaluated dose differs by {value}.",
        "Gains and losses that cancel.",
    ),
    (
        "mae_gy",
        "amount",
        "Mean absolute difference",
        "A voxel differs by {value} on average.",
        "Whether dose moved or changed; it grows with noise.",
    ),
    (
        "mse_gy2",
        "amount",
        "Mean squared difference",
        "The squared difference of a voxel is {value} on average.",
        "Whether dose moved or changed; it grows with noise.",
    ),
    (
        "rmse_gy",
        "amount",
        "RMS difference",
        "A voxel differs by {value} (root mean square).",
        "Whether dose moved or changed; it grows with noise.",
    ),
    (
        "debiased_rmse_gy",
        "amount",
        "RMS difference without noise",
        "With the noise of both maps taken out, voxels differ by {value} (root mean square).",
        "Anything, where the uncertainties that it subtracts are wrong.",
    ),
    (
        "max_difference_gy",
        "amount",
        "Largest difference",
        "The worst voxel differs by {value}.",
        "How many voxels do; in a steep edge a small shift is enough, and so is noise.",
    ),
    (
        r"p(?P<q>\d+)_difference_gy",
        "amount",
        "Difference, {q}th percentile",
        "{q} % of the voxels differ by less than {value}.",
        "The voxels beyond it, and why they differ.",
    ),
    (
        "relative_mae_percent",
        "amount",
        "Mean absolute difference, relative",
        "A voxel differs by {value} on average.",
        "Whether dose moved or changed; it grows with noise.",
    ),
    (
        r"dose_difference_passing_(?P<q>[\dp]+)_percent",
        "amount",
        "Voxels within {q} % in dose",
        "{value} of the voxels differ by at most {q} % in dose.",
        "How far the others are off; a steep edge fails by a small shift.",
    ),
    (
        "psnr_db",
        "amount",
        "Peak signal-to-noise ratio",
        "The maximum stands {value} above the RMS difference.",
        "The same as the RMS difference: whether dose moved or changed.",
    ),
    (
        "ssim",
        "amount",
        "Structural similarity",
        "Local patterns agree with an index of {value} (1 is identical).",
        "It depends on window and data range, and empty space counts as agreement.",
    ),
    (
        "ssim_in_mask",
        "amount",
        "Structural similarity in the dose",
        "Where there is dose, local patterns agree with an index of {value} (1 is identical).",
        "It depends on window and data range; it has no unit to act on.",
    ),
    (
        "chi2_per_voxel",
        "amount",
        "Chi-square per voxel",
        "Squared differences are {value} times what the stated noise explains (1 is noise alone).",
        "Differences, where the stated uncertainties are too large; neighbours count as independent.",
    ),
    (
        "kf_fraction_percent",
        "amount",
        "Kawrakow–Fippel: share",
        "{value} of the voxels carry a systematic difference beyond noise.",
        "Which; and differences that are small against the noise of one voxel.",
    ),
    (
        "kf_shift_sigma",
        "amount",
        "Kawrakow–Fippel: size",
        "Those voxels are off by {value} standard deviations.",
        "Their difference in Gy: more histories make the number grow.",
    ),
    (
        r"gamma_(?P<dd>[\dp]+)_(?P<dta>[\dp]+)_(?P<norm>global|local)_passing_rate_percent",
        "space",
        "Gamma {dd} %/{dta} mm, {norm}",
        "{value} of the voxels find the same dose within the criteria.",
        "How badly the rest fails; noise in the evaluated map raises the rate.",
    ),
    (
        r"gamma_(?P<dd>[\dp]+)_(?P<dta>[\dp]+)_(?P<norm>global|local)_mean",
        "space",
        "Mean gamma {dd} %/{dta} mm, {norm}",
        "On average a voxel uses {value} of its tolerance.",
        "Hot spots in small volumes, and noise, which lowers it.",
    ),
    (
        r"gamma_(?P<dd>[\dp]+)_(?P<dta>[\dp]+)_(?P<norm>global|local)_two_sided_passing_rate_percent",
        "space",
        "Gamma {dd} %/{dta} mm, {norm}, two-sided",
        "Searched from either map, {value} of the voxels pass.",
        "How badly the rest fails.",
    ),
    (
        "dta_mean_mm",
        "space",
        "Distance to agreement",
        "The same dose is found {value} away on average.",
        "Differences in flat dose, where the same dose may be nowhere.",
    ),
    (
        "chi_passing_rate_percent",
        "space",
        "Chi test (Bakai)",
        "{value} of the voxels lie within the tolerance that the local gradient gives.",
        "How badly the rest fails; the gradient stands for the distance.",
    ),
    (
        "ndd_mean",
        "space",
        "Normalised dose difference",
        "On average a voxel uses {value} of its local tolerance.",
        "Hot spots in small volumes.",
    ),
    (
        r"isodose_dice_(?P<q>\d+)",
        "space",
        "Dice of the {q} % isodose",
        "The volumes above {q} % overlap with a coefficient of {value} (1 is identical).",
        "The dose inside and outside, and thin layers around large volumes.",
    ),
    (
        r"isodose_jaccard_(?P<q>\d+)",
        "space",
        "Jaccard of the {q} % isodose",
        "The volumes above {q} % share {value} of their union.",
        "The dose inside and outside, and thin layers around large volumes.",
    ),
    (
        r"isodose_hd95_(?P<q>\d+)_mm",
        "space",
        "Hausdorff distance (95 %), {q} % isodose",
        "95 % of the {q} % isodose surface moved by less than {value}.",
        "The dose inside and outside; in flat dose the surface jumps with noise.",
    ),
    (
        r"isodose_surface_(?P<q>\d+)_mm",
        "space",
        "Surface distance, {q} % isodose",
        "The {q} % isodose surface moved by {value} on average.",
        "The dose inside and outside; in flat dose the surface jumps with noise.",
    ),
    (
        "center_shift_mm",
        "space",
        "Shift of the centre of dose",
        "The centre of dose moved by {value}.",
        "Changes that leave the centre in place: penumbra, opposite shifts, output.",
    ),
    (
        "best_shift_mm",
        "space",
        "Best rigid shift",
        "Moving the evaluated map rigidly by {value} brings it closest to the reference.",
        "Motion of a part of the field, and what no rigid shift explains.",
    ),
    (
        r"axis_w[12]_mm",
        "space",
        "Movement of the projections",
        "Projected on the axes, the dose moved by {value}: the true distance is at least this.",
        "The total dose, and differences that cancel in projection.",
    ),
    (
        "mean_shift_mm",
        "moments",
        "Shift of the mean",
        "The centre of dose moved by {value}: no transport can be shorter.",
        "Everything but the centre.",
    ),
    (
        "bures_w2_mm",
        "moments",
        "Gaussian (Bures) distance",
        "From centres and widths alone, the dose travels at least {value}.",
        "Total dose and shape: exact only for shifts and stretches.",
    ),
    (
        "moment_w2_mm",
        "moments",
        "W₂ from moments",
        "From a few moments, the dose travels {value} (root mean square).",
        "The total dose, and detail finer than its polynomials.",
    ),
    (
        "moment_dmd_mm",
        "moments",
        "DMD from moments",
        "From a few moments, moving and changing cost {value}.",
        "Detail finer than its polynomials, above all hot spots.",
    ),
    (
        "dvh_w1_gy",
        "structures",
        "Area between the DVHs",
        "The dose-volume histograms differ by {value} on average{where}.",
        "Where in the structure the dose is.",
    ),
    (
        "openkbp_dose_score",
        "structures",
        "OpenKBP dose score",
        "Within the possible-dose mask a voxel differs by {value} on average.",
        "Whether dose moved or changed.",
    ),
    (
        "openkbp_dvh_score",
        "structures",
        "OpenKBP DVH score",
        "The DVH points of targets and organs differ by {value} on average.",
        "Where in the structures the dose is.",
    ),
    (
        "synthrad_dose_score",
        "structures",
        "SynthRAD dose score",
        "The combined relative dose error of the challenge is {value}.",
        "Which of its parts is to blame.",
    ),
)

GAMMA_RATE = re.compile(r"gamma_[\dp]+_[\dp]+_(global|local)_passing_rate_percent")
"""Keys of the one-sided gamma passing rates."""

_COMPILED = tuple((re.compile(pattern), *rest) for pattern, *rest in _TEXTS)


def rank(key: str) -> int:
    """Place of a metric in the verdict table."""
    return next((i for i, entry in enumerate(_COMPILED) if entry[0].fullmatch(key)), len(_COMPILED))


def explain(metric: MetricResult) -> Explanation:
    """Title, group and plain sentences of one metric.

    Examples
    --------
    >>> from dosemover.comparison.result import MetricResult
    >>> explain(MetricResult(key="w2_mm", value=0.9, unit="mm")).means
    'A unit of dose travels 0.900 mm (root mean square).'
    """
    for pattern, group, title, means, blind in _COMPILED:
        match = pattern.fullmatch(metric.key)
        if match is not None:
            words = _words(metric) | {k: v.replace("p", ".") for k, v in match.groupdict().items()}
            words = {name: _ordinal_safe(text) for name, text in words.items()}
            return Explanation(
                title=title.format(**words),
                group=group,
                means=means.format(**words),
                blind=blind.format(**words),
            )
    own = words_of(metric.key)
    if own is not None:
        value = quantity(metric.value, metric.unit)
        return Explanation(
            title=own.title, group="other", means=own.means.replace("{value}", value), blind=own.blind
        )
    return Explanation(
        title=metric.key,
        group="other",
        means=f"The value is {quantity(metric.value, metric.unit)}.",
        blind="See the documentation of this metric.",
    )


def _ordinal_safe(text: str) -> str:
    """Text without the braces that ``str.format`` would read."""
    return text.replace("{", "(").replace("}", ")")


def _words(metric: MetricResult) -> dict[str, str]:
    """What the sentences may quote: the value, its settings, and a ratio as more or less."""
    settings = metric.settings
    exchange = settings.get("exchange_mm_per_percent", 1.0)
    reach = settings.get("reach_mm", 10.0)
    value = metric.value
    change = "an unknown amount of"
    if is_number(value) and value is not None:
        share = 100 * (value - 1)
        more = "more" if share > 0 else "less"
        change = "the same" if abs(share) < 0.005 else f"{number(abs(share), 2)} % {more}"
    where = f", most in {settings['largest_in']}" if "largest_in" in settings else ""
    return {
        "where": where,
        "value": quantity(value, metric.unit),
        "change": change,
        "exchange": f"{exchange:g}" if is_number(exchange) else str(exchange),
        "reach": f"{reach:g}" if is_number(reach) else str(reach),
    }


def is_significant(metric: MetricResult) -> bool | None:
    """Whether a metric is more than noise alone would give; None where that is not known.

    By p; where the draws under the null allow no p small enough and the value lies beyond all of
    them, by z.
    """
    if is_number(metric.p) and not (metric.p_is_smallest and is_number(metric.z)):
        return float(metric.p or 0.0) < SIGNIFICANT_P
    if is_number(metric.z):
        return abs(float(metric.z or 0.0)) >= SIGNIFICANT_Z
    return None


def verdict(result: ComparisonResult) -> str:
    """The sentence that heads a report.

    "The dose moved by 0.8 mm and changed by 0.3 % (noise alone: 0.05 mm)." Without the Dose
    Mover's Distance it falls back on the best rigid shift and the total dose.
    """
    sentence = moved_and_changed(result)
    if sentence is not None:
        return sentence
    ratio, shift = _value(result, "mass_ratio"), _value(result, "best_shift_mm")
    parts = []
    if shift is not None:
        parts.append(f"the best rigid shift is {number(shift, 2)} mm")
    if ratio is not None:
        parts.append(f"the total dose changed by {number(100 * (ratio - 1), 2)} %")
    if not parts:
        return "The maps were compared; the table below says how they differ."
    text = " and ".join(parts)
    return text[0].upper() + text[1:] + "."


def verdict_details(result: ComparisonResult) -> list[str]:
    """Short sentences under the verdict: significance, histories, total, gamma, residual."""
    parts = (_noise(result), histories(result), _total(result), _gamma(result), _residual(result))
    return [text for text in parts if text]


def _noise(result: ComparisonResult) -> str:
    """Whether the headline is more than noise."""
    metric = result.metrics.get("dmd_mm")
    if metric is None or metric.value is None:
        return ""
    significant = is_significant(metric)
    if significant is None:
        return "Whether that is more than noise is not known: no uncertainty was given or estimated."
    evidence = ", ".join(
        text
        for text in (
            f"z = {number(metric.z, 2)}" if is_number(metric.z) else "",
            p_value(metric.p, smallest=metric.p_is_smallest) if is_number(metric.p) else "",
        )
        if text
    )
    if significant:
        return f"Noise alone does not explain that ({evidence})."
    return f"Noise alone would explain that ({evidence})."


def _total(result: ComparisonResult) -> str:
    """The total dose in words."""
    metric = result.metrics.get("mass_ratio")
    if metric is None or metric.value is None:
        return ""
    return f"In total the evaluated map holds {_words(metric)['change']} dose."


def _gamma(result: ComparisonResult) -> str:
    """The first gamma passing rate in words."""
    for metric in result.metrics.values():
        if GAMMA_RATE.fullmatch(metric.key) and is_number(metric.value):
            return f"{explain(metric).title}: {percent(metric.value)} % of the voxels pass."
    return ""


def _residual(result: ComparisonResult) -> str:
    """What the motion does not explain, in words."""
    value = _value(result, "dmd_residual_max_percent")
    if value is None:
        return ""
    before = _largest_difference_percent(result)
    if before is None:
        return f"What movement does not explain reaches {percent(value)} % of the maximum in one voxel."
    if value < before:
        return (
            f"In one voxel the maps differ by {percent(before)} % of the maximum, "
            f"by {percent(value)} % once the motion is taken out."
        )
    return (
        f"In one voxel the maps differ by {percent(before)} % of the maximum, and the motion does not "
        f"explain it: taken out, it leaves {percent(value)} %."
    )


def _largest_difference_percent(result: ComparisonResult) -> float | None:
    """Largest difference of the maps as they came, in percent of the reference maximum."""
    largest = _value(result, "max_difference_gy")
    maximum = result.reference.max_gy
    return None if largest is None or maximum <= 0 else 100 * largest / maximum


def _value(result: ComparisonResult, key: str) -> float | None:
    """A metric's value where it is there and finite."""
    metric = result.metrics.get(key)
    return metric.value if metric is not None and is_number(metric.value) else None
