"""Prediction with PLSCAN, whose models are HDBSCAN's: see `gpuclust.model.hdbscan`."""

from gpuclust.model.hdbscan import ARRAYS, check, place, soft
from gpuclust.model.prediction import PredictionRule, register_rule

register_rule(
    PredictionRule(
        "plscan", ARRAYS, place, check=check, may_be_empty=("clusters",), soft=soft, outlier="GLOSH, from 0 to 1"
    )
)
