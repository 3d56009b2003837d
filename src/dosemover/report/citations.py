"""The literature behind the metrics of a report, as text and as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One publication.

    Parameters
    ----------
    key : str
        BibTeX key.
    authors : str
        "Family, Initials and Family, Initials".
    title, journal : str
    year : int
    locator : str
        Volume and pages.
    doi : str
        Without the resolver's address; empty where there is none.
    metrics : str
        Regular expression of the metric keys that rest on it.
    """

    key: str
    authors: str
    title: str
    journal: str
    year: int
    metrics: str
    locator: str = ""
    doi: str = ""

    @property
    def bibtex(self) -> str:
        """The entry for a bibliography."""
        fields = {
            "author": self.authors,
            "title": f"{{{self.title}}}",
            "journal": self.journal,
            "year": self.year,
        }
        volume, _, pages = self.locator.partition(", ")
        fields |= {"volume": volume} if volume else {}
        fields |= {"pages": pages.replace("–", "--")} if pages else {}
        fields |= {"doi": self.doi} if self.doi else {}
        body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
        return f"@article{{{self.key},\n{body}}}"


REFERENCES = (
    Reference(
        key="liero2018",
        authors="Liero, M. and Mielke, A. and Savaré, G.",
        title="Optimal entropy-transport problems and a new Hellinger–Kantorovich distance "
        "between positive measures",
        journal="Inventiones mathematicae",
        year=2018,
        locator="211, 969–1117",
        doi="10.1007/s00222-017-0759-8",
        metrics=r".*dmd.*",
    ),
    Reference(
        key="chizat2018",
        authors="Chizat, L. and Peyré, G. and Schmitzer, B. and Vialard, F.-X.",
        title="An interpolating distance between optimal transport and Fisher–Rao metrics",
        journal="Foundations of Computational Mathematics",
        year=2018,
        locator="18, 1–44",
        doi="10.1007/s10208-016-9331-y",
        metrics=r".*dmd.*",
    ),
    Reference(
        key="kondratyev2016",
        authors="Kondratyev, S. and Monsaingeon, L. and Vorotnikov, D.",
        title="A new optimal transport distance on the space of finite Radon measures",
        journal="Advances in Differential Equations",
        year=2016,
        locator="21, 1117–1164",
        metrics=r".*dmd.*",
    ),
    Reference(
        key="peyre2019",
        authors="Peyré, G. and Cuturi, M.",
        title="Computational optimal transport",
        journal="Foundations and Trends in Machine Learning",
        year=2019,
        locator="11, 355–607",
        doi="10.1561/2200000073",
        metrics=r"w[12]_mm|sliced_.*|sinkhorn_.*|emd_mm|axis_w.*|kr_.*",
    ),
    Reference(
        key="lellmann2014",
        authors="Lellmann, J. and Lorenz, D. A. and Schönlieb, C. and Valkonen, T.",
        title="Imaging with Kantorovich–Rubinstein discrepancy",
        journal="SIAM Journal on Imaging Sciences",
        year=2014,
        locator="7, 2833–2859",
        doi="10.1137/140975528",
        metrics=r"kr_.*",
    ),
    Reference(
        key="bonneel2015",
        authors="Bonneel, N. and Rabin, J. and Peyré, G. and Pfister, H.",
        title="Sliced and Radon Wasserstein barycenters of measures",
        journal="Journal of Mathematical Imaging and Vision",
        year=2015,
        locator="51, 22–45",
        doi="10.1007/s10851-014-0506-3",
        metrics=r"sliced_.*",
    ),
    Reference(
        key="flamary2021",
        authors="Flamary, R. and Courty, N. and Gramfort, A. and others",
        title="POT: Python optimal transport",
        journal="Journal of Machine Learning Research",
        year=2021,
        locator="22, 1–8",
        metrics=r"emd_mm",
    ),
    Reference(
        key="feydy2019",
        authors="Feydy, J. and Séjourné, T. and Vialard, F.-X. and Amari, S. and Trouvé, A. and Peyré, G.",
        title="Interpolating between optimal transport and MMD using Sinkhorn divergences",
        journal="Proceedings of Machine Learning Research",
        year=2019,
        locator="89, 2681–2690",
        metrics=r"sinkhorn_.*",
    ),
    Reference(
        key="peyre2018",
        authors="Peyre, R.",
        title="Comparison between W2 distance and Ḣ−1 norm, and localization of Wasserstein distance",
        journal="ESAIM: Control, Optimisation and Calculus of Variations",
        year=2018,
        locator="24, 1489–1501",
        doi="10.1051/cocv/2017050",
        metrics=r"sobolev_.*|moment_w2_mm",
    ),
    Reference(
        key="mula2024",
        authors="Mula, O. and Nouy, A.",
        title="Moment-SoS methods for optimal transport problems",
        journal="Numerische Mathematik",
        year=2024,
        locator="156, 1541–1578",
        doi="10.1007/s00211-024-01422-x",
        metrics=r"moment_w2_mm",
    ),
    Reference(
        key="gelbrich1990",
        authors="Gelbrich, M.",
        title="On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces",
        journal="Mathematische Nachrichten",
        year=1990,
        locator="147, 185–203",
        doi="10.1002/mana.19901470121",
        metrics=r"bures_.*|moment_w2_mm",
    ),
    Reference(
        key="low1998",
        authors="Low, D. A. and Harms, W. B. and Mutic, S. and Purdy, J. A.",
        title="A technique for the quantitative evaluation of dose distributions",
        journal="Medical Physics",
        year=1998,
        locator="25, 656–661",
        doi="10.1118/1.598248",
        metrics=r"gamma_.*",
    ),
    Reference(
        key="harms1998",
        authors="Harms, W. B. and Low, D. A. and Wong, J. W. and Purdy, J. A.",
        title="A software tool for the quantitative evaluation of 3D dose calculation algorithms",
        journal="Medical Physics",
        year=1998,
        locator="25, 1830–1836",
        doi="10.1118/1.598363",
        metrics=r"dta_.*",
    ),
    Reference(
        key="ju2008",
        authors="Ju, T. and Simpson, T. and Deasy, J. O. and Low, D. A.",
        title="Geometric interpretation of the γ dose distribution comparison technique: "
        "interpolation-free calculation",
        journal="Medical Physics",
        year=2008,
        locator="35, 879–887",
        doi="10.1118/1.2836952",
        metrics=r"gamma_.*",
    ),
    Reference(
        key="miften2018",
        authors="Miften, M. and others",
        title="Tolerance limits and methodologies for IMRT measurement-based verification QA: "
        "Recommendations of AAPM Task Group No. 218",
        journal="Medical Physics",
        year=2018,
        locator="45, e53–e83",
        doi="10.1002/mp.12810",
        metrics=r"gamma_.*",
    ),
    Reference(
        key="graves2013",
        authors="Graves, Y. J. and Jia, X. and Jiang, S. B.",
        title="Effect of statistical fluctuation in Monte Carlo based photon beam dose calculation on gamma "
        "index evaluation",
        journal="Physics in Medicine and Biology",
        year=2013,
        locator="58, 1839–1853",
        doi="10.1088/0031-9155/58/6/1839",
        metrics=r"gamma_.*",
    ),
    Reference(
        key="bakai2003",
        authors="Bakai, A. and Alber, M. and Nüsslin, F.",
        title="A revision of the γ-evaluation concept for the comparison of dose distributions",
        journal="Physics in Medicine and Biology",
        year=2003,
        locator="48, 3543–3553",
        doi="10.1088/0031-9155/48/21/006",
        metrics=r"chi_passing_.*",
    ),
    Reference(
        key="jiang2006",
        authors="Jiang, S. B. and others",
        title="On dose distribution comparison",
        journal="Physics in Medicine and Biology",
        year=2006,
        locator="51, 759–776",
        doi="10.1088/0031-9155/51/4/001",
        metrics=r"ndd_.*",
    ),
    Reference(
        key="kawrakow2000",
        authors="Kawrakow, I. and Fippel, M.",
        title="Investigation of variance reduction techniques for Monte Carlo photon dose calculation "
        "using XVMC",
        journal="Physics in Medicine and Biology",
        year=2000,
        locator="45, 2163–2183",
        doi="10.1088/0031-9155/45/8/308",
        metrics=r"kf_.*",
    ),
    Reference(
        key="wang2004",
        authors="Wang, Z. and Bovik, A. C. and Sheikh, H. R. and Simoncelli, E. P.",
        title="Image quality assessment: from error visibility to structural similarity",
        journal="IEEE Transactions on Image Processing",
        year=2004,
        locator="13, 600–612",
        doi="10.1109/TIP.2003.819861",
        metrics=r"ssim.*",
    ),
    Reference(
        key="dice1945",
        authors="Dice, L. R.",
        title="Measures of the amount of ecologic association between species",
        journal="Ecology",
        year=1945,
        locator="26, 297–302",
        doi="10.2307/1932409",
        metrics=r"isodose_(dice|jaccard)_.*",
    ),
    Reference(
        key="huttenlocher1993",
        authors="Huttenlocher, D. P. and Klanderman, G. A. and Rucklidge, W. J.",
        title="Comparing images using the Hausdorff distance",
        journal="IEEE Transactions on Pattern Analysis and Machine Intelligence",
        year=1993,
        locator="15, 850–863",
        doi="10.1109/34.232073",
        metrics=r"isodose_hd95_.*",
    ),
    Reference(
        key="drzymala1991",
        authors="Drzymala, R. E. and others",
        title="Dose-volume histograms",
        journal="International Journal of Radiation Oncology, Biology, Physics",
        year=1991,
        locator="21, 71–78",
        doi="10.1016/0360-3016(91)90168-4",
        metrics=r"dvh_.*",
    ),
    Reference(
        key="huijben2024",
        authors="Huijben, E. M. C. and Terpstra, M. L. and others",
        title="Generating synthetic computed tomography for radiotherapy: SynthRAD2023 challenge report",
        journal="Medical Image Analysis",
        year=2024,
        locator="97, 103276",
        doi="10.1016/j.media.2024.103276",
        metrics=r"synthrad_.*",
    ),
    Reference(
        key="babier2021",
        authors="Babier, A. and others",
        title="OpenKBP: The open-access knowledge-based planning grand challenge and dataset",
        journal="Medical Physics",
        year=2021,
        locator="48, 5549–5561",
        doi="10.1002/mp.14845",
        metrics=r"openkbp_.*",
    ),
)
"""Every reference that a report can cite."""


def citations(keys: Iterable[str]) -> list[Reference]:
    """The publications that the given metrics rest on, in the order of `REFERENCES`."""
    wanted = list(keys)
    return [ref for ref in REFERENCES if any(re.fullmatch(ref.metrics, key) for key in wanted)]
