"""Disjoint sets as an array of parents, for spanning trees and single linkage."""

from __future__ import annotations

from gpuclust.runtime.jit import compiled


@compiled(inner=True, fastmath=False)
def find_root(parent, node):  # type: ignore[no-untyped-def]
    """The root of a node's set; parent (n,) int64, a root is its own parent. Halves the path on its way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
