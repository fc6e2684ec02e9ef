"""A result as named xarray groups, which any reader of netCDF or Zarr opens, and back. Format version 2.

Groups
------
``/``
    Attributes ``settings``, ``versions``, ``history``, ``seconds``, ``correlations`` (JSON), ``random_seed``,
    ``negative_data``.
``simulation``
    ``gen`` (event, gen_feature), ``reco`` (event, reco_feature), ``weight``, ``pass_gen``, ``pass_reco`` (event); with
    scale factors, ``reco_factor``; where the bias was estimated, ``closure_weight``.
``data``, ``backgrounds/NAME``
    ``features`` (event, reco_feature), ``weight`` (event).
``scales/gen``, ``scales/reco``
    The standardisation of each level. Of a log weight that is linear in functions, those of the particle level: the
    attribute ``functions`` (JSON), and where the user gave them, ``values`` (event, function) of events that pass gen.
``networks``
    ``step1``, ``step2``, ``fakes`` (iteration, parameter), ``loss`` and ``remaining_step`` (iteration, fit).
``measurement``
    ``directions`` (parameter, direction) of the first step 1, its draws ``z`` (draw, axis), ``elbo``, and
    ``multiplier`` (direction, draw), which moved the fluctuations onto the draws; ``sample_stats`` of the sampler.
``moments``
    Of a direct posterior: ``observed`` (moment), ``derivative`` (moment, parameter), ``centre`` (parameter) and
    ``log_precision`` (draw, layer); attributes ``width`` and ``hyperprior``. With profiled nuisance parameters also
    ``columns`` (moment, systematic), ``free`` (parameter, systematic) and ``correlation`` (systematic,
    other_systematic).
``nuisances``
    ``estimate`` (systematic) of the profiled ones, and what each source moves of them, ``displacement`` (source,
    systematic, draw). The simulation and backgrounds of the file are those at the estimate.
``step2``, ``fakes``
    ``directions`` (parameter, direction) of the last networks, ``displacement`` (source, direction, draw); of a direct
    posterior, and of generative unfolding, also ``theta`` (parameter) of its network.
``yields``
    ``change`` (source, draw): relative change of the signal's total at detector level.
``systematics/weights``, ``systematics/detector``
    ``alpha`` (systematic, draw), ``up`` and ``down`` (systematic, event); of weights, whose logarithms
    these change, also ``rest`` (systematic, side, event), the relative changes beside that, and ``relative``
    (systematic), whether ``up`` and ``down`` are relative changes too, as they are where both are missing and the
    systematic is not profiled; of detector level also ``moves`` (systematic), whether events move in and out of it, and
    ``outside`` (systematic, side), the weight that comes in from outside.
``systematics/ratios``
    ``draws`` (systematic, ratio_draw, event) of two-point uncertainties: posterior draws of ``up`` less ``up``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version as installed_version
from typing import cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesunfold.classifier.sampling import Draws
from bayesunfold.classifier.standardize import STATE, Standardizer
from bayesunfold.direct.fit import push_weights
from bayesunfold.direct.settings import DirectSettings
from bayesunfold.errors import FileFormatError
from bayesunfold.events import Background, Data, Simulation, Undefined
from bayesunfold.generative.estimator import pooled_push
from bayesunfold.generative.settings import GenerativeSettings
from bayesunfold.omnifold.iteration import Iteration, Networks, iterate, recall
from bayesunfold.omnifold.loop import sample_fluctuations
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.conditioning import Conditioning
from bayesunfold.unfolding.correlations import partners_of
from bayesunfold.unfolding.functions import Functions, FunctionScale
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.perturbations import Acceptance, Effect, Perturbations, Variation, list_sources
from bayesunfold.unfolding.propagation import Displacement
from bayesunfold.unfolding.record import Inputs, LinearMoments, Measurement, NuisanceDraws, Record
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.standardized import Scales, StandardizedEvents, standardize

__all__ = ["from_groups", "to_groups"]

Array = NDArray[np.floating]
Groups = dict[str, xr.Dataset]


def __dir__() -> list[str]:
    return __all__


# from a result to groups


def to_groups(result: UnfoldingResult) -> xr.DataTree:
    """What makes a result again, by the groups of this module."""
    m, record = result.members, result.record
    groups: Groups = {"/": xr.Dataset(attrs=_attributes(record, result.inputs, m.negative_data))}
    groups |= _inputs(result)
    for level, scale in (("gen", m.events.scales.gen), ("reco", m.events.scales.reco)):
        groups[f"scales/{level}"] = xr.Dataset({name: _scale_array(name, v) for name, v in scale.state().items()})
    _keep_functions(groups, result)
    groups["networks"] = _networks(result.iterations)
    groups |= _measurement(result)
    groups["step2"] = _displacement(m.step2)
    if isinstance(record.settings, DirectSettings | GenerativeSettings):
        groups["step2"]["theta"] = ("parameter", m.step2.classifier.theta)
    if result.measurement.moments is not None:
        groups["moments"] = _moments(result.measurement.moments)
    if result.measurement.nuisances is not None:
        groups["nuisances"] = _nuisances(result.measurement.nuisances)
    if m.fakes is not None:
        groups["fakes"] = _displacement(m.fakes)
    signal = m.perturbations.signal
    change = np.stack(list(signal.values()))
    groups["yields"] = xr.Dataset({"change": (("source", "draw"), change)}, coords={"source": list(signal)})
    return xr.DataTree.from_dict(groups | _systematics(m.perturbations))


def _attributes(record: Record, inputs: Inputs, negative_data: float) -> dict[str, str | int | float]:
    marks: dict[str, str | int | float] = {} if record.blind is None else {"blind": int(record.blind)}
    return {
        **marks,
        "bayesunfold": installed_version("bayesunfold"),
        "settings": json.dumps(record.settings.state()),
        "random_seed": record.seed,
        "versions": json.dumps(record.versions),
        "history": json.dumps(record.history),
        "seconds": json.dumps(record.seconds),
        "negative_data": float(negative_data),
        "correlations": json.dumps(inputs.correlations),
    }


def _inputs(result: UnfoldingResult) -> Groups:
    sim = result.simulation
    simulation = xr.Dataset(
        {
            "gen": (("event", "gen_feature"), sim.gen),
            "reco": (("event", "reco_feature"), sim.reco),
            "weight": ("event", sim.weight),
            "pass_gen": ("event", sim.pass_gen),
            "pass_reco": ("event", sim.pass_reco),
        },
        coords={"gen_feature": list(sim.gen_names), "reco_feature": list(sim.reco_names)},
        attrs={"undefined": sim.undefined, "gen_named": int(sim.gen_named), "reco_named": int(sim.reco_named)},
    )
    if sim.reco_factor is not None:
        simulation["reco_factor"] = ("event", sim.reco_factor)
    if result.closure_weights is not None:
        simulation["closure_weight"] = ("event", result.closure_weights)
    groups = {"simulation": simulation, "data": _sample(result.data, sim.reco_names)}
    for b in result.backgrounds:
        dataset = _sample(b, b.names)
        dataset.attrs |= {"relative_uncertainty": b.relative_uncertainty, "named": int(b.named)}
        dataset.attrs["profile"] = int(b.profile)
        groups[f"backgrounds/{b.name}"] = dataset
    return groups


def _sample(sample: Data | Background, names: Sequence[str]) -> xr.Dataset:
    return xr.Dataset(
        {"features": (("event", "reco_feature"), sample.features), "weight": ("event", sample.weight)},
        coords={"reco_feature": list(names)},
        attrs={"undefined": sample.undefined},
    )


def _networks(iterations: Sequence[Networks]) -> xr.Dataset:
    fits = list(iterations[0].losses)
    dataset = xr.Dataset(
        {
            "step1": (("iteration", "step1_parameter"), np.stack([n.step1 for n in iterations])),
            "step2": (("iteration", "step2_parameter"), np.stack([n.step2 for n in iterations])),
            "loss": (("iteration", "fit"), [[n.losses[fit] for fit in fits] for n in iterations]),
            "remaining_step": (("iteration", "fit"), [[n.decrements[fit] for fit in fits] for n in iterations]),
        },
        coords={"fit": fits},
    )
    fakes = [n.fakes for n in iterations if n.fakes is not None]
    if fakes:
        dataset["fakes"] = (("iteration", "fakes_parameter"), np.stack(fakes))
    return dataset


def _measurement(result: UnfoldingResult) -> Groups:
    draws = result.draws
    dataset = xr.Dataset(
        {
            "directions": (("parameter", "direction"), result.measurement.step1.basis),
            "z": (("draw", "axis"), draws.z),
            "elbo": ("advi_step", draws.elbo),
        },
        attrs={"chains": draws.chains},
    )
    if result.members.multiplier is not None:
        dataset["multiplier"] = (("direction", "draw"), result.members.multiplier)
        dataset["multiplier"].attrs["keeps_total"] = int(result.members.keeps_total)
    kept = {name: v for name, v in draws.sample_stats.items() if v.dtype.kind in "fiub"}
    stats = {name: (tuple(f"{name}_{axis}" for axis in range(v.ndim)), v) for name, v in kept.items()}
    return {"measurement": dataset, "measurement/sample_stats": xr.Dataset(stats)}


def _moments(moments: LinearMoments) -> xr.Dataset:
    dataset = xr.Dataset(
        {
            "observed": ("moment", moments.observed),
            "derivative": (("moment", "parameter"), moments.derivative),
            "centre": ("parameter", moments.centre),
            "log_precision": (("draw", "layer"), moments.log_precision),
        },
        attrs={"width": moments.width, "hyperprior": moments.hyperprior},
    )
    if moments.columns is not None and moments.free is not None:
        dataset["columns"] = ("moment", "systematic"), moments.columns
        dataset["free"] = ("parameter", "systematic"), moments.free
        dataset["correlation"] = ("systematic", "other_systematic"), moments.correlation
        dataset = dataset.assign_coords(systematic=list(moments.systematics))
    return dataset


def _nuisances(nuisances: NuisanceDraws) -> xr.Dataset:
    moved = np.stack(list(nuisances.by_source.values()))
    return xr.Dataset(
        {"estimate": ("systematic", nuisances.estimate), "displacement": (("source", "systematic", "draw"), moved)},
        coords={"systematic": list(nuisances.names), "source": list(nuisances.by_source)},
    )


def _displacement(displacement: Displacement) -> xr.Dataset:
    by_source = displacement.by_source
    return xr.Dataset(
        {
            "directions": (("parameter", "direction"), displacement.classifier.basis),
            "displacement": (("source", "direction", "draw"), np.stack(list(by_source.values()))),
        },
        coords={"source": list(by_source)},
    )


def _systematics(perturbations: Perturbations) -> Groups:
    variations, acceptances = perturbations.variations, perturbations.acceptances
    groups: Groups = {}
    if variations:
        none = np.zeros((2, perturbations.simulation.n))
        rest = np.stack([none if v.rest is None else v.rest for v in variations.values()])
        groups["systematics/weights"] = xr.Dataset(
            {
                "alpha": (("systematic", "draw"), np.stack([v.alpha for v in variations.values()])),
                "up": (("systematic", "event"), np.stack([v.up for v in variations.values()])),
                "down": (("systematic", "event"), np.stack([v.down for v in variations.values()])),
                "rest": (("systematic", "side", "event"), rest),
                "relative": ("systematic", [v.relative for v in variations.values()]),
            },
            coords={"systematic": list(variations), "side": ["up", "down"]},
        )
    learned = {name: v.draws for name, v in variations.items() if v.draws is not None}
    if learned:
        groups["systematics/ratios"] = xr.Dataset(
            {"draws": (("systematic", "ratio_draw", "event"), np.stack([draws.T for draws in learned.values()]))},
            coords={"systematic": list(learned)},
        )
    if acceptances:
        stays = np.zeros(perturbations.simulation.n, dtype=np.int8)
        every = list(acceptances.values())
        groups["systematics/detector"] = xr.Dataset(
            {
                "alpha": (("systematic", "draw"), np.stack([a.alpha for a in every])),
                "moves": ("systematic", [a.up is not None for a in every]),
                "up": (("systematic", "event"), np.stack([stays if a.up is None else a.up for a in every])),
                "down": (("systematic", "event"), np.stack([stays if a.down is None else a.down for a in every])),
                "outside": (("systematic", "side"), np.array([a.outside for a in every], dtype=np.float64)),
            },
            coords={"systematic": list(acceptances), "side": ["up", "down"]},
        )
    return groups


def _keep_functions(groups: Groups, result: UnfoldingResult) -> None:
    """Functions of a linear log weight; their values in the events where the file cannot hold the functions."""
    scale = result.members.events.scales.gen
    if not isinstance(scale, FunctionScale):
        return
    groups["scales/gen"].attrs["functions"] = scale.functions.state()
    if scale.functions.given:
        values = scale.functions(result.simulation.gen[result.simulation.pass_gen])
        groups["scales/gen"]["values"] = (("event", "function"), values)


def _scale_array(name: str, values: Array) -> tuple[tuple[str, ...], Array]:
    return (("interval", "end") if name == "intervals" else ("feature", "output")[: np.ndim(values)]), values


# from groups to a result


def from_groups(tree: xr.DataTree) -> UnfoldingResult:
    """Inverse of :func:`to_groups`.

    Raises
    ------
    KeyError
        If a group, an array or an attribute is missing.
    FileFormatError
        If arrays do not fit together.
    """
    simulation = _simulation(tree)
    sampled = _group(tree, "data")
    data = Data(
        sampled["features"].values,
        weight=sampled["weight"].values,
        undefined=_undefined(sampled),
        names=simulation.reco_names if simulation.reco_named else None,
    )
    backgrounds = tuple(_background(tree, name) for name in _children(tree, "backgrounds"))
    scales = Scales(_function_scale(tree, simulation), _scale(tree, "reco"))
    events = standardize(simulation, data, backgrounds, scales)
    state = json.loads(tree.attrs["settings"])
    networks = _read_networks(tree)
    settings: Settings | DirectSettings | GenerativeSettings
    if state.get("method") == "direct":
        settings = DirectSettings.from_state(state)
        first, last = _direct(events, settings, networks[0], tree)
    elif state.get("method") == "generative":
        settings = GenerativeSettings.from_state(state)
        first, last = _generative(events, settings, networks, tree)
    else:
        settings = Settings.from_state(state)
        first, last = _replay(events, settings, networks, tree)
    _check(tree, settings)
    kept = _group(tree, "simulation")
    return UnfoldingResult(
        inputs=Inputs(simulation, data, backgrounds, json.loads(tree.attrs.get("correlations", "{}"))),
        members=_members(tree, events, settings, first, last),
        measurement=Measurement(first.step1, _draws(tree), _read_moments(tree), _read_nuisances(tree)),
        iterations=networks,
        pull_weights=last.pull,
        record=Record(
            settings,
            int(tree.attrs["random_seed"]),
            json.loads(tree.attrs["versions"]),
            tuple(json.loads(tree.attrs["history"])),
            json.loads(tree.attrs["seconds"]),
            bool(tree.attrs["blind"]) if "blind" in tree.attrs else None,
        ),
        closure_weights=kept["closure_weight"].values if "closure_weight" in kept else None,
    )


def _group(tree: xr.DataTree, path: str) -> xr.Dataset:
    """One group; a KeyError names the one that is missing."""
    for name in path.split("/"):
        if name not in tree.children:
            raise KeyError(path)
        tree = tree.children[name]
    return tree.to_dataset(inherit=False)


def _has(tree: xr.DataTree, path: str) -> bool:
    return path in {node.path.removeprefix(tree.path).lstrip("/") for node in tree.subtree}


def _children(tree: xr.DataTree, name: str) -> list[str]:
    return list(tree.children[name].children) if name in tree.children else []


def _labels(dataset: xr.Dataset, coordinate: str) -> tuple[str, ...]:
    return tuple(str(label) for label in dataset[coordinate].values)


def _undefined(dataset: xr.Dataset) -> Undefined:
    return cast("Undefined", str(dataset.attrs["undefined"]))


def _simulation(tree: xr.DataTree) -> Simulation:
    dataset = _group(tree, "simulation")
    names = {level: _labels(dataset, f"{level}_feature") for level in ("gen", "reco")}
    simulation = Simulation(
        dataset["gen"].values,
        dataset["reco"].values,
        weight=dataset["weight"].values,
        pass_gen=dataset["pass_gen"].values.astype(bool),
        pass_reco=dataset["pass_reco"].values.astype(bool),
        undefined=_undefined(dataset),
        names=names["gen"],
        reco_names=names["reco"],
        reco_factor=dataset["reco_factor"].values if "reco_factor" in dataset else None,
    )
    # without names of its own a level's features are matched by position
    simulation.gen_named, simulation.reco_named = (
        bool(dataset.attrs.get(f"{level}_named", not _by_number(given, level))) for level, given in names.items()
    )
    return simulation


def _background(tree: xr.DataTree, name: str) -> Background:
    dataset = _group(tree, f"backgrounds/{name}")
    return Background(
        dataset["features"].values,
        dataset["weight"].values,
        name,
        float(dataset.attrs["relative_uncertainty"]),
        _undefined(dataset),
        names=_labels(dataset, "reco_feature") if dataset.attrs["named"] else None,
        profile=bool(dataset.attrs.get("profile", 0)),
    )


def _by_number(names: Sequence[str], level: str) -> bool:
    """Whether names are those that features without any get: files of earlier versions do not say it."""
    return all(re.fullmatch(rf"{level}(_\d+)?", n) for n in names)


def _scale(tree: xr.DataTree, level: str) -> Standardizer:
    dataset = _group(tree, f"scales/{level}")
    return Standardizer.from_state({name: dataset[name].values for name in STATE if name in dataset})


def _function_scale(tree: xr.DataTree, simulation: Simulation) -> Standardizer:
    """Of the particle level, with the functions of a linear log weight where there are any."""
    plain, dataset = _scale(tree, "gen"), _group(tree, "scales/gen")
    if "functions" not in dataset.attrs:
        return plain
    kept = None
    if "values" in dataset:
        kept = simulation.gen[simulation.pass_gen], dataset["values"].values
    return FunctionScale(**plain.state(), functions=Functions.from_state(str(dataset.attrs["functions"]), kept))


def _read_networks(tree: xr.DataTree) -> tuple[Networks, ...]:
    dataset = _group(tree, "networks")
    fits = _labels(dataset, "fit")
    fakes = dataset["fakes"].values if "fakes" in dataset else None
    return tuple(
        Networks(
            dataset["step1"].values[k],
            dataset["step2"].values[k],
            None if fakes is None else fakes[k],
            dict(zip(fits, map(float, dataset["loss"].values[k]), strict=True)),
            dict(zip(fits, map(float, dataset["remaining_step"].values[k]), strict=True)),
        )
        for k in range(dataset.sizes["iteration"])
    )


def _draws(tree: xr.DataTree) -> Draws:
    dataset, stats = _group(tree, "measurement"), _group(tree, "measurement/sample_stats")
    reported = {str(name): values.values for name, values in stats.data_vars.items()}
    return Draws(dataset["z"].values, int(dataset.attrs["chains"]), dataset["elbo"].values, reported)


def _read_moments(tree: xr.DataTree) -> LinearMoments | None:
    if "moments" not in tree.children:
        return None
    dataset = _group(tree, "moments")
    systematics = _labels(dataset, "systematic") if "columns" in dataset else ()
    return LinearMoments(
        dataset["observed"].values,
        dataset["derivative"].values,
        dataset["centre"].values,
        dataset["log_precision"].values,
        float(dataset.attrs["width"]),
        str(dataset.attrs["hyperprior"]),
        systematics=systematics,
        columns=dataset["columns"].values if "columns" in dataset else None,
        free=dataset["free"].values if "columns" in dataset else None,
        correlation=dataset["correlation"].values if "correlation" in dataset else np.eye(len(systematics)),
    )


def _read_nuisances(tree: xr.DataTree) -> NuisanceDraws | None:
    if "nuisances" not in tree.children:
        return None
    dataset = _group(tree, "nuisances")
    by_source = dict(zip(_labels(dataset, "source"), dataset["displacement"].values, strict=True))
    return NuisanceDraws(_labels(dataset, "systematic"), dataset["estimate"].values, by_source)


def _replay(
    events: StandardizedEvents, settings: Settings, networks: Sequence[Networks], tree: xr.DataTree
) -> tuple[Iteration, Iteration]:
    """The first and the last iteration, from their networks and the stored directions."""
    stored = {"step2": _group(tree, "step2")["directions"].values}
    if "fakes" in tree.children:
        stored["fakes"] = _group(tree, "fakes")["directions"].values
    first: Iteration | None = None
    before: Iteration | None = None
    for k, record in enumerate(networks):
        directions = dict(stored) if k == len(networks) - 1 else {}
        if k == 0:
            directions["step1"] = _group(tree, "measurement")["directions"].values
        before = iterate(events, settings, before, networks[0] if k else None, recall(record, directions))
        first = first or before
    if first is None or before is None:
        msg = "the file holds no iteration; it is damaged."
        raise FileFormatError(msg)
    return first, before


def _direct(
    events: StandardizedEvents, settings: DirectSettings, networks: Networks, tree: xr.DataTree
) -> tuple[Iteration, Iteration]:
    """The first iteration, and the same with the network of the direct posterior in place of step 2."""
    known = recall(networks, {"step1": _group(tree, "measurement")["directions"].values})
    first = iterate(events, settings, None, None, known, weigh_fakes=False)
    stored = _group(tree, "step2")
    step2 = replace(first.step2, theta=stored["theta"].values, directions=stored["directions"].values)
    fakes = None
    if "fakes" in tree.children:  # step 1 weighs them
        fakes = replace(first.step1, directions=_group(tree, "fakes")["directions"].values)
    return first, replace(first, step2=step2, fakes=fakes, push=push_weights(events, first, step2))


def _generative(
    events: StandardizedEvents, settings: GenerativeSettings, networks: Sequence[Networks], tree: xr.DataTree
) -> tuple[Iteration, Iteration]:
    """The loop's first and last iteration, the latter with the network of the pooled draws in place of step 2."""
    first, last = _replay(events, settings.loop, networks, tree)
    stored = _group(tree, "step2")
    step2 = replace(last.step2, theta=stored["theta"].values, directions=stored["directions"].values)
    fakes = None if last.fakes is None else Displacement(last.fakes, {})
    return first, replace(last, step2=step2, push=pooled_push(events, step2, fakes))


