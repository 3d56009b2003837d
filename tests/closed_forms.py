"""Closed forms that the tests compare with: one function per published equation."""
