"""`berth bench packing`: replays a trace in the format of openb, and the trace itself where it is there."""

import json
from pathlib import Path

import pytest

from berth.messages.requests import Strategy
from berth_cli.main import run
from berth_cli.openb import GpuModel, Trace
from berth_cli.packing import POINTS, replay

NODES = "sn,cpu_milli,memory_mib,gpu,model\nplain,8000,16384,0,\nwith-gpus,64000,262144,4,T4\n"
REQUESTS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
)
OPENB = Path(__file__).parents[4] / "shared" / "data"


def a_trace(folder: Path, *rows: str) -> None:
    (folder / "openb_nodes.csv").write_text(NODES)
    (folder / "openb_pods.csv").write_text(REQUESTS + "".join(f"{row},LS,Running,0,1,0\n" for row in rows))


def test_gpus_are_counted_whole_or_in_thousandths(tmp_path: Path) -> None:
    a_trace(tmp_path, "p1,12000,16384,1,460,", "p2,500,512,0,0,", "p3,1000,1024,2,1000,V100|T4")

    whole, milli = Trace(tmp_path, GpuModel.WHOLE), Trace(tmp_path, GpuModel.MILLI)

    assert [one.vector.extended for one in whole.requests(Strategy.BINPACK)] == [(("gpu", 1),), (), (("gpu", 2),)]
    assert next(one.vector.extended for one in milli.requests(Strategy.BINPACK)) == (("gpu-milli", 460),)
    assert [node.capacity.vector.amount("gpu") for node in whole.cluster().nodes] == [0, 4]
    assert milli.cluster().nodes[1].capacity.vector.amount("gpu-milli") == 4_000


def test_the_models_that_a_request_names_are_a_constraint(tmp_path: Path) -> None:
    a_trace(tmp_path, *("p1,1000,1024,1,1000,V100|T4",) * 1, *(f"q{n},1000,1024,1,1000,P100" for n in range(49)))

    found = replay(Trace(tmp_path, GpuModel.WHOLE), Strategy.FRAGMENTATION)

    assert found.unplaced == 49, "no node has a P100"
    assert found.allocated == 25.0
    assert len(found.curve) == POINTS


def test_the_benchmark_says_what_each_strategy_allocates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_trace(tmp_path, *(f"p{n},1000,1024,1,1000," for n in range(50)))

    assert run(["bench", "packing", "--data", str(tmp_path), "--seeds", "2", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["benchmark"] == "packing"
    assert told["figures"]["gpu_allocation_percent"] == {"random": 100.0, "binpack": 100.0, "fragmentation": 100.0}
    assert told["figures"]["unplaced"] == {"random": 46.0, "binpack": 46.0, "fragmentation": 46.0}
    assert len(told["figures"]["random_by_seed"]) == 2


def test_without_the_trace_it_says_that_it_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "packing", "--data", str(tmp_path), "--json"]) == 0

    told = capsys.readouterr()
    assert "skipped" in told.err
    assert json.loads(told.out)["figures"] == {}


@pytest.mark.skipif(Trace(OPENB, GpuModel.WHOLE).missing() is not None, reason="the openb trace is not there")
def test_the_first_requests_of_openb_all_find_a_place() -> None:
    trace = Trace(OPENB, GpuModel.WHOLE)

    assert (len(trace.cluster().nodes), len(trace.requests(Strategy.BINPACK))) == (1_523, 8_152)
    assert replay(trace, Strategy.FRAGMENTATION, limit=100).unplaced == 0
