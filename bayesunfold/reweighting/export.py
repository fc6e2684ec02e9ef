"""The weight function as an ONNX file, for use inside an experiment's C++ framework.

The graph holds everything that :meth:`bayesunfold.Reweighter.weights` does: scaling of features, the network of each
fold with its tangent features (the draws are of the linearised network), calibration, normalisation, clip and temper.
Arithmetic is in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.files import atomic_write
from bayesunfold.classifier.activations import ACTIVATIONS, onnx_log1pexp
from bayesunfold.classifier.estimator import BayesianClassifier
from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.errors import InputError
from bayesunfold.reweighting.calibration import Calibrator
from bayesunfold.reweighting.ratios import BinnedRatio, ClassifierRatio

if TYPE_CHECKING:
    from bayesunfold.reweighting.reweighter import Reweighter

__all__ = ["write_onnx"]

Array = NDArray[np.floating]

FLOAT, INT64, DOUBLE = 1, 7, 11
"""Numbers of the element types in the ONNX standard."""
OPSET, IR_VERSION = 17, 8
"""What ONNX Runtime reads since 1.13 (2022): experiments' releases are not the newest."""


def __dir__() -> list[str]:
    return __all__


@dataclass
class Graph:
    """Nodes and constants of a graph under construction."""

    helper: Any
    to_array: Any
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, value: Any) -> str:
        """A constant; integers stay integers, everything else becomes double."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float64)
        name = f"c{len(self.constants)}"
        self.constants.append(self.to_array(np.ascontiguousarray(array), name))
        return name

    def __call__(self, operator: str, *inputs: Any, output: str | None = None, **attributes: Any) -> str:
        """A node; inputs are names, or arrays that become constants. Returns the name of its output."""
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        out = output or f"n{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, names, [out], **attributes))
        return out


def write_onnx(reweighter: Reweighter, path: str | Path, draws: int | None = None, fold_input: bool = False) -> Path:
    """Write a fitted reweighter; see :meth:`bayesunfold.Reweighter.to_onnx`."""
    try:
        import onnx
        from onnx import checker, helper, numpy_helper
    except ImportError as err:
        msg = "writing ONNX needs the package onnx: install bayesunfold[onnx]."
        raise ImportError(msg) from err
    ratio = reweighter._ratio
    available = len(reweighter._log_norms)
    n_draws = available if draws is None else draws
    if not 0 <= n_draws <= available:
        msg = f"draws is {draws!r}; the reweighter has {available}, so give a number from 0 to {available}."
        raise InputError(msg)
    if fold_input and not isinstance(ratio, ClassifierRatio):
        msg = "fold_input=True is for classifiers; a histogram has no folds."
        raise InputError(msg)
    g = Graph(helper, numpy_helper.from_array)
    if isinstance(ratio, ClassifierRatio):
        best, drawn = _classifier_nodes(g, ratio, n_draws, fold_input)
    elif isinstance(ratio, BinnedRatio):
        best, drawn = _binned_nodes(g, ratio, n_draws)
    else:
        msg = "an analytic ratio holds your own functions, which ONNX cannot; write their formula into your framework."
        raise InputError(msg)
    outputs = [_value(helper, "log_ratio", DOUBLE, ["events"]), _value(helper, "weight", DOUBLE, ["events"])]
    _finish_nodes(g, reweighter, best, reweighter._log_norm, reweighter._second_log_norm, "log_ratio", "weight")
    if n_draws:
        log_norms, second_log_norms = (
            np.asarray(x)[:n_draws, None] for x in (reweighter._log_norms, reweighter._second_log_norms)
        )
        _finish_nodes(g, reweighter, drawn, log_norms, second_log_norms, "log_ratio_draws", "weight_draws")
        outputs += [_value(helper, f"{n}_draws", DOUBLE, [n_draws, "events"]) for n in ("log_ratio", "weight")]
    inputs = [_value(helper, "x", DOUBLE, ["events", reweighter._n_features])]
    if fold_input:
        inputs.append(_value(helper, "fold", INT64, ["events"]))
    graph = helper.make_graph(g.nodes, "bayesunfold_weights", inputs, outputs, g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name, model.producer_version = "bayesunfold", version("bayesunfold")
    features = reweighter._names or tuple(f"feature {j}" for j in range(reweighter._n_features))
    helper.set_model_props(model, {"features": ", ".join(features), "folds": str(reweighter.folds)})
    checker.check_model(model)
    path = Path(path)
    atomic_write(path, lambda temporary: onnx.save(model, temporary))
    return path


def _value(helper: Any, name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _finish_nodes(g: Graph, r: Reweighter, raw: str, level: Any, second: Any, log_name: str, name: str) -> None:
    """Calibration, normalisation, temper and clip, normalisation again; NaN where a feature is NaN."""
    z = raw if r._calibrator is None else _calibration_nodes(g, r._calibrator, raw)
    z = g("Sub", z, level)
    if r.temper is not None:
        z = g("Mul", z, r.temper)
    if r.truncate is not None:
        z = g("Sub", z, onnx_log1pexp(g, g("Sub", z, float(np.log(r.truncate)))))
    if r.clip is not None:
        z = g("Min", z, float(np.log(r.clip)))
    unknown = g("Where", g("Greater", _count(g, g("IsNaN", "x")), np.array(0)), np.nan, 0.0)
    z = g("Add", g("Sub", z, second), unknown, output=log_name)
    g("Exp", z, output=name)


def _calibration_nodes(g: Graph, calibrator: Calibrator, z: str) -> str:
    if calibrator.method in ("isotonic", "histogram"):
        above = g("GreaterOrEqual", g("Unsqueeze", z, np.array([-1])), calibrator._edges)
        return g("Gather", calibrator._log_ratios, _count(g, above))
    p = calibrator.parameters_
    if calibrator.method == "beta":
        down = g("Mul", onnx_log1pexp(g, g("Neg", z)), -p["a"])
        up = g("Mul", onnx_log1pexp(g, z), p["b"])
        return g("Add", g("Add", down, up), p["c"])
    if calibrator.method == "sigmoid":
        return g("Add", g("Mul", z, p["a"]), p["c"])
    return g("Mul", z, p["inverse_temperature"])


def _count(g: Graph, flags: str) -> str:
    """How many of the last axis are true."""
    return g("ReduceSum", g("Cast", flags, to=INT64), np.array([-1]), keepdims=0)


def _binned_nodes(g: Graph, ratio: BinnedRatio, n_draws: int) -> tuple[str, str]:
    """Bin of each event, and its log ratios; events outside belong to the nearest bin."""
    flat = ""
    for j, edges in enumerate(ratio.edges):
        column = g("Gather", "x", np.array([j]), axis=1)  # (events, 1)
        index = _count(g, g("GreaterOrEqual", column, edges[1:-1])) if len(edges) > 2 else _zeros(g, column)
        flat = g("Add", g("Mul", flat, np.array(len(edges) - 1)), index) if flat else index
    group = g("Gather", ratio.group, flat)
    return g("Gather", ratio._best, group), g("Gather", ratio._draws[:n_draws], group, axis=1) if n_draws else ""


def _zeros(g: Graph, column: str) -> str:
    return _count(g, g("Less", column, np.array([-np.inf])))


def _classifier_nodes(g: Graph, ratio: ClassifierRatio, n_draws: int, fold_input: bool) -> tuple[str, str]:
    """Mean over folds; for events of training, if there is such an input, the fold that did not see them."""
    folds = len(ratio.models)
    best, drawn = "", ""
    new = g("Less", "fold", np.array(0)) if fold_input else ""
    number = g("Mod", "fold", np.array(folds)) if fold_input else ""  # as Reweighter.fit divides numbers of events
    for k, model in enumerate(ratio.models):
        if not isinstance(model, BayesianClassifier):
            msg = (
                f"the classifier is a {type(model.classifier).__name__}; only the library's own BayesianClassifier is "
                "exported. Convert other classifiers with their own tools."
            )
            raise InputError(msg)
        share: Any = 1.0 / folds
        if fold_input:
            mine = g("Cast", g("Equal", number, np.array(k)), to=DOUBLE)
            share = g("Where", new, share, mine)
        parts = _network_nodes(g, model, n_draws if ratio.common is None else 0)
        scaled = [g("Mul", part, share) if part else "" for part in parts]
        best = g("Add", best, scaled[0]) if best else scaled[0]
        if scaled[1]:
            drawn = g("Add", drawn, scaled[1]) if drawn else scaled[1]
    if ratio.common is not None and n_draws:
        point, draws = _network_nodes(g, ratio.common, n_draws)
        deviation = g("Sub", draws, point)
        if fold_input:
            seen = g("Cast", g("GreaterOrEqual", "fold", np.array(0)), to=DOUBLE)
            deviation = g("Mul", deviation, g("Add", g("Mul", seen, ratio.fewer_events - 1.0), np.array(1.0)))
        drawn = g("Add", best, deviation)
    return best, drawn


def _network_nodes(g: Graph, model: BayesianClassifier, n_draws: int) -> tuple[str, str]:
    """Point estimate (events,) and draws (draws, events) of one classifier."""
    layout, directions = model.layout_, model.directions_
    h = x = _standardize_nodes(g, model.standardizer_)
    layers = list(zip(layout.layers(model.theta_), layout.pieces(), strict=True))
    tangent = ""  # of the layer's inputs in every direction, (directions, events, units)
    for number, ((weight, bias), (w, b, fan_in, fan_out, w_scale, b_scale)) in enumerate(layers):
        dw = (directions[w].T * w_scale).reshape(-1, fan_in, fan_out)
        db = (directions[b].T * b_scale).reshape(-1, 1, fan_out)
        moved = g("Add", g("MatMul", g("Unsqueeze", h, np.array([0])), dw), db)
        tangent = g("Add", g("MatMul", tangent, weight), moved) if tangent else moved
        h = g("Add", g("MatMul", h, weight), bias)
        if number < len(layers) - 1:
            h = ACTIVATIONS[layout.activation].nodes(g, h)
            derivative = g("Unsqueeze", ACTIVATIONS[layout.activation].derivative_nodes(g, h), np.array([0]))
            tangent = g("Mul", tangent, derivative)
    last = np.array([-1])
    f, phi = g("Squeeze", h, last), g("Squeeze", tangent, last)  # (events,) and (directions, events)
    if layout.additive is not None:
        added, rest = layout.additive.nodes(g, x), slice(layout.n_network, layout.n_parameters)
        f = g("Add", f, g("MatMul", added, model.theta_[rest]))
        phi = g("Add", phi, g("Transpose", g("MatMul", added, directions[rest]), perm=[1, 0]))
    mode = g("Squeeze", g("MatMul", np.asarray(model.mode_)[None, :], phi), np.array([0]))
    best = g("Sub", g("Add", f, mode), model._log_norm)
    if not n_draws:
        return best, ""
    drawn = g("Add", g("MatMul", model.posterior_draws_.z[:n_draws], phi), f)
    return best, g("Sub", drawn, model._log_norms[:n_draws, None])


def _standardize_nodes(g: Graph, s: Standardizer) -> str:
    """Standardised features in single precision, as the networks were trained on, cast to double."""
    x = "x"
    if np.any(np.isfinite(s.width)):
        columns = []
        for j, (origin, width) in enumerate(zip(s.origin, s.width, strict=True)):
            column = g("Gather", x, np.array([j]), axis=1)
            columns.append(_stretch_nodes(g, column, float(origin), float(width)) if np.isfinite(width) else column)
        x = g("Concat", *columns, axis=1)
    z = g("Div", g("Sub", x, s.centre), s.scale)
    if np.any(s.power != 1.0):
        columns = []
        for j, power in enumerate(s.power):
            column = g("Gather", z, np.array([j]), axis=1)
            columns.append(column if power == 1.0 else _power_nodes(g, column, float(power)))
        z = g("Concat", *columns, axis=1)
    z = g("MatMul", g("Sub", z, s.mean), s.mixing)
    return g("Cast", g("Cast", z, to=FLOAT), to=DOUBLE)


def _stretch_nodes(g: Graph, x: str, origin: float, width: float) -> str:
    """``arcsinh((x - origin) / width)``, written out since runtimes have it in single precision only."""
    z = g("Div", g("Sub", x, origin), width)
    size = g("Abs", z)
    # |z| (1 + sqrt(1 + 1 / z^2)) for large z, so that squares do not overflow
    large = g("Max", size, 1.0)
    inverse = g("Div", 1.0, large)
    far = g("Log", g("Mul", large, g("Add", 1.0, g("Sqrt", g("Add", 1.0, g("Mul", inverse, inverse))))))
    small = g("Min", size, 1.0)
    near = g("Log", g("Add", small, g("Sqrt", g("Add", 1.0, g("Mul", small, small)))))
    # at |z| = 1 both are arcsinh(1); one of them is constant there on either side
    return g("Mul", g("Sign", z), g("Sub", g("Add", far, near), float(np.arcsinh(1.0))))


def _power_nodes(g: Graph, x: str, power: float) -> str:
    """Yeo-Johnson transform; both branches are zero where the other one acts."""
    up = g("Log", g("Add", g("Max", x, 0.0), 1.0))
    down = g("Log", g("Sub", 1.0, g("Min", x, 0.0)))
    if power != 0.0:
        up = g("Div", g("Sub", g("Exp", g("Mul", up, power)), 1.0), power)
    if power != 2.0:
        down = g("Div", g("Sub", g("Exp", g("Mul", down, 2.0 - power)), 1.0), 2.0 - power)
    return g("Sub", up, down)
