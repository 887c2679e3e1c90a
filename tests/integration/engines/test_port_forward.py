"""From a desk that reaches no pod: all seven gates through the API server."""

from __future__ import annotations

import pytest

from components import COMPONENTS
from components.access import Access
from components.base import worst

from .live import Live


@pytest.mark.parametrize("component", sorted(COMPONENTS))
def test_a_gate_asks_through_the_api_server(component: str, engines: Live) -> None:
    settings = engines.environment.settings
    through = settings.kubernetes.model_copy(update={"engine_access": "port-forward"})
    settings = settings.model_copy(update={"kubernetes": through})
    with Access(settings, engines.environment.kube, timeout_seconds=10) as access:
        assert {e.host for e in access.endpoints("nats", 3, 4222)} == {"127.0.0.1"}
        report = COMPONENTS[component].ask(access)
    trouble = worst(report.checks)
    assert trouble is None, f"{trouble}"
