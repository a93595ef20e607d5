"""An Olive configuration of any version from 0.4 to 0.13, seen in one form: where each value stands, and what it is of.

Olive let its forms vary: `config` and `params` may be left out, the engine's keys may stand at the top, a pass may be a
list of alternatives, a system or a data config may stand where its name is expected, and until 0.6 the parts of a data
config were `params_config.component_kwargs`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from phi3_assets.olive.legacy_passes import FINE_TUNING
from phi3_assets.olive.legacy_walk import TRANSPARENT, Path, at, flat, items, mapping, walk

_TRAINING = "train_data_config"
_DATA_REFERENCES = {_TRAINING, "eval_data_config", "data_config", "calibration_data_config"}
_COMPONENTS = ("load_dataset", "pre_process_data", "post_process_data", "dataloader")
# Keys of the old params_config that are not of load_dataset.
_OF_PRE_PROCESS = {
    *("text_cols", "text_template", "corpus_strategy", "source_max_len", "dataset_type", "input_cols", "max_samples"),
    *("pad_to_max_len", "use_attention_mask", "pair_format", "input_col", "output_col"),
}
_OF_DATALOADER = {"batch_size", "drop_last"}


@dataclass(frozen=True)
class Pass:
    """One pass, or one of the alternatives for it.

    Attributes:
        path: Where it stands in the configuration.
        name: What the configuration calls it.
        type: Olive's name of the pass in small letters; "" where none is given.
        values: Its keys, those of a nested `config` among them.
    """

    path: Path
    name: str
    type: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Data:
    """One data config.

    Attributes:
        path: Where it stands in the configuration.
        names: What it can be called by: its name, and its key where the data configs are a mapping.
        load: Parameters of its component load_dataset.
    """

    path: Path
    names: tuple[str, ...]
    load: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaf:
    """One value that is no mapping.

    Attributes:
        path: Where it stands in the configuration.
        place: The same as the rules name it, with a pass's type for its name.
        value: The value; an empty mapping too.
    """

    path: Path
    place: Path
    value: Any


class View:
    """What a configuration consists of.

    Attributes:
        config: The configuration.
        passes: Its passes, in their order.
        data: Its data configs, those among them that stand in a pass.
        systems: Its systems by name, those among them that stand where a name is expected.
        fine_tuning: The pass that trains; None: none does.
        training: The data config that it trains on; None: none is given.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.engine = mapping(config.get("engine"))
        self.passes = list(_passes(config.get("passes")))
        self.data = list(self._all_data())
        self.systems = {name: mapping(system) for name, system in mapping(config.get("systems")).items()}
        for key in ("host", "target", "workflow_host"):
            if isinstance(system := self.of_engine(key), Mapping):
                self.systems.setdefault(key, system)
        self.fine_tuning = self._fine_tuning()
        self.training = self._training()

    def of_engine(self, key: str) -> Any:
        """A value of the engine, which may stand at the top."""
        return self.config.get(key, self.engine.get(key))

    def system_of(self, key: str) -> str:
        """Name of the system that is the host or the target; "" where none is named."""
        value = self.of_engine(key)
        return key if isinstance(value, Mapping) else value if isinstance(value, str) else ""

    def leaves(self) -> Iterator[Leaf]:
        """Every value, in the order of the configuration."""
        types = {one.path: one for one in self.passes}
        for path, value in walk(self.config, ()):
            yield Leaf(path, self._place(path, types), value)

    def pass_of(self, path: Path) -> Pass | None:
        """The pass that a path belongs to."""
        return next((one for one in self.passes if path[: len(one.path)] == one.path), None)

    def data_of(self, path: Path) -> Data | None:
        """The data config that a path belongs to."""
        return next((one for one in self.data if path[: len(one.path)] == one.path), None)

    def _place(self, path: Path, passes: Mapping[Path, Pass]) -> Path:
        data = self.data_of(path)
        if data and len(path) > len(data.path):
            return ("data_configs", "*", *_data_place(path[len(data.path) :]))
        parts = list(path)
        if parts[0] == "engine" and len(parts) > 1:
            parts = parts[1:]
        one = self.pass_of(path)
        if one:
            rest = [part for part in path[len(one.path) :] if part not in TRANSPARENT]
            if one.type in FINE_TUNING and "extra_args" in rest[1:]:
                rest.remove("extra_args")
            if one.type == "modelbuilder" and rest[:1] == ["extra_options"] and len(rest) > 1:
                rest = rest[1:]
            return ("passes", one.type or "?", *rest)
        if parts[0] in ("host", "target", "workflow_host") and len(parts) > 1:
            parts = ["systems", *parts]
        if parts[0] == "azureml_client_config":
            parts[0] = "azureml_client"
        return (parts[0], *(part for part in parts[1:] if part not in TRANSPARENT))

    def _all_data(self) -> Iterator[Data]:
        top = self.config.get("data_configs")
        for key, value in mapping(top).items() if isinstance(top, Mapping) else enumerate(items(top)):
            yield _data(("data_configs", str(key)), mapping(value), str(key) if isinstance(top, Mapping) else "")
        for one in self.passes:
            for key in one.values:
                if key in _DATA_REFERENCES and isinstance(one.values[key], Mapping):
                    nested = () if key in mapping(at(self.config, one.path)) else ("config",)
                    yield _data((*one.path, *nested, key), one.values[key], "")
        for root in (("input_model", "config", "hf_config", "dataset"), ("input_model", "hf_config", "dataset")):
            if isinstance(found := at(self.config, root), Mapping):
                yield _data(root, found, "")

    def _fine_tuning(self) -> Pass | None:
        found = [one for one in self.passes if one.type in FINE_TUNING]
        # Of several, the one of the first flow; the configuration runs each flow in turn.
        for flow in items(self.of_engine("pass_flows")):
            chosen = [one for one in found if one.name in items(flow)]
            if chosen:
                return chosen[0]
        return found[0] if found else None

    def _training(self) -> Data | None:
        if self.fine_tuning is None:
            return None
        wanted = self.fine_tuning.values.get(_TRAINING)
        if isinstance(wanted, Mapping):
            of_it = self.fine_tuning.path
            return next(one for one in self.data if one.path[: len(of_it)] == of_it and one.path[-1] == _TRAINING)
        given = [one for one in self.data if one.path[0] == "data_configs"]
        if isinstance(wanted, str):
            named = [one for one in given if wanted in one.names]
            if named:
                return named[0]
        return given[0] if len(given) == 1 or (wanted is None and given) else None


