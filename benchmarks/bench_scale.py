"""How time and memory grow with events, features, draws and threads: ``make bench-scale``.

Every case is a process of its own. Samples are correlated, skewed Gaussians whose detector smears every feature by 0.3;
data are shifted. ``--files`` writes the simulation to parquet files first and unfolds memory maps of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import bayesunfold as bu

FILES = 10
METHODS = {"omnifold": bu.OmniFold, "direct": bu.UnbinnedFBU}
EDGES = np.linspace(-3, 3, 31)


def sample(n: int, d: int, shift: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Particle level and detector level of ``n`` events, single precision."""
    t = rng.standard_normal((n, d), dtype=np.float32)
    for k in range(1, d):
        t[:, k] = 0.6 * t[:, k] + 0.3 * t[:, k - 1] + 0.1 * t[:, k - 1] ** 2
    t[:, 0] += shift
    t[:, 1 % d] *= 1 + shift / 2
    return t, t + np.float32(0.3) * rng.standard_normal((n, d), dtype=np.float32)


def write_files(folder: Path, n: int, d: int) -> None:
    """The simulation as parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for k in range(FILES):
        t, r = sample(n // FILES, d, 0.0, np.random.default_rng(k))
        columns = {f"t{j}": t[:, j] for j in range(d)} | {f"r{j}": r[:, j] for j in range(d)}
        pq.write_table(pa.table(columns), folder / f"sim_{k}.parquet")


def run_case(args: argparse.Namespace) -> dict[str, object]:
    """One unfolding, and two spectra of its result."""
    n, n_data, d = int(args.n), int(args.data), args.features
    if args.folder:
        names = [[f"{level}{j}" for j in range(d)] for level in "rt"]
        start = time.perf_counter()
        simulation = bu.io.open_events(
            Path(args.folder) / "sim_*.parquet", *names, cache=Path(args.folder) / "cache", progressbar=False
        )
        opened = time.perf_counter() - start
    else:
        gen, reco = sample(n, d, 0.0, np.random.default_rng(0))
        simulation, opened = bu.Simulation(gen, reco), 0.0
    data = bu.Data(sample(n_data, d, 0.2, np.random.default_rng(99))[1], names=simulation.reco_names)
    settings = {"iterations": args.iterations} if args.method == "omnifold" else {}
    groups = None if args.one_by_one else bu.OmniFold().settings.event_groups
    unfolder = METHODS[args.method](
        draws=args.draws, event_groups=groups, random_seed=1, progressbar=args.progress, **settings
    )
    start = time.perf_counter()
    result = unfolder.fit(simulation, data, backend=args.backend)
    fit = time.perf_counter() - start
    spectra = []
    for column in range(min(2, d)):
        start = time.perf_counter()
        spectrum = result.spectrum(simulation.gen_names[column], EDGES)
        spectra.append(time.perf_counter() - start)
    return {
        "method": args.method,
        "n": n,
        "data": n_data,
        "features": d,
        "draws": args.draws,
        "threads": int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))),
        "one by one": args.one_by_one,
        "backend": args.backend,
        "files": bool(args.folder),
        "open [s]": opened,
        "fit [s]": fit,
        **{f"{name} [s]": seconds for name, seconds in result.seconds.items()},
        "spectrum [s]": spectra[-1],
        "peak memory [GB]": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "band": [float(w) for w in spectrum.draw_matrix.std(axis=0)],
    }


def run_apart(case: dict[str, object]) -> dict[str, object]:
    """A case in a process of its own."""
    environment = dict(os.environ) | ({"OMP_NUM_THREADS": str(case["threads"])} if case.get("threads") else {})
    flags = [f"--{name}={value}" for name, value in case.items() if name != "threads" and not isinstance(value, bool)]
    flags += [f"--{name}" for name, value in case.items() if value is True]
    command = [sys.executable, "-W", "ignore", __file__, "--case", *flags]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    return json.loads(out.splitlines()[-1])


def cases(largest: float) -> list[dict[str, object]]:
    """The grid: each axis by itself about 1e5 events, 7 features, 500 draws, two threads."""
    grid: list[dict[str, object]] = []
    sizes = [n for n in (1e4, 1e5, 3e5, 1e6, 3e6, 1e7) if n <= largest]
    for method in METHODS:
        grid += [{"method": method, "n": n, "data": n / 2, "features": 7} for n in sizes]
        grid += [{"method": method, "n": 1e5, "data": 5e4, "features": d} for d in (3, 24)]
        grid += [{"method": method, "n": 1e5, "data": 5e4, "features": 7, "draws": s} for s in (100, 1000)]
    grid += [{"method": "omnifold", "n": 3e5, "data": 1.5e5, "features": 7, "threads": 1}]
    grid += [{"method": "omnifold", "n": 3e5, "data": 1.5e5, "features": 7, "one-by-one": True}]
    grid += [
        {"method": method, "n": n, "data": 5e5, "features": 24} for method in METHODS for n in (1e6,) if n <= largest
    ]
    return grid


COLUMNS = {
    "method": "method",
    "n": "simulated",
    "data": "data",
    "features": "features",
    "draws": "draws",
    "threads": "threads",
    "fit [s]": "fit [s]",
    "training [s]": "training",
    "posterior [s]": "posterior",
    "members [s]": "members",
    "spectrum [s]": "a spectrum [s]",
    "peak memory [GB]": "memory [GB]",
}
DOCS = Path(__file__).parents[1] / "docs"


def exponents(found: list[dict[str, object]]) -> list[list[str]]:
    """Least-squares slopes of log time over log size, one axis at a time."""
    rows = []
    for method in METHODS:
        here = [f for f in found if f["method"] == method and f["threads"] == 2 and not f["one by one"]]
        here = [f for f in here if not f["files"]]
        for axis, base, smallest in (
            ("n", {"features": 7, "draws": 500}, 1e5),
            ("features", {"n": 1e5, "draws": 500}, 3),
            ("draws", {"n": 1e5, "features": 7}, 100),
        ):
            part = [f for f in here if all(f[k] == v for k, v in base.items()) and f[axis] >= smallest]
            if len({f[axis] for f in part}) < 2:
                continue
            x = np.log([f[axis] for f in part])
            slopes = [np.polyfit(x, np.log([f[y] for f in part]), 1)[0] for y in ("fit [s]", "spectrum [s]")]
            memory = np.polyfit(x, np.log([f["peak memory [GB]"] for f in part]), 1)[0]
            span = f"{min(f[axis] for f in part):g} to {max(f[axis] for f in part):g}"
            rows.append([method, {"n": "events"}.get(axis, axis), span, *(f"{v:.2f}" for v in (*slopes, memory))])
    return rows


def keep(found: list[dict[str, object]]) -> None:
    """Tables and figure of docs/studies/scale.md."""
    import matplotlib.pyplot as plt

    def cell(name: str, value: object) -> str:
        if name in ("n", "data"):
            return f"{value:,}".replace(",", " ")
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    ordered = sorted(found, key=lambda f: (f["method"], f["one by one"], f["files"], f["features"], f["n"], f["draws"]))
    rows = []
    for f in ordered:
        extra = ", one by one" if f["one by one"] else ", memory maps" if f["files"] else ""
        cells = [cell(name, f[name]) for name in COLUMNS]
        rows.append({"cells": [cells[0] + extra, *cells[1:]], "numbers": f})
    tables = {
        "scale": (list(COLUMNS.values()), rows),
        "scale-exponents": (
            ["method", "axis", "from, to", "fit", "spectrum", "memory"],
            [{"cells": cells} for cells in exponents(found)],
        ),
    }
    for name, (columns, content) in tables.items():
        note = "python benchmarks/bench_scale.py --keep"
        text = json.dumps({"note": note, "columns": columns, "rows": content}, indent=1, ensure_ascii=False)
        (DOCS / "studies" / "results" / f"{name}.json").write_text(text + "\n")
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(6.4, 6.8), layout="constrained")
    for method in METHODS:
        for one, style in ((False, "o-"), (True, "s--")):
            line = [f for f in ordered if f["method"] == method and f["one by one"] == one and not f["files"]]
            line = [f for f in line if (f["features"], f["draws"], f["threads"]) == (7, 500, 2)]
            if not line:
                continue
            label = method + (", events one by one" if one else "")
            for axis, name in zip(axes, ("fit [s]", "peak memory [GB]"), strict=True):
                axis.loglog([f["n"] for f in line], [f[name] for f in line], style, label=label)
                axis.set_ylabel(name)
    axes[1].set_xlabel("simulated events (half as many data)")
    axes[0].legend()
    figure.savefig(DOCS / "figures" / "scale.png", dpi=110)


def main() -> None:
    """Run the grid, or one case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="store_true", help="run one case and print it as JSON")
    parser.add_argument("--method", choices=list(METHODS), default="omnifold")
    parser.add_argument("--n", type=float, default=1e5)
    parser.add_argument("--data", type=float, default=5e4)
    parser.add_argument("--features", type=int, default=7)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--backend", choices=("numpy", "jax"), default="numpy")
    parser.add_argument("--one-by-one", action="store_true", help="events fluctuate one by one")
    parser.add_argument("--folder", help="memory maps of the parquet files in this folder")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--files", action="store_true", help="write parquet files first, then unfold them; with --n")
    parser.add_argument("--largest", type=float, default=1e6, help="largest number of events of the grid; 1e7 is slow")
    parser.add_argument("--keep", action="store_true", help="write the tables and the figure of docs/studies/scale.md")
    parser.add_argument("--out", type=Path, default=Path("bench-results/scale.json"), help="measured cases")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run_case(args)))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(args.out.read_text()) if args.out.exists() else []
    if args.keep:
        keep([entry for entry in known if "fit [s]" in entry])
        return
    done = {json.dumps(entry["case"], sort_keys=True) for entry in known}
    with tempfile.TemporaryDirectory() as folder:
        grid = cases(args.largest)
        if args.files:
            write_files(Path(folder), int(args.n), args.features)
            own = ("method", "n", "data", "features", "draws", "iterations")
            grid = [{name: getattr(args, name) for name in own} | {"folder": folder, "progress": args.progress}]
        for case in grid:
            if json.dumps(case, sort_keys=True) in done:
                continue
            found = run_apart(case)
            shown = {name: value for name, value in found.items() if name != "band"}
            print(
                ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()), flush=True
            )
            kept = {name: value for name, value in case.items() if name != "folder"}
            known.append({"case": kept, **found})
            args.out.write_text(json.dumps(known, indent=1))


if __name__ == "__main__":
    main()
