"""The pages that repeat what the code says must say the same."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sengu.control import api
from sengu.model.passage import PassageStatus

ROOT = Path(__file__).parents[2]
SCHEMAS = json.loads((ROOT / "docs" / "openapi.json").read_text())["components"]["schemas"]

STRUCTS = (
    api.Problem,
    api.Status,
    api.ListenerStatus,
    api.ManagedStatus,
    PassageStatus,
    api.DeployStatus,
    api.PastDeploy,
    api.WorkerStatus,
    api.AdoptionStatus,
    api.ReloadRequest,
    api.ReloadAccepted,
    api.ReloadOutcome,
    api.StopRequest,
    api.StopAccepted,
    api.ScaleRequest,
    api.ScaleAccepted,
    api.UpgradeRequest,
    api.UpgradeAccepted,
    api.ConfigureRequest,
    api.ConfigureAccepted,
    api.ConfigureOutcome,
    api.Dump,
    api.ProcessDump,
)


def load_make_docs() -> Any:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "tools" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_reference_is_what_the_settings_say() -> None:
    make_docs = load_make_docs()
    assert make_docs.PAGE.read_text() == make_docs.page(), "run: make docs"


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_openapi_has_the_fields_of(struct: type[msgspec.Struct]) -> None:
    documented = SCHEMAS[struct.__name__]
    assert set(documented["properties"]) == set(struct.__struct_fields__)


@pytest.mark.parametrize(
    ("schema", "field", "enumeration"),
    [("Status", "state", api.ServiceState), ("WorkerStatus", "state", api.WorkerState)],
)
def test_openapi_has_the_states_of(schema: str, field: str, enumeration: Any) -> None:
    assert SCHEMAS[schema]["properties"][field]["enum"] == [member.value for member in enumeration]
