"""AccountSettings: what an account has once per region."""

from __future__ import annotations

import pytest
from botocore.loaders import Loader

from components.account_settings import EVENT_TYPES, AccountSettings
from tests.unit.harness import build


@pytest.mark.parametrize("preview", [False, True])
def test_it_is_indexing_and_events_and_nothing_else(preview: bool) -> None:
    graph = build(lambda: AccountSettings("account"), preview=preview)
    assert graph.children("account") == ["account-events", "account-indexing"]
    assert graph["account-indexing"].inputs == {
        "thingIndexingConfiguration": {
            "thingIndexingMode": "REGISTRY_AND_SHADOW",
            "thingConnectivityIndexingMode": "STATUS",
            "deviceDefenderIndexingMode": "OFF",
            "namedShadowIndexingMode": "OFF",
        },
        "thingGroupIndexingConfiguration": {"thingGroupIndexingMode": "ON"},
    }
    assert graph["account-events"].inputs == {"eventConfigurations": EVENT_TYPES}


def test_every_event_type_that_aws_knows_is_written_out() -> None:
    shapes = Loader().load_service_model("iot", "service-2")["shapes"]
    assert sorted(EVENT_TYPES) == sorted(shapes["EventType"]["enum"])
