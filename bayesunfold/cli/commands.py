"""Command line: ``bayesunfold demo``, ``unfold``, ``report``, ``info`` and ``coverage``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesunfold.classifier.inference import inference_names

if TYPE_CHECKING:
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["main"]

AddParser = Callable[..., argparse.ArgumentParser]


def __dir__() -> list[str]:
    return __all__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bayesunfold",
        description="Bayesian unfolding in particle physics.",
        epilog="examples:\n  bayesunfold demo --out demo\n  bayesunfold info demo/unfolded.nc\n"
        "  bayesunfold unfold zjets.toml\n  bayesunfold report demo/unfolded.nc\n"
        "  bayesunfold coverage --toys 20 --save coverage.npz",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    # after the command too, where it must not undo what stands before it
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks of errors")
    commands = parser.add_subparsers(dest="command", required=True)
    add = partial(commands.add_parser, parents=[common], formatter_class=argparse.RawDescriptionHelpFormatter)
    for commands_of in (_demo_parser, _unfold_parser, _result_parsers, _coverage_parser):
        commands_of(add)
    return parser


def _demo_parser(add: AddParser) -> None:
    """Arguments of demo."""
    demo = add(
        "demo",
        help="unfold the Gaussian toy: print a table, write figures and result",
        epilog="example:\n  bayesunfold demo --out demo --n-data 2000",
    )
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder for the files (default: demo)")
    demo.add_argument("--n-data", type=int, default=1000)
    demo.add_argument("--n-simulation", type=int, default=1000)
    demo.add_argument("--inference", choices=inference_names(), default="advi")
    demo.add_argument("--draws", type=int, default=500)
    demo.add_argument("--seed", type=int, default=1)


def _unfold_parser(add: AddParser) -> None:
    """Arguments of unfold."""
    unfold = add(
        "unfold",
        help="unfold the events that a configuration names",
        description="Unfold the events that a configuration names; write result, figures and report.",
        epilog="example:\n  bayesunfold unfold zjets.toml --resume\n\n`--schema` prints every legal key.",
    )
    unfold.add_argument("config", type=Path, nargs="?", help="a TOML file")
    unfold.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted run")
    unfold.add_argument("--check", action="store_true", help="make every check that needs no training, and stop")
    unfold.add_argument(
        "--unblind", action="store_true", help="read the data of a configuration that says blind = true"
    )
    unfold.add_argument("--scheduler", help="address of a Dask scheduler, whose workers share the sums over events")
    unfold.add_argument(
        "--backend", choices=("numpy", "jax"), default="numpy", help="what computes sums over events: jax for a GPU"
    )
    unfold.add_argument("--scratch", type=Path, help="a folder that this machine and the workers see")
    unfold.add_argument("--schema", action="store_true", help="print all sections and keys, and stop")


def _result_parsers(add: AddParser) -> None:
    """Arguments of report, explore, info."""
    report = add(
        "report",
        help="write the dashboard of a saved result, one HTML file",
        epilog="example:\n  bayesunfold report demo/unfolded.nc --out report.html",
    )
    report.add_argument("result", type=Path)
    report.add_argument("--out", type=Path, help="the file; beside the result by default")
    explore = add(
        "explore",
        help="choose observable, binning and level of a saved result live, on a local page",
        epilog="example:\n  bayesunfold explore demo/unfolded.nc --port 5006",
    )
    explore.add_argument("result", type=Path)
    explore.add_argument("others", type=Path, nargs="*", help="results to draw beside it in the same bins")
    explore.add_argument(
        "--model",
        metavar="FILE",
        action="append",
        default=[],
        help="a prediction to draw, any number: events after the particle-level selection, in columns named as the "
        "features, and weight in expected events; without weights drawn at the unfolded yield",
    )
    explore.add_argument("--port", type=int, default=5006, help="0 takes a free one (default: 5006)")
    explore.add_argument("--no-browser", action="store_true", help="only print the address")
    info = add("info", help="describe a saved result", epilog="example:\n  bayesunfold info demo/unfolded.nc")
    info.add_argument("result", type=Path)
    info.add_argument("--checks", action="store_true", help="make the checks of the dashboard too, which takes seconds")


def _coverage_parser(add: AddParser) -> None:
    """Arguments of coverage."""
    study = add(
        "coverage",
        help="pseudo-experiments on the problem of a configuration, or on the Gaussian toy",
        description="Pseudo-experiments: how often bands contain the truth. With a configuration, toys are drawn from "
        "its simulation (section [coverage] says what the truth is; remove sections [[systematic]]); without one, from "
        "the Gaussian toy.",
        epilog="examples:\n  bayesunfold coverage toys.toml --toys 50 --checkpoint toys.jsonl\n"
        "  bayesunfold coverage --toys 20 --n-data 1000 --save coverage.npz\n"
        "  bayesunfold coverage toys.toml --scheduler tcp://10.0.0.1:8786",
    )
    study.add_argument("config", type=Path, nargs="?", help="a TOML file, as for `bayesunfold unfold`")
    study.add_argument("--toys", type=int, help="pseudo-experiments (default: the configuration's, or 100)")
    gaussian = study.add_argument_group("the Gaussian toy, without a configuration")
    gaussian.add_argument("--n-data", type=int)
    gaussian.add_argument("--n-simulation", type=int)
    gaussian.add_argument("--smear", type=float)
    gaussian.add_argument("--inference", choices=inference_names())
    study.add_argument("--seed", type=int, default=0, help="toy i has seed SEED + i")
    study.add_argument("--workers", type=int, help="local processes; one a core by default, 0 for none")
    study.add_argument("--scheduler", help="address of a Dask scheduler, for a batch cluster")
    study.add_argument("--checkpoint", type=Path, help="append finished toys here and resume from it")
    study.add_argument("--save", type=Path, help="write the study to this .npz file")
    study.add_argument("--plot", type=Path, help="write the figure to this file")


def _demo(args: argparse.Namespace) -> None:
    from bayesunfold.cli.demo import run_demo

    print(
        run_demo(
            args.out,
            n_data=args.n_data,
            n_simulation=args.n_simulation,
            random_seed=args.seed,
            inference=args.inference,
            draws=args.draws,
        )
    )


def _loaded(path: Path) -> UnfoldingResult:
    """A saved result; where its file does not say whether it is blind, as older ones, the folder of blind runs does."""
    from bayesunfold.io.storage import load

    result = load(path)
    if result.record.blind is None and path.resolve().parent.name == "blind":
        return replace(result, record=replace(result.record, blind=True))
    return result


def _info(args: argparse.Namespace) -> None:
    result = _loaded(args.result)
    print(result.summary())
    print("settings:", *(f"  {name}: {value}" for name, value in result.configuration.items()), sep="\n")
    if args.checks:
        print(*result.verdicts(), sep="\n")


def _unfold_config(args: argparse.Namespace) -> None:
    from bayesunfold._support.cluster import cluster
    from bayesunfold.classifier.backend import check_backend
    from bayesunfold.cli.configuration import load_job
    from bayesunfold.cli.schema import schema_text
    from bayesunfold.cli.unfold import check_job, run_job
    from bayesunfold.errors import InputError

    if args.schema:
        print(schema_text())
        return
    if args.config is None:
        msg = "name a configuration file, or pass --schema to see what may stand in one."
        raise InputError(msg)
    if args.scratch is not None and not args.scheduler:
        msg = f"--scratch is {args.scratch} and there is no --scheduler, whose workers would use it."
        raise InputError(msg)
    check_backend(args.backend, args.scheduler)
    job = load_job(args.config, unblind=args.unblind)
    if args.check:
        print(check_job(job))
        return
    with ExitStack() as stack:
        if args.scheduler:
            stack.enter_context(cluster(stack.enter_context(_client(args.scheduler)), args.scratch))
        print(run_job(job, resume=args.resume, backend=args.backend))


def _report(args: argparse.Namespace) -> None:
    from bayesunfold.report import write_report

    print(f"written: {write_report(_loaded(args.result), args.out or args.result.with_suffix('.html'))}")


def _explore(args: argparse.Namespace) -> None:
    from bayesunfold.cli.explore import serve
    from bayesunfold.cli.models import read_model

    paths = [*args.others, *map(Path, args.model)]
    twice = len({path.stem for path in paths}) < len(paths)
    names = [str(path) if twice else path.stem for path in paths]
    result, split = _loaded(args.result), len(args.others)
    others = {name: _loaded(path) for name, path in zip(names[:split], args.others, strict=True)}
    features = result.simulation.gen_names
    models = {name: read_model(path, features) for name, path in zip(names[split:], args.model, strict=True)}
    serve(result, args.port, others=others, models=models, show=not args.no_browser)


def _toy(seed: int, settings: dict[str, Any]) -> Any:
    from bayesunfold.datasets import gaussian_toy

    return gaussian_toy(**settings, poisson=True, random_seed=10_000 + seed)


def _unfold(toy: Any, seed: int, inference: Any) -> Any:
    from bayesunfold.omnifold.estimator import OmniFold

    return OmniFold(inference=inference, random_seed=seed, progressbar=False).fit(toy.simulation, toy.measurement)


def _coverage(args: argparse.Namespace) -> None:
    from bayesunfold.studies import coverage_study

    _check_coverage_output(args)
    problem, toys = _gaussian_problem(args) if args.config is None else _configured_problem(args)
    with _client(args.scheduler) if args.scheduler else nullcontext() as client:
        study = coverage_study(
            **problem,
            toys=toys if args.toys is None else args.toys,
            random_seed=args.seed,
            workers=args.workers,
            client=client,
            checkpoint=args.checkpoint,
        )
    print(study.table())
    if args.save:
        print(f"written: {study.save(args.save)}")
    if args.plot:
        from bayesunfold._support.files import atomic_write

        atomic_write(args.plot, study.plot().savefig)
        print(f"written: {args.plot}")


def _check_coverage_output(args: argparse.Namespace) -> None:
    """Places of the study's output, before its toys."""
    from bayesunfold._support.checks import check_count, check_seed
    from bayesunfold._support.files import check_writable
    from bayesunfold.errors import InputError

    check_seed(args.seed, "--seed")
    if args.toys is not None:
        check_count(args.toys, "--toys", 2)
    for path in (args.save, args.plot, args.checkpoint):
        if path is not None:
            check_writable(path)
    if args.save and args.save.suffix != ".npz":
        msg = f"--save is {args.save}; name the file .npz."
        raise InputError(msg)
    if args.plot:
        from matplotlib.backend_bases import FigureCanvasBase

        kinds = sorted(FigureCanvasBase.get_supported_filetypes())
        if args.plot.suffix.lstrip(".") not in kinds:
            msg = f"--plot is {args.plot}; its ending must be one of {', '.join(kinds)}."
            raise InputError(msg)


