"""MLflow's Model Registry: the versions of a named model, and the aliases that say which of them is used."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from gpuclust.errors import ConfigurationError, ModelError, TrackingError
from gpuclust.model.files import MODEL
from gpuclust.tracking.current import current_store
from gpuclust.tracking.opening import complete_store
from gpuclust.tracking.store_location import configure_client, one_line_errors, resolve_uri, shown, silence_logger

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""The aliases of the version in use, of the one that was registered last, and of the one that the champion replaced."""

ADDRESS = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<version>\d+))")
# The folders of a bundle in a model: as in `gpuclust.tracking.mlflow`, and that of a model that has another layout.
BUNDLES = ("data/bundle", "artifacts/bundle", ".")
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def _print_message(text: str) -> None:
    print(text, file=sys.stderr)


def is_registered(text: str) -> bool:
    """Whether a text is the address of a registered model, as in ``models:/NAME@champion``."""
    return text.startswith("models:")


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model: the run that made it, where its files are, and its aliases."""

    name: str
    number: int
    run_id: str
    source: str
    aliases: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """``models:/NAME/3``."""
        return f"models:/{self.name}/{self.number}"


class Registry:
    """The registered models of a store. Methods raise TrackingError, in one line, if the store cannot be reached or has no such model."""

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self.client, self.uri = client, uri

    @classmethod
    def open(cls, uri: str | None = None) -> Registry:
        """The registry of the store at a tracking URI, which must exist; its experiments do not matter."""
        configure_client()
        found, artifacts = resolve_uri(uri)
        with one_line_errors(found), complete_store(found, artifacts, False, _print_message):
            return cls(MlflowClient(found), found)

    def register(self, name: str, run_id: str, source: str) -> ModelVersion:
        """Make the model of a run a version of the model ``name``, unless it is one, and give it the alias `CHALLENGER`, unless it is the
        champion. ``source`` is the address of the model, ``models:/m-...``."""
        with one_line_errors(self.uri), silence_logger("mlflow"), current_store(self.uri):
            try:
                self.client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
                    raise
            known = self.client.search_model_versions(f"name='{name}' and run_id='{run_id}'")
            same = [version for version in known if version.source == source]
            model_id = source.removeprefix("models:/")
            found = same[0] if same else self.client.create_model_version(name, source, run_id, model_id=model_id)
        version = self.version(name, int(found.version))
        if CHAMPION not in version.aliases:
            self.set_alias(version, CHALLENGER)
        return self.version(name, version.number)

    def find(self, address: str) -> ModelVersion:
        """The version at ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``. Raises ConfigurationError for another address."""
        parts = ADDRESS.fullmatch(address)
        if parts is None:
            raise ConfigurationError(
                f"{address} is not models:/NAME@ALIAS (as in models:/tracks@champion) or models:/NAME/VERSION"
            )
        if parts["version"]:
            return self.version(parts["name"], int(parts["version"]))
        version = self.alias(parts["name"], parts["alias"])
        if version is None:
            raise TrackingError(
                f"no version of the registered model {parts['name']} in {shown(self.uri)} has the alias {parts['alias']}"
                f"{self._what_there_is(parts['name'])}"
            )
        return version

    def alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that has an alias; None if there is none."""
        with one_line_errors(self.uri):
            try:
                found = self.client.get_model_version_by_alias(name, alias)
            except MlflowException as error:
                if error.error_code not in ABSENT:
                    raise
                return None
        return self.version(name, int(found.version))

    def version(self, name: str, number: int) -> ModelVersion:
        """A version by its number."""
        with one_line_errors(self.uri):
            try:
                found = self.client.get_model_version(name, str(number))
                aliases = self.client.get_registered_model(name).aliases
            except MlflowException as error:
                if error.error_code not in ABSENT:
                    raise
                raise TrackingError(
                    f"there is no registered model {name} with version {number} in {shown(self.uri)}{self._what_there_is(name)}"
                ) from error
        own = tuple(sorted(alias for alias, version in aliases.items() if int(version) == number))
        return ModelVersion(name, number, str(found.run_id or ""), str(found.source), own)

    def _what_there_is(self, name: str) -> str:
        """The end of a message: the aliases of the model, or the names of the models."""
        with one_line_errors(self.uri):
            try:
                aliases = self.client.get_registered_model(name).aliases
                has = [f"{alias} (version {number})" for alias, number in sorted(aliases.items())]
                return f"; it has {', '.join(has) or 'no alias'}"
            except MlflowException:
                names = [model.name for model in self.client.search_registered_models(max_results=12)]
        return f"; it has {', '.join(names) or 'no registered model: tracking.register=NAME registers one'}"

    def set_alias(self, version: ModelVersion, alias: str) -> None:
        """Give an alias to a version; another version loses it."""
        with one_line_errors(self.uri):
            self.client.set_registered_model_alias(version.name, alias, str(version.number))

    def promote(self, version: ModelVersion) -> None:
        """Make a version the champion. The champion until now gets the alias `PREVIOUS`, and the version is no challenger any more."""
        before = self.alias(version.name, CHAMPION)
        if before is not None and before.number != version.number:
            self.set_alias(before, PREVIOUS)
        self.set_alias(version, CHAMPION)
        if CHALLENGER in version.aliases:
            with one_line_errors(self.uri):
                self.client.delete_registered_model_alias(version.name, CHALLENGER)

    @contextmanager
    def download(self, version: ModelVersion) -> Iterator[Path]:
        """The bundle folder of a version, for as long as the context lasts. Raises ModelError if it is not a model of gpuclust."""
        with TemporaryDirectory() as folder:
            with one_line_errors(self.uri), silence_logger("mlflow"), current_store(self.uri):
                source = version.source
                if not source.startswith("models:/m-"):
                    source = self.client.get_model_version_download_uri(version.name, str(version.number))
                found = Path(mlflow.artifacts.download_artifacts(source, dst_path=folder))
            bundles = (found / name for name in BUNDLES)
            bundle = next((path for path in bundles if (path / MODEL).is_file()), None)
            if bundle is None:
                raise ModelError(
                    f"{version.address} is not a model of gpuclust; register one with tracking.register={version.name}"
                )
            yield bundle

    @contextmanager
    def run_file(self, version: ModelVersion, path: str) -> Iterator[Path]:
        """A file of the run that made a version, for as long as the context lasts."""
        with TemporaryDirectory() as folder:
            with one_line_errors(self.uri):
                found = Path(self.client.download_artifacts(version.run_id, path, folder))
            yield found

    def run_name(self, version: ModelVersion) -> str:
        """The name of the run that made a version."""
        with one_line_errors(self.uri):
            info = self.client.get_run(version.run_id).info
        return str(info.run_name or version.run_id)

    def log_json(self, version: ModelVersion, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file to the run that made a version."""
        with one_line_errors(self.uri):
            self.client.log_dict(version.run_id, dict(content), name)


@contextmanager
def registered_model(address: str, uri: str | None = None) -> Iterator[Path]:
    """The bundle folder of a registered model, for as long as the context lasts; see `Registry.find` and `Registry.download`."""
    registry = Registry.open(uri)
    with registry.download(registry.find(address)) as folder:
        yield folder