def _passes(value: Any) -> Iterator[Pass]:
    named = mapping(value).items() if isinstance(value, Mapping) else enumerate(items(value))
    for name, one in named:
        path = ("passes", str(name))
        alternatives = one if isinstance(one, list) else [one]
        for number, single in enumerate(alternatives):
            if isinstance(single, Mapping):
                kind = single.get("type")
                place = (*path, str(number)) if isinstance(one, list) else path
                yield Pass(place, str(name), kind.lower() if isinstance(kind, str) else "", flat(single))


def _data(path: Path, value: Mapping[str, Any], key: str) -> Data:
    load: dict[str, Any] = {}
    for inner, found in walk(value, (), whole={"data_files"}):
        place = _data_place(inner)
        if place[0] == "load_dataset_config" and len(place) > 1:
            load.setdefault(place[1], found)
    name = value.get("name")
    return Data(path, (name, key) if isinstance(name, str) else (key,), load)


def _data_place(rest: Path) -> Path:
    """The path inside of a data config in the form of Olive 0.7 and later."""
    if rest[0] in ("params_config", "load_dataset_config", "config", "params") and len(rest) > 1:
        if rest[0] == "load_dataset_config":
            inner = [part for part in rest[1:] if part not in TRANSPARENT]
            return ("load_dataset_config", *inner)
        return _data_place(rest[1:]) if rest[0] != "params_config" else _old_data_place(rest[1:])
    if rest[0] in ("components", "default_components", "component_kwargs") and len(rest) > 2:
        return _component(rest[1], rest[2:])
    if rest[0] in ("data_name", "data_files", "data_dir", "subset", "split"):
        return _old_data_place(rest)
    return tuple(part for part in rest if part not in TRANSPARENT) or rest


def _old_data_place(rest: Path) -> Path:
    if rest[0] == "component_kwargs" and len(rest) > 2:
        return _component(rest[1], rest[2:])
    part = "pre_process_data" if rest[0] in _OF_PRE_PROCESS else "load_dataset"
    return _component("dataloader" if rest[0] in _OF_DATALOADER else part, rest)


def _component(name: str, rest: Path) -> Path:
    known = f"{name}_config" if name in _COMPONENTS else name
    return (known, *(part for part in rest if part not in TRANSPARENT))
