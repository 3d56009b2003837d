"""The moment-SoS hierarchy for the Wasserstein distance, written to be read.

Two measures mu and nu are known by their moments alone. How far apart are they, at least, in W_2?

A plan pi moves mu to nu: it is a measure on pairs (x, y) whose first marginal is mu and whose second
is nu, and W_2^2 = min over plans of the integral of |x - y|^2. That integral depends on the moments of
pi of degree 2 only, so we search over moments z instead of plans. Not every list of numbers is the list of
moments of some measure on the box; two conditions are necessary, and they are linear matrix inequalities:

    M_r(z)           positive semidefinite:  the integral of q^2 is never negative,
    M_{r-1}(g_i z)   positive semidefinite:  nor is that of q^2 (1 - t_i^2), where every |t_i| <= 1.

Fewer conditions than a plan satisfies give a smaller minimum: a lower bound on W_2^2, for every order r, that
rises with r. This is Lasserre's relaxation of the optimal transport problem as Mula and Nouy set it up
(Moment-SoS methods for optimal transport problems, Numerische Mathematik 2024).

    python examples/moment_hierarchy.py            # cases A to D, with cvxpy and a general solver

`dosemover.moments.moment_sos` solves the same problem with its own interior-point method, in a basis that
is better conditioned, and certifies the bound.
"""

import itertools
import sys

import cvxpy as cp
import numpy as np


def exponents(n_variables, degree):
    """Multi-indices of all monomials up to a total degree."""
    every = itertools.product(range(degree + 1), repeat=n_variables)
    return sorted((e for e in every if sum(e) <= degree), key=lambda e: (sum(e), e))


def gauss(n, dimension):
    """Points and weights of the uniform probability on [-1, 1]^dimension."""
    t, v = np.polynomial.legendre.leggauss(n)
    points = np.array(list(itertools.product(t, repeat=dimension)))
    weights = np.prod(np.array(list(itertools.product(v / 2, repeat=dimension))), axis=1)
    return points, weights


def case(name):
    """Points, weights, their images under the optimal map, the target's half box, the exact W_2^2."""
    if name == "A":  # U[-1, 1] to density 1.5 x^2: x = t^3 makes both sides smooth
        t, v = gauss(60, 1)
        return t**3, 3 * t[:, 0] ** 2 * v, t, np.array([1.0]), 8 / 105
    if name == "B":  # U[-1, 1] to density 1 - |x|: |x| = 1 - t^2 on each half
        t, v = gauss(60, 1)
        t = (t + 1) / 2
        x, image = 1 - t**2, 1 - t
        half = 2 * t[:, 0] * v / 2
        return np.vstack([x, -x]), np.append(half, half), np.vstack([image, -image]), np.array([1.0]), 1 / 30
    x, v = gauss(14, 2 if name == "C" else 3)
    if name == "C":  # T = x + 0.4 grad(x1 x2^2 / 2)
        image = x + 0.4 * np.column_stack([x[:, 1] ** 2 / 2, x[:, 0] * x[:, 1]])
        return x, v, image, np.array([1.2, 1.4]), 0.16 * 29 / 180
    products = [x[:, 1] * x[:, 2], x[:, 0] * x[:, 2], x[:, 0] * x[:, 1]]  # T = x + 0.3 grad(x1 x2 x3)
    return x, v, x + 0.3 * np.column_stack(products), np.full(3, 1.3), 0.03


def moments(points, weights, degree):
    """Moments of a discrete (here: quadrature) measure, {multi-index: value}."""
    return {
        e: float(weights @ np.prod(points ** np.array(e), axis=1)) for e in exponents(points.shape[1], degree)
    }


def matrix(z, rows, weight):
    """Moment matrix, entry (a, b) the moment of weight x t^(a + b); weight = {multi-index: factor}."""
    shifted = [
        [sum(f * z[tuple(np.add(np.add(a, b), w).tolist())] for w, f in weight.items()) for b in rows]
        for a in rows
    ]
    return cp.bmat(shifted)


def hierarchy(mu, nu, half_x, half_y, order, solver):
    """Lower bound on W_2^2 from the moments of mu and nu, each in its own box scaled to [-1, 1]."""
    d = len(half_x)
    indices = exponents(2 * d, 2 * order)
    values = cp.Variable(len(indices))
    z = {e: values[k] for k, e in enumerate(indices)}
    origin, unit = (0,) * (2 * d), np.eye(2 * d, dtype=int)

    constraints = [matrix(z, exponents(2 * d, order), {origin: 1.0}) >> 0]
    for i in range(2 * d):  # 1 - t_i^2 >= 0
        weight = {origin: 1.0, tuple((2 * unit[i]).tolist()): -1.0}
        constraints.append(matrix(z, exponents(2 * d, order - 1), weight) >> 0)
    constraints += [z[(*e, *(0,) * d)] == value for e, value in mu.items()]
    constraints += [z[(*(0,) * d, *e)] == value for e, value in nu.items() if sum(e) > 0]

    cost = 0
    for i in range(d):  # |x_i - y_i|^2 with x_i = half_x t_i and y_i = half_y t_(d+i)
        cost += half_x[i] ** 2 * z[tuple((2 * unit[i]).tolist())]
        cost += half_y[i] ** 2 * z[tuple((2 * unit[d + i]).tolist())]
        cost -= 2 * half_x[i] * half_y[i] * z[tuple((unit[i] + unit[d + i]).tolist())]
    problem = cp.Problem(cp.Minimize(cost), constraints)
    problem.solve(solver=solver)
    return float(problem.value)


def bound(name, order, solver="CVXOPT"):
    """Lower bound on W_2^2 of one of the cases A to D."""
    x, weights, image, half_y, _ = case(name)
    half_x = np.ones(x.shape[1])
    mu = moments(x, weights, 2 * order)
    nu = moments(image / half_y, weights, 2 * order)
    return hierarchy(mu, nu, half_x, half_y, order, solver)


def main(solver="CVXOPT"):
    """Print the hierarchy for all cases."""
    for name, highest in (("A", 4), ("B", 4), ("C", 3), ("D", 2)):
        exact = case(name)[-1]
        rising = ", ".join(f"{bound(name, order, solver):.6f}" for order in range(1, highest + 1))
        print(f"case {name}: exact W_2^2 = {exact:.6f}, lower bounds of order 1 to {highest}: {rising}")


if __name__ == "__main__":
    main(*sys.argv[1:])
