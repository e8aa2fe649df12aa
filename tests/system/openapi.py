"""Checks answers against docs/openapi.json: the part of JSON Schema (2020-12) that it uses."""

import json
from pathlib import Path
from typing import Any

DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KEYWORDS = {
    "type",
    "enum",
    "required",
    "properties",
    "items",
    "oneOf",
    "minimum",
    "maximum",
    "$ref",
}
_ANNOTATIONS = {"description", "examples", "default", "additionalProperties"}


def answer_schema(method: str, path: str, status: int) -> dict[str, Any]:
    """The schema of an answer's body; that of a problem for every status without its own."""
    responses = DOCUMENT["paths"][path][method.lower()]["responses"]
    return media_schema(responses.get(str(status), responses["default"]))


def media_schema(response: dict[str, Any]) -> dict[str, Any]:
    ((kind, content),) = resolve(response)["content"].items()
    schema: dict[str, Any] = content["schema"]
    return schema if kind == "application/json" else schema["contentSchema"]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found = DOCUMENT
        for key in node["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        node = found
    return node


def problems(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """What is wrong with `value`, and where; a keyword that is not known here is wrong too.

    Objects may have no field that the schema does not name, unless it says so: the document
    lets clients ignore new fields, and this test does not let us forget to describe them.
    """
    schema = resolve(schema)
    if unknown := schema.keys() - _KEYWORDS - _ANNOTATIONS:
        return [f"{where}: this validator does not know {unknown}"]
    found: list[str] = []
    if "oneOf" in schema:
        fitting = [one for one in schema["oneOf"] if not problems(value, one, where)]
        if len(fitting) != 1:
            found.append(f"{where}: {value!r} fits {len(fitting)} of oneOf")
    if "type" in schema and not _has_type(value, schema["type"]):
        return [*found, f"{where}: {value!r} is not {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} is none of {schema['enum']}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{where}: {value!r} is below {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        found.append(f"{where}: {value!r} is above {schema['maximum']}")
    if isinstance(value, dict) and "properties" in schema:
        found += _object_problems(value, schema, where)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            found += problems(item, schema["items"], f"{where}[{index}]")
    return found


def _has_type(value: Any, names: str | list[str]) -> bool:
    wanted = [names] if isinstance(names, str) else names
    if isinstance(value, bool):  # an int to Python, none to JSON
        return "boolean" in wanted
    return any(isinstance(value, _TYPES[name]) for name in wanted)


def _object_problems(value: dict[str, Any], schema: dict[str, Any], where: str) -> list[str]:
    properties = schema["properties"]
    found = [f"{where}: no {name}" for name in schema.get("required", ()) if name not in value]
    for name, one in value.items():
        if name in properties:
            found += problems(one, properties[name], f"{where}.{name}")
        elif not schema.get("additionalProperties", False):
            found.append(f"{where}: {name} is not described")
    return found