def _members(
    tree: xr.DataTree,
    events: StandardizedEvents,
    settings: Settings | DirectSettings | GenerativeSettings,
    first: Iteration,
    last: Iteration,
) -> Members:
    """The ensemble, from seeds and displacements."""
    effects = _effects(tree)
    measured, yields = _group(tree, "measurement"), _group(tree, "yields")
    n_members = measured.sizes["draw"]
    moments = _read_moments(tree)
    perturbations = Perturbations(
        list_sources([b.name for b in events.backgrounds], effects, generator=settings.generator_prior > 0),
        sample_fluctuations(events, n_members, int(tree.attrs["random_seed"]), settings.event_groups),
        np.zeros((len(first.step1.theta), n_members)),
        effects,
        signal=dict(zip(_labels(yields, "source"), yields["change"].values, strict=True)),
        correlated=frozenset() if moments is None else frozenset(partners_of(moments.systematics, moments.correlation)),
    )
    multiplier, keeps_total = None, True
    if "multiplier" in measured:
        multiplier = measured["multiplier"].values
        keeps_total = bool(measured["multiplier"].attrs.get("keeps_total", 0))
        perturbations = Conditioning(first.step1, multiplier, keeps_total).apply(perturbations)
    return Members(
        events,
        last.push,
        replace(perturbations, prior=perturbations.prior[:0]),
        Displacement(last.step2, _by_source(tree, "step2")),
        None if last.fakes is None else Displacement(last.fakes, _by_source(tree, "fakes")),
        multiplier,
        float(tree.attrs["negative_data"]),
        not isinstance(settings, DirectSettings) or settings.efficiency == "learned",
        keeps_total,
    )


