"""The rules of the layout, read from the imports: which package may import which, and which file a large library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpuclust

PACKAGE = Path(gpuclust.__file__).parent
# A file imports only from packages to the left of its own.
ORDER = ("sanitize", "errors", "resources", "folders", "config", "model", "tracks", "pages", "data", "runtime", "algorithms", "reducers", "metrics", "analysis", "overrides",
         "compose", "report", "tracking", "pipeline", "choice", "assignments", "edited_files", "edits", "proposals", "export", "drawing", "compare", "lineage", "predict", "promotion", "drift_log", "describe", "parity", "submissions", "result_file", "commands", "edit_commands", "model_commands", "job_command", "estimators", "planning", "results", "api",
         "completion", "usage", "cli", "__main__")  # fmt: skip
# The order inside each package: a file (or a package inside) imports only from those before a ``>`` to its left.
INSIDE = {
    "algorithms": "registry > agglomerative bayesian bisecting cluster dbscan hdbscan kmeans leiden mixture plscan spectral",
    "algorithms/dbscan": "__init__ > fit > gpu",
    "algorithms/agglomerative": "__init__ linkage > fit",
    "algorithms/bayesian": "__init__ > fit",
    "algorithms/bisecting": "__init__ > fit",
    "algorithms/hdbscan": "__init__ distances kd_tree > leaf_tiles > knn > boruvka > condense > quality > fit > place predict > sample > cpu > gpu",
    "algorithms/kmeans": "__init__ tiled_matrix > kernels_cpu seeding > kernels_cuda product_pass > passes > assign_cuda lloyd seeding_cuda sizes > init lloyd_cuda > fit search_cuda > cpu > blocks gpu",
    "algorithms/mixture": "__init__ em vector_math > kernels_cpu kernels_cuda m_step > kernels_wide > em_cpu em_cuda init > fit stream_cuda > short_em > cpu > blocks gpu",
    "algorithms/leiden": "__init__ > fit",
    "algorithms/plscan": "__init__ > fit",
    "algorithms/spectral": "__init__ > fit",
    "analysis": "comparison dip external_validation members modes naming selection > moments > noise table_stats > criteria diagnostics enrichment representatives rules structure > terms > profile verdict > arrow_schema",
    "data": "arrow_types encoding in_memory lists medians remote > copies excel json_lines query_stores > lake_tables > query > files remote_folders > table > columns encode feature_checks sniff > frames infer_types summary > batches disk_frame distinct schema > load > join vectors > clean source > read source_size > column_batches row_stream > stream_types > stream",
    "estimators": "base > agglomerative bayesian bisecting dbscan hdbscan kmeans leiden mixture plscan spectral > __init__",
    "metrics": "agreement dbcv gap grouped_sums_cuda silhouette > grouped_sums > icl_gain trustworthiness > precompile stability validity",
    "metrics/silhouette": "joint_labels kernels_cpu > cpu > score > blocks kernels_cuda > __init__",
    "model": "encodings expressions transforms vectors > prediction records rows > dbscan gmm hdbscan kmeans landmarks leiden > agglomerative bayesian_gmm bisecting preparation > explanation plscan schema spectral > drift files > novelty > bundle manifest",
    "pages": "palette text > facts raster > cards > environment > share",
    "pipeline": "context > curves full_figures run_files > run_log schedule warm_start > job search > batches summary > sweep_result > sweep_log > sweep > start",
    "reducers": "gpu > fa pacmap pca scalers transforms tsne umap > landmarks > maps neighbours > prepare",
    "report": "map_points page terminal text_collection > style > figures_curves figures_division figures_groups figures_lineage figures_maps figures_profile figures_tree notebook > figures_data figures_rows > figures",
    "runtime": "blocks cache cpu deduplicate dask gpu_errors jit memory threads > pinned plain_csv > cudf_frames > gpu jit_cuda nearest passes scratch > backend dask_blocks forecast order_statistics products vector_blocks > matrix",
    "serve": "access connection measures neighbours params permutation records spelling text > averages export_reader problems schemas > export_info index middleware > search share > id_suggestions > library > reasons > api_docs atlas routes > api > server > explorer jobs",
    "serve/explorer": "address gate points settings tables texts transitions > session > charts > reasons > items > cluster_edits map_data > views > app > launch main",
    "serve/explorer/views": "clusters compare download overview playlist search trends > map",
    "serve/jobs": "records > store > runner > api > service",
    "serve/index": "build > locate > open",
    "tracking": "carried claims current pyfunc recorder store_location > opening > registry > mlflow > ui",
    "tracks": "audio catalogue_names links playlist presets > catalogue playlist_files previews > playlist_command",
}
SERVE = {"sanitize", "errors", "resources", "model", "tracks", "pages", "serve"}
HEAVY = {
    "mlflow": ("tracking/",),
    "hydra": ("compose.py", "cli.py"),
    "omegaconf": ("compose.py",),
    "cuml": ("runtime/", "algorithms/", "reducers/gpu.py"),
    "cudf": ("runtime/",),
    "cupy": ("runtime/", "algorithms/", "reducers/gpu.py"),
    "rmm": ("runtime/",),
    "dask": ("runtime/dask.py",),
    "distributed": ("runtime/dask.py",),
    "optuna": ("pipeline/search.py",),
    "librosa": ("tracks/audio.py",),
    "duckdb": ("data/query.py",),
    "python_calamine": ("data/excel.py",),
    "deltalake": ("data/lake_tables.py",),
    "pyiceberg": ("data/lake_tables.py",),
    "igraph": ("algorithms/leiden/fit.py",),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The absolute names that a file imports, wherever in it; not what is only for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(name: str) -> str:
    """The package or top-level file that a dotted gpuclust name is in."""
    return name.split(".")[1]


def ours(path: Path) -> set[str]:
    """The packages of gpuclust that a file imports."""
    names = (name for name in imported(path) if name.startswith("gpuclust."))
    return {package_of(name) for name in names if package_of(name) != "__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_from_packages_to_its_left(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    used = ours(path)
    if here == "__init__":
        assert not used
    elif here == "serve":
        assert used <= SERVE, "serve/ is independent of the training code"
    else:
        right = {name for name in used if name == "serve" or ORDER.index(name) > ORDER.index(here)}
        assert right <= ({"serve"} if here in ("commands", "edit_commands", "job_command", "api") else set()), (
            f"{here} is left of {right}"
        )


@pytest.mark.parametrize("algorithm", sorted(p.name for p in (PACKAGE / "algorithms").iterdir() if p.is_dir()))
def test_an_algorithm_imports_no_other(algorithm: str) -> None:
    if algorithm.startswith("__"):
        pytest.skip("no algorithm")
    for path in (PACKAGE / "algorithms" / algorithm).rglob("*.py"):
        parts = (name.split(".") for name in imported(path) if name.startswith("gpuclust.algorithms."))
        others = {part[2] for part in parts} - {algorithm, "registry"}
        assert not others, f"{path} imports {others}"


def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    return {
        ".".join(("gpuclust", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in FILES
    }


def imports() -> dict[str, set[str]]:
    """Dotted name -> the modules of gpuclust that it imports."""
    known = modules()
    edges = {}
    for name, path in known.items():
        found = set()
        for target in imported(path):
            while target.startswith("gpuclust.") and target not in known:
                target = target.rpartition(".")[0]
            if target in known and target not in ("gpuclust", name):
                found.add(target)
        edges[name] = found
    return edges


def place(name: str) -> tuple[str, ...]:
    """Where a module is: its packages below gpuclust and its file."""
    file = ("__init__",) if modules()[name].name == "__init__.py" else ()
    return (*name.split(".")[1:], *file)


def test_a_file_imports_only_what_stands_before_it_in_its_package() -> None:
    level = {
        package: {f: i for i, part in enumerate(line.split(">")) for f in part.split()}
        for package, line in INSIDE.items()
    }
    places = {name: place(name) for name in modules() if name != "gpuclust"}
    for path in places.values():
        for depth in range(1, len(path)):
            package = "/".join(path[:depth])
            listed = level.get(package, {})
            assert path[depth] in listed or (path[depth] == "__init__"), (
                f"add {path[depth]} to the order of {package} in INSIDE"
            )
    for package, files in level.items():
        there = {path.stem for path in (PACKAGE / package).iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
        assert files.keys() <= there, f"{package} has no {', '.join(files.keys() - there)}: correct its order in INSIDE"
    for name, targets in imports().items():
        for target in targets if name in places else ():
            here, there = places[name], places[target]
            shared = next(i for i, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1])
            package = "/".join(here[:shared])
            if package:
                order = level[package]
                assert order[there[shared]] < order[here[shared]], (
                    f"{name} imports {target}, which is not before it in {package}"
                )


def test_no_import_cycle() -> None:
    edges = imports()
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_one_place_knows_each_large_library(path: Path) -> None:
    here = str(path.relative_to(PACKAGE))
    for name in imported(path):
        homes = HEAVY.get(name.split(".")[0])
        assert homes is None or here.startswith(homes), f"{here} imports {name}, which belongs in {homes}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gpuclust.cli import main; main(['--help']); "
        "heavy = {'numpy', 'pandas', 'mlflow', 'hydra', 'sklearn', 'numba', 'matplotlib', 'rich', 'gpuclust.config'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "import gpuclust.compose; heavy = {'pandas', 'pyarrow', 'sklearn'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
