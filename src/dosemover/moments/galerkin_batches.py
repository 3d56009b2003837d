"""P values of Galerkin estimates from relabelled batches: quadratic forms, so that a thousand are free."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.moments.legendre import MultiIndex
from dosemover.moments.tally import MomentTally
from dosemover.transport.quadratic_form import FEWEST_LABELLINGS

_SMALLEST_EIGENVALUE = 1e-12
"""Directions in which the scaled matrix is below this share of its largest are left out."""

_RELABELLINGS = 999
_ROUNDING = 1e-9
"""Relative difference at which two squares count as equal."""


def whitening(matrix: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
    """W with W W' the inverse of a matrix on the directions that it tells, and its condition number."""
    root = 1 / np.sqrt(np.diagonal(matrix))
    values, vectors = np.linalg.eigh(matrix * root[:, None] * root)
    keep = values > _SMALLEST_EIGENVALUE * values.max(initial=0.0)
    whiten = (root[:, None] * vectors[:, keep]) / np.sqrt(values[keep])
    return whiten, float(values[-1] / values[keep].min()) if keep.any() else 1.0


@dataclass(kw_only=True, eq=False)
class PooledBatches:
    """Batches of two tallies, and their squared distances of every degree under relabelling.

    Parameters
    ----------
    middle : ndarray, shape (degree + 1,) * 3
        Moments of the mean of all batches, over their mass where ``normalized``: what the matrices of the
        estimates are built from here, since no relabelling changes it.
    rows : ndarray, shape (batch, degree + 1, degree + 1, degree + 1)
        Each batch less the mean; where ``normalized``, what it adds to the normalised moments (first order).
    sizes : (int, int)
        Batches of the reference and of the evaluated tally, in this order.
    """

    middle: NDArray[np.float64]
    rows: NDArray[np.float64]
    sizes: tuple[int, int]
    _squares: list[NDArray[np.float64]] = field(default_factory=list)

    @classmethod
    def of(
        cls, reference: MomentTally, evaluated: MomentTally, *, normalized: bool, ambient: float = 0.0
    ) -> PooledBatches | None:
        """The batches of both tallies; None where they are too few for a p value.

        Parameters
        ----------
        reference, evaluated : MomentTally
        normalized : bool
            Whether the estimate compares normalised measures.
        ambient : float
            Mass of ambient dose in ``middle`` [Gy mm3].
        """
        first, second = reference.batches, evaluated.batches
        if first is None or second is None:
            return None
        sizes = (len(first), len(second))
        if comb(sum(sizes), sizes[0]) < FEWEST_LABELLINGS:
            return None
        rows = np.concatenate([first, second]).astype(np.float64)
        middle = rows.mean(axis=0)
        if normalized:
            mass = middle[0, 0, 0]
            middle = middle / mass
            rows = (rows - rows[:, :1, :1, :1] * middle) / mass
        else:
            rows = rows - middle
            middle = middle.copy()
            middle[0, 0, 0] += ambient
        return cls(middle=middle, rows=rows, sizes=sizes)

    def add(self, indices: tuple[MultiIndex, ...], matrix: NDArray[Any], keep: NDArray[Any]) -> None:
        """Take in one degree: squares delta' matrix^-1 delta of the labelling as it is and of 999 others."""
        where = tuple(np.array(indices)[keep].T)
        whiten, _ = whitening(matrix[np.ix_(keep, keep)])
        white = self._weights() @ (self.rows[(slice(None), *where)] @ whiten)
        self._squares.append(np.sum(white**2, axis=1))

    def _weights(self) -> NDArray[np.float64]:
        """Weight of each batch in the difference: as labelled, then relabelled at random."""
        n, m = self.sizes
        plain = np.repeat([-1 / n, 1 / m], [n, m])
        rng = np.random.default_rng(0)
        return np.vstack([plain, rng.permuted(np.tile(plain, (_RELABELLINGS, 1)), axis=1)])

    @property
    def p(self) -> float:
        """Exact p value of all degrees together.

        *Definition*: every labelling's square is ranked at each degree; the mean of the Cauchy scores of
        its ranks is ranked again among those of all labellings (nonparametric combination, Pesarin &
        Salmaso 2010).
        """
        total = 1 + _RELABELLINGS
        scores = np.zeros(total)
        for squares in self._squares:
            ordered = np.sort(squares)
            at_least = total - np.searchsorted(ordered, squares * (1 - _ROUNDING), side="left")
            scores += np.tan((0.5 - (at_least - 0.5) / total) * np.pi)
        return float(np.mean(scores >= scores[0] - _ROUNDING * max(1.0, abs(scores[0]))))