def _by_source(tree: xr.DataTree, name: str) -> dict[str, Array]:
    dataset = _group(tree, name)
    columns = (np.asfortranarray(values) for values in dataset["displacement"].values)  # as the fit has them
    return dict(zip(_labels(dataset, "source"), columns, strict=True))


def _effects(tree: xr.DataTree) -> dict[str, Effect]:
    effects: dict[str, Effect] = {}
    nuisances = _read_nuisances(tree)

    def parts(name: str) -> dict[str, Array] | None:
        if nuisances is None or name not in nuisances.names:
            return None
        row = nuisances.names.index(name)
        return {source: values[row] for source, values in nuisances.by_source.items()}

    learned: dict[str, Array] = {}
    if _has(tree, "systematics/ratios"):
        dataset = _group(tree, "systematics/ratios")
        learned = {name: d.T for name, d in zip(_labels(dataset, "systematic"), dataset["draws"].values, strict=True)}
    if _has(tree, "systematics/weights"):
        dataset = _group(tree, "systematics/weights")
        for k, name in enumerate(_labels(dataset, "systematic")):
            alpha, up, down = (dataset[part].values[k] for part in ("alpha", "up", "down"))
            rest, relative = None, parts(name) is None  # of an earlier version
            if "rest" in dataset:
                high, low = dataset["rest"].values[k]
                rest = (high, low) if high.any() or low.any() else None
                relative = bool(dataset["relative"].values[k])
            effects[name] = Variation(alpha, up, down, parts(name), learned.get(name), rest, relative)
    if _has(tree, "systematics/detector"):
        dataset = _group(tree, "systematics/detector")
        for k, name in enumerate(_labels(dataset, "systematic")):
            alpha, outside = dataset["alpha"].values[k], dataset["outside"].values[k]
            moves = bool(dataset["moves"].values[k])
            up, down = (dataset[side].values[k] if moves else None for side in ("up", "down"))
            effects[name] = Acceptance(alpha, up, down, (float(outside[0]), float(outside[1])), parts(name))
    return effects


