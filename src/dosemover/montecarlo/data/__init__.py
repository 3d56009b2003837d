"""Vendored photon data: NIST XCOM cross sections, form factors and incoherent scattering functions."""
