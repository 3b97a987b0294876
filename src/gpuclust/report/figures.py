"""All figures, each a matplotlib ``Figure`` made from arrays: import from here. Heavy: import it where it is used."""

from gpuclust.report.figures_curves import (
    Curve,
    bic_curve,
    elbow,
    explained_variance,
    gap_curve,
    persistence_curve,
    score_curve,
    silhouette_curve,
)
from gpuclust.report.figures_data import cluster_balance, correlation_matrix, feature_distributions
from gpuclust.report.figures_maps import RASTER_ABOVE, cluster_map
from gpuclust.report.figures_pairs import biplot, pairplot
from gpuclust.report.figures_profile import cluster_sizes, group_bubbles, profile_heatmap, stability_bars
from gpuclust.report.figures_structure import condensed_tree, contingency, silhouette_by_cluster
from gpuclust.report.palette import CLUSTER_COLORS, NOISE_COLOR, cluster_color
from gpuclust.report.style import save, to_png

__all__ = [
    "CLUSTER_COLORS",
    "NOISE_COLOR",
    "RASTER_ABOVE",
    "Curve",
    "bic_curve",
    "biplot",
    "cluster_balance",
    "cluster_color",
    "cluster_map",
    "cluster_sizes",
    "condensed_tree",
    "contingency",
    "correlation_matrix",
    "elbow",
    "explained_variance",
    "feature_distributions",
    "gap_curve",
    "group_bubbles",
    "pairplot",
    "persistence_curve",
    "profile_heatmap",
    "save",
    "score_curve",
    "silhouette_by_cluster",
    "silhouette_curve",
    "stability_bars",
    "to_png",
]