def _check(tree: xr.DataTree, settings: Settings | DirectSettings | GenerativeSettings) -> None:
    """Shapes and numbers that would only be met at the first spectrum.

    Raises
    ------
    FileFormatError
    """
    measured = _group(tree, "measurement")
    members, chains = measured.sizes["draw"], int(measured.attrs["chains"])
    problems = []
    if settings.efficiency not in ("learned", "prior"):
        problems.append(f"efficiency is {settings.efficiency!r}")
    if chains < 1 or members % chains:
        problems.append(f"{members} draws in {chains!r} chains")
    made = [
        name
        for name in ("step2", "fakes", "measurement", "moments", "networks", "nuisances", "yields")
        if name in tree.children
    ]
    made += ["systematics/weights"] if _has(tree, "systematics/weights") else []
    for name in made:
        dataset = _group(tree, name)
        if dataset.sizes.get("draw", members) != members:
            problems.append(f"{name} has {dataset.sizes['draw']} draws instead of {members}")
        nan = [v for v, a in dataset.data_vars.items() if a.dtype.kind == "f" and not np.isfinite(a.values).all()]
        problems += [f"{v} of {name} is not finite" for v in nan if v not in ("loss", "remaining_step")]
    if problems:
        msg = f"what the file holds does not fit together ({'; '.join(problems[:3])}); it is damaged."
        raise FileFormatError(msg)
