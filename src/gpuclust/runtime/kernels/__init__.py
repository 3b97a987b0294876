"""Kernels that several algorithms share."""
