"""Reports how recent the verified restores are: an event for each component, and metrics if configured."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from errors import IsaError
from operations.environment.environment import Environment
from operations.health import freshness
from operations.report import metrics
from redaction import shown
from tasks.redacted_errors import redacted_errors


def tell_freshness(environment: Environment) -> None:
    """Report once; what cannot be sent fails its own task, not the verifications.

    Args:
        environment: opened.
    """

    # it closes over the environment: as a parameter Prefect would walk through it
    @task(name="tell-freshness", cache_policy=NO_CACHE, persist_result=False)
    def tell() -> None:
        with redacted_errors():
            found = freshness.read_freshness(environment)
            name, verify = environment.settings.environment, environment.settings.verify
            for one in found:
                emit_event(
                    event=f"isa-cloud.proof.{one.state}",
                    resource={
                        "prefect.resource.id": f"isa-cloud.proof.{name}.{one.component}",
                        "prefect.resource.name": f"{one.component} of {name}",
                        "isa-cloud.component": one.component,
                        "isa-cloud.environment": name,
                    },
                    payload={
                        "state": one.state,
                        "sentence": shown(one.sentence),
                        "last_passing_verify": f"{one.passed:%F %H:%M UTC}" if one.passed else "",
                    },
                )
            text = freshness.metrics(found, name)
            if verify.metrics_file is not None:
                metrics.write_metrics(verify.metrics_file, text)
            if verify.pushgateway is not None:
                metrics.push_metrics(verify.pushgateway, text, name)

    try:
        tell()
    except IsaError:  # the task says so
        return
