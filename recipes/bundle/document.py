"""recipe.yaml as text: written for people to read, read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from recipes.bundle.schema import RECIPE, SCHEMA, BundleError, Recipe, recipe_schema
from search.candidate import Recovery
from search.space import FOR_ALL

DAMAGED = "the file is damaged, cut off or was edited: copy the bundle again, or export it again"


class _Dumper(yaml.SafeDumper):
    """Writes lists of plain values on one line, and everything in full."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    plain = not any(isinstance(item, (list, dict)) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=plain)


_Dumper.add_representer(list, _represent_list)


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as YAML."""
    text: str = yaml.dump(recipe.model_dump(mode="json", by_alias=True), Dumper=_Dumper, sort_keys=False,
                          allow_unicode=True, width=110)
    return text


def load_recipe(folder: Path) -> Recipe:
    """Read the recipe.yaml of a bundle. Raises BundleError that names every problem by its key."""
    path = folder / RECIPE
    data = _read(path)
    version = data.get("schema")
    if isinstance(version, int) and version > SCHEMA:
        raise BundleError(f"schema {version} is newer than this program reads (up to {SCHEMA})", path,
                          "upgrade hil-orchestrator here")
    if version not in range(1, SCHEMA + 1) or not isinstance(version, int) or isinstance(version, bool):
        raise BundleError(f"schema: expected 1 to {SCHEMA}, got {version!r}" if "schema" in data
                          else "the key 'schema' is missing", path, DAMAGED)
    if version == 1:
        data = _upgraded(data, path, 2, {"widths": {}, "recovery": Recovery.NONE.value}, {"prune_criterion": None})
    if version < 3:
        data = _upgraded(data, path, 3, {name: first.value for name, first in FOR_ALL.items()}, {})
    data = {**data, "schema": SCHEMA}
    try:
        return Recipe.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        problems = [_problem(detail) for detail in error.errors(include_url=False)]
        raise BundleError("; ".join(problems), path, DAMAGED) from error
    except (TypeError, ValueError) as error:
        raise BundleError(f"not plain keys and values ({error})", path, DAMAGED) from error


def _upgraded(data: dict[str, Any], path: Path, schema: int, candidate: Mapping[str, Any],
              others: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a recipe to the next schema: what the former did not know is as it was then. Raises BundleError."""
    found = data.get("candidate")
    entry = dict(found) if isinstance(found, dict) else {}
    new = [f"candidate.{key}" for key in candidate if key in entry] + [key for key in others if key in data]
    if new:
        raise BundleError(f"{', '.join(new)}: unknown key in schema {data['schema']}", path, DAMAGED)
    if isinstance(found, dict):
        data = {**data, "candidate": {**entry, **candidate}}
    return {**data, "schema": schema, **others}


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise BundleError("no such file", path, "give the folder that holds a bundle's recipe.yaml") from error
    except OSError as error:
        raise BundleError(f"cannot be read ({error.strerror})", path, "see its owner and permissions") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise BundleError(f"not valid YAML ({line}{error.problem})", path, DAMAGED) from error
    except (yaml.YAMLError, ValueError) as error:
        raise BundleError(f"not valid YAML ({error})", path, DAMAGED) from error
    if not isinstance(data, dict):
        raise BundleError(f"expected keys and values, got {type(data).__name__}", path, DAMAGED)
    return data


def _problem(detail: ErrorDetails) -> str:
    """Say in one phrase which key is wrong and how."""
    at = tuple(part for part in detail["loc"] if part != "[key]")
    where = ".".join(str(part) for part in at)
    if detail["type"] == "extra_forbidden":
        keys = _keys_at(at[:-1])
        nearest = get_close_matches(str(at[-1]), keys, n=1)
        return f"{where}: unknown key, " + (f"did you mean {nearest[0]!r}?" if nearest
                                            else f"the keys here are {', '.join(keys)}")
    if detail["type"] == "missing":
        return f"{where}: missing"
    if detail["type"] == "value_error":
        return f"{where}: {detail['ctx']['error']}" if where else str(detail["ctx"]["error"])
    got = "" if isinstance(detail["input"], (dict, list)) else f", got {detail['input']!r}"
    return f"{where}: {detail['msg'][:1].lower()}{detail['msg'][1:]}{got}"


def _keys_at(at: tuple[int | str, ...]) -> list[str]:
    """Return the keys that may stand at a place in the file."""
    schema = recipe_schema()
    node: Mapping[str, Any] = schema
    for part in at:
        if isinstance(part, int):
            node = node["items"]
        else:
            node = node["properties"][part] if part in node.get("properties", {}) else node["additionalProperties"]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return list(node["properties"])
