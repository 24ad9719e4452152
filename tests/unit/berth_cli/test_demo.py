"""The sample workload is made of valid documents that say that they are a sample."""

from berth_agent.simulated import simulated_nodes
from berth_cli.demo import quotas, requests


def test_every_request_of_the_sample_is_valid_and_labelled() -> None:
    sample = requests()

    assert len({request.key for request in sample}) == len(sample)
    assert all(request.namespace.startswith("demo-") for request in sample)
    assert all(request.labels["sample"] == "berth" for request in sample)


def test_limits_are_for_namespaces_of_the_sample_only() -> None:
    assert {quota.namespace for quota in quotas()} <= {request.namespace for request in requests()}


def test_what_the_sample_constrains_the_demo_nodes_have() -> None:
    labels = {(key, value) for node in simulated_nodes(20) for key, value in node.labels.items()}

    wanted = {
        (constraint.key, value)
        for request in requests()
        for constraint in request.constraints
        for value in constraint.values
    }
    assert wanted <= labels
