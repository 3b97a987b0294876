"""How a table becomes a matrix: scaling of each feature, then reduction to fewer columns.

A reducer is a class with ``fit``, ``transform``, ``to_arrays`` and ``from_arrays`` (`gpuclust.model.preparation.Reducer` describes the
last three), found by the name of ``reduce.method``. A scaler is a function of X (n_samples, n_features) float64 that gives a
`gpuclust.model.preparation.Scaling`, found by the name of ``scale.method``. An installed package adds either as an entry point
of the group ``gpuclust.reducers`` or ``gpuclust.scalers``, with its YAML in a folder ``conf/reduce`` or ``conf/scale`` of its own.
"""
