"""What people read about nodes and drains: tables, no Python."""

from typing import Any

import pytest

from berth_cli.node_lines import amount, listed, shown, state_of

NO_ROOM = {
    "code": "insufficient_cpu",
    "nodes": 2,
    "dimension": "cpu_millicores",
    "needed": 4_000,
    "best_available": 500,
}


def a_row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "node-001",
        "state": "ready",
        "schedulable": True,
        "draining": False,
        "drain": None,
        "capacity": {
            "cpu_millicores": 16_000,
            "ram_mb": 65_536,
            "disk_mb": 500_000,
            "instances": 110,
            "extended": {"gpu": 4},
        },
        "reserved": {"cpu_millicores": 1_000, "ram_mb": 0, "disk_mb": 0, "instances": 0, "extended": {}},
        "used": {"cpu_millicores": 1_500, "ram_mb": 512, "disk_mb": 0, "instances": 3, "extended": {"gpu": 1}},
        "labels": {"zone": "a", "disk": "ssd"},
        "taints": [{"key": "dedicated", "value": "gpu", "effect": "no_schedule"}],
        **changes,
    }


def a_drain(**changes: Any) -> dict[str, Any]:
    return {
        "since": "2026-01-01T00:00:00Z",
        "deadline": "2026-01-01T00:05:00Z",
        "moved": 48,
        "evicted": 0,
        "left": 1,
        "releasing": 1,
        **changes,
    }


def test_the_list_is_a_table_in_the_units_people_use() -> None:
    head, line = listed([a_row()])

    assert head.split() == ["NODE", "STATE", "CPU", "RAM", "DISK", "INSTANCES", "EXTENDED", "TAINTS", "LABELS"]
    assert line.split() == [
        *("node-001", "ready", "1.5/16", "512M/64G", "0/500G", "3/110", "gpu:1/4", "dedicated=gpu:no_schedule"),
        *("disk=ssd", "zone=a"),
    ]


def test_one_node_is_facts_and_a_table_of_its_dimensions() -> None:
    lines = shown(a_row(schedulable=False))

    assert lines[:4] == [
        "node    node-001",
        "state   cordoned",
        "labels  disk=ssd zone=a",
        "taints  dedicated=gpu:no_schedule",
    ]
    assert [line.split() for line in lines[5:]] == [
        ["DIMENSION", "USED", "RESERVED", "CAPACITY", "USED", "%"],
        ["cpu", "1.5", "1", "16", "10"],
        ["ram", "512M", "0", "64G", "1"],
        ["disk", "0", "0", "500G", "0"],
        ["instances", "3", "0", "110", "3"],
        ["gpu", "1", "0", "4", "25"],
    ]
    assert not any("{" in line for line in lines)


def test_a_drain_says_how_far_it_is_and_what_it_waits_for() -> None:
    until = "2026-01-01T00:05:00Z"
    common: dict[str, Any] = {"namespace": "team-a", "request": "r", "state": "placed", "until": until, "reasons": []}
    waiting: list[dict[str, Any]] = [
        {**common, "id": "web.0", "waits_for": "place", "reasons": [NO_ROOM]},
        {**common, "id": "once.0", "waits_for": "deadline"},
        {**common, "id": "now.0", "waits_for": "place"},
    ]

    lines = shown(a_row(schedulable=False, draining=True, drain=a_drain(left=4, waiting=waiting)))

    assert "state     draining (5 left)" in lines
    assert "drain     48 moved, 4 left, 1 releasing" in lines
    assert "deadline  2026-01-01T00:05:00Z" in lines
    assert [line.split("Z  ", 1)[-1] for line in lines[-4:]] == [
        "not enough CPU is free [cpu_millicores 4000 needed, at best 500 available] on 2 nodes",
        "must not run elsewhere: leaves at the deadline",
        "moves now",
        "and 2 more",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "ready"),
        ({"schedulable": False}, "cordoned"),
        ({"state": "lost"}, "lost"),
        ({"state": "lost", "drain": a_drain()}, "lost, draining (2 left)"),
        ({"schedulable": False, "drain": a_drain(left=0, releasing=0)}, "drained"),
    ],
)
def test_the_state_is_what_an_operator_wants_to_know_first(changes: dict[str, Any], words: str) -> None:
    assert state_of(a_row(**changes)) == words


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cpu_millicores", 250, "0.25"),
        ("cpu_millicores", 16_000, "16"),
        ("ram_mb", 1_536, "1.5G"),
        ("ram_mb", 512, "512M"),
        ("disk_mb", 0, "0"),
        ("disk_mb", 4_000_000, "4000G"),
        ("gpu", 4, "4"),
    ],
)
def test_amounts_are_written_as_people_do(name: str, value: int, words: str) -> None:
    assert amount(name, value) == words
