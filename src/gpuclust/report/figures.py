"""All figures; each function returns a matplotlib ``Figure`` made from arrays. Importing this takes half a second."""

from gpuclust.pages.palette import CLUSTER_COLORS, NOISE_COLOR, cluster_color
from gpuclust.report.figures_curves import (
    Curve,
    bic_curve,
    elbow,
    gap_curve,
    persistence_curve,
    score_curve,
    silhouette_curve,
)
from gpuclust.report.figures_data import correlation_matrix, feature_distributions
from gpuclust.report.figures_division import clustergram, condensed_tree
from gpuclust.report.figures_groups import MAX_BUBBLES, cluster_sizes, group_bubbles, group_counts
from gpuclust.report.figures_lineage import sankey
from gpuclust.report.figures_maps import RASTER_ABOVE, cluster_map, map_of
from gpuclust.report.figures_profile import contingency, profile_heatmap, stability_bars
from gpuclust.report.figures_rows import MAX_PAIRS, biplot, pair_plot, parallel_coordinates, silhouette_plot
from gpuclust.report.figures_tree import dendrogram
from gpuclust.report.style import to_png

__all__ = [
    "CLUSTER_COLORS",
    "MAX_BUBBLES",
    "MAX_PAIRS",
    "NOISE_COLOR",
    "RASTER_ABOVE",
    "Curve",
    "bic_curve",
    "biplot",
    "cluster_color",
    "cluster_map",
    "cluster_sizes",
    "clustergram",
    "condensed_tree",
    "contingency",
    "correlation_matrix",
    "dendrogram",
    "elbow",
    "feature_distributions",
    "gap_curve",
    "group_bubbles",
    "group_counts",
    "map_of",
    "pair_plot",
    "parallel_coordinates",
    "persistence_curve",
    "profile_heatmap",
    "sankey",
    "score_curve",
    "silhouette_curve",
    "silhouette_plot",
    "stability_bars",
    "to_png",
]