def _client(address: str) -> Any:
    """A client of a running scheduler."""
    from bayesunfold.errors import InputError

    try:
        from distributed import Client
    except ImportError:
        msg = "--scheduler needs dask; install bayesunfold[dask]."
        raise ImportError(msg) from None
    try:
        return Client(address, timeout="20s")
    except Exception as err:
        msg = f"there is no scheduler at {address!r} ({type(err).__name__}); give an address like tcp://10.0.0.1:8786."
        raise InputError(msg) from err


def _gaussian_problem(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Arguments of the study, and the number of toys by default."""
    import numpy as np

    settings = {
        "n_data": 1000 if args.n_data is None else args.n_data,
        "n_simulation": 1000 if args.n_simulation is None else args.n_simulation,
        "smear": 0.2 if args.smear is None else args.smear,
    }
    edges = np.linspace(-9, 11, 21)
    problem = {
        "make_toy": partial(_toy, settings=settings),
        "unfold": partial(_unfold, inference=args.inference or "advi"),
        "bins": edges,
        "expected": _toy(0, settings).expected(edges),
        "settings": settings | {"inference": args.inference or "advi"},
    }
    return problem, 100


def _configured_problem(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    import msgspec

    from bayesunfold.cli.configuration import load_job
    from bayesunfold.errors import InputError
    from bayesunfold.studies.resampled import unfold_toy

    own = ("n_data", "n_simulation", "smear", "inference")
    given = [f"--{n.replace('_', '-')}" for n in own if getattr(args, n) is not None]
    if given:
        msg = f"{', '.join(given)} belong to the Gaussian toy; the configuration says what is unfolded and how."
        raise InputError(msg)
    job = load_job(args.config)
    bins = {section.observable: section.bins for section in job.sections.spectrum}
    if not bins:
        msg = f"{args.config} has no section [[spectrum]]; coverage is counted in bins."
        raise InputError(msg)
    toys = job.toys()
    settings = {k: v for k, v in job.unfolding().items() if k != "random_seed"}
    settings["method"] = job.sections.unfolding.method
    problem = {
        "make_toy": toys,
        "unfold": partial(unfold_toy, settings=settings),
        "bins": bins,
        "expected": toys.expected(bins),
        "settings": _of_study(msgspec.to_builtins(job.sections)),
    }
    return problem, job.sections.coverage.toys


def _of_study(sections: dict[str, Any]) -> dict[str, Any]:
    """Settings with which a checkpoint must agree: not the number of toys, which may grow."""
    kept = {k: v for k, v in sections.items() if k not in ("output", "spectrum")}
    kept["unfolding"] = kept["unfolding"] | {"bias": kept["unfolding"]["bias"] is not False}
    return kept | {"coverage": {k: v for k, v in sections["coverage"].items() if k != "toys"}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors of the library end with exit code 2 and no traceback."""
    args = _parser().parse_args(arguments)
    commands = {
        "demo": _demo,
        "unfold": _unfold_config,
        "report": _report,
        "explore": _explore,
        "info": _info,
        "coverage": _coverage,
    }
    from bayesunfold.errors import BayesUnfoldError

    try:
        commands[args.command](args)
    except (BayesUnfoldError, OSError, ImportError) as err:
        if args.debug:
            raise
        print(f"bayesunfold {args.command}: {err}", file=sys.stderr)
        return 2
    except Exception as err:
        if args.debug:
            raise
        print(
            f"bayesunfold {args.command}: unexpected {type(err).__name__}: {err}\nThis is a fault of bayesunfold; "
            "`--debug` shows where. Please report it.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"bayesunfold {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
