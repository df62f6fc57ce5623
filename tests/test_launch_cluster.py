"""launch/ for one node, several, Slurm and Kubernetes: what is started, with what around it, and what signals do.

The files run in a copy whose set-up and Slurm only write down their calls. torchrun is a stub that does so too, or the
real one with a package in bigembed's place that prints and waits.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ranks import free_port
from torch.distributed.run import parse_args

from bigembed.cores import available_cores

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"

STUBS = {
    # Writes down its arguments and environment; with $SECONDS_TO_SAVE it runs until SIGTERM, and saves for so long.
    "checkout/.venv/bin/torchrun": """
printf '%s\\0' "$@" >"$CALLS/torchrun.${SLURM_NODEID:-0}"
env -0 >"$CALLS/environment.${SLURM_NODEID:-0}"
if [[ -n ${SECONDS_TO_SAVE:-} ]]; then
    trap 'sleep "$SECONDS_TO_SAVE"; touch "$CALLS/saved.$SLURM_NODEID"; exit 1' TERM
    touch "$CALLS/running.$SLURM_NODEID"
    while true; do sleep 0.05; done
fi
exit "${STATUS:-0}"
""",
    "checkout/.venv/bin/python": f"exec '{sys.executable}' \"$@\"\n",
    "checkout/launch/setup.sh": 'echo "setup $*" >>"$CALLS/calls"\n',
    "bin/scontrol": 'echo "scontrol $*" >>"$CALLS/calls"\n[[ $1 != show ]] || printf "node1\\nnode2\\n"\n',
    "bin/scancel": 'echo "scancel $*" >>"$CALLS/calls"\nkill -s "${1#--signal=}" $(cat "$CALLS"/tasks)\n',
    # Two tasks; as the real one, it must not be sent SIGTERM.
    "bin/srun": """
all=$*
echo "srun ${all%% bash *}" >>"$CALLS/calls"
trap 'echo "srun killed" >>"$CALLS/calls"; exit 1' TERM
while [[ $1 == -* ]]; do shift; done
for node in 0 1; do SLURM_NODEID=$node "$@" & done
jobs -p >"$CALLS/tasks"
status=0
for task in $(jobs -p); do wait "$task" || status=$?; done
exit "$status"
""",
}

FAKE_BIGEMBED = """
import os, signal, sys, time
from pathlib import Path

def save(number, frame):
    print("rank", os.environ["RANK"], "saved", flush=True)
    sys.exit(128 + number)

signal.signal(signal.SIGTERM, save)
print("rank", os.environ["RANK"], "of", os.environ["WORLD_SIZE"], sys.argv[1:])
print("rank", os.environ["RANK"], "warns", file=sys.stderr)
Path(os.environ["CALLS"], "rank" + os.environ["RANK"]).touch()
time.sleep(float(os.environ["SECONDS_TO_RUN"]))
"""


class Checkout:
    """A copy of launch/ among stubs."""

    def __init__(self, home: Path) -> None:
        """Make it in ``home``, which is where the calls are written down too."""
        self.home, self.root, self.work = home, home / "checkout", home / "work"
        self.work.mkdir()
        shutil.copytree(LAUNCH, self.root / "launch")
        for name, text in STUBS.items():
            self.put(name, text)
        left_out = re.compile("RANKS|RESTARTS|LOGS|HEAD|NODES?|RUN_ID|OMP_.*|SLURM_.*|TORCH.*|JOB_COMPLETION_INDEX")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not left_out.fullmatch(name)},
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(home),
        }

    def put(self, name: str, text: str) -> None:
        """Write a program."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}")
        path.chmod(0o755)

    def put_real_torchrun(self) -> None:
        """Let the real torchrun start a package that stands for bigembed."""
        self.put("checkout/.venv/bin/torchrun", f"exec '{sys.executable}' -m torch.distributed.run \"$@\"\n")
        (self.work / "bigembed").mkdir()
        (self.work / "bigembed" / "__init__.py").touch()
        (self.work / "bigembed" / "__main__.py").write_text(FAKE_BIGEMBED)

    def start(self, name: str, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        """Start ``bash launch/NAME``."""
        return subprocess.Popen(
            ["bash", str(self.root / "launch" / name), *arguments],
            cwd=cwd or self.work,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, *arguments: str, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]:
        """Run ``bash launch/NAME``; the exit code, standard output and standard error."""
        process = self.start(name, *arguments, cwd=cwd, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def arguments(self, node: int = 0) -> Any:
        """What torchrun was given, read by torchrun's own parser."""
        return parse_args((self.home / f"torchrun.{node}").read_text().split("\0")[:-1])

    def variables(self, node: int = 0) -> dict[str, str]:
        """The environment in which torchrun was started."""
        text = (self.home / f"environment.{node}").read_text()
        return dict(line.split("=", 1) for line in text.split("\0")[:-1])

    @property
    def calls(self) -> list[str]:
        """What the other stubs were asked."""
        return (self.home / "calls").read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"it did not get there: {process.communicate()}")
        time.sleep(0.02)


def test_shellcheck_finds_nothing() -> None:
    scripts = sorted(path for path in LAUNCH.rglob("*") if path.suffix in (".sh", ".sbatch"))
    assert len(scripts) == 6
    assert {path.name for path in LAUNCH.iterdir()} - {path.name for path in scripts} == {
        "constraints.txt",
        "fbgemm-gpu-cpu-only",
        "kubernetes.yaml",
    }
    program = Path(sysconfig.get_path("scripts")) / "shellcheck"
    done = subprocess.run([program, "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_node_starts_a_rank_for_each_gpu(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes" / "torch.py").write_text("class cuda:\n    device_count = staticmethod(lambda: 3)\n")
    code, _, err = checkout.run("node.sh", "x=a b", "y=1", PYTHONPATH=str(tmp_path / "fakes"))
    assert code == 0, err
    given = checkout.arguments()
    assert given.standalone and given.nproc_per_node == "3" and given.max_restarts == 3
    assert given.module and given.training_script == "bigembed"
    assert given.training_script_args == ["train", "x=a b", "y=1"]
    assert (given.redirects, given.tee) == ("3", "0:3")
    assert re.fullmatch(r"logs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", given.log_dir)
    assert checkout.variables()["OMP_NUM_THREADS"] == str(max(1, available_cores() // 3))
    assert checkout.variables()["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "240"
    assert checkout.variables()["PYTHONUNBUFFERED"] == "1"
    assert checkout.variables()["PWD"] == str(checkout.work)
    assert checkout.calls == ["setup runtime"]
    assert f"3 ranks here, {max(1, available_cores() // 3)} threads each" in err and given.log_dir in err


def test_without_a_gpu_there_is_one_rank(checkout: Checkout) -> None:
    assert checkout.run("node.sh", CUDA_VISIBLE_DEVICES="")[0] == 0
    assert checkout.arguments().nproc_per_node == "1"
    assert checkout.variables()["OMP_NUM_THREADS"] == str(available_cores())


def test_what_the_caller_sets_holds(checkout: Checkout) -> None:
    given = {"RANKS": "2", "RESTARTS": "0", "LOGS": "my logs"}
    own = {"OMP_NUM_THREADS": "5", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "7"}
    assert checkout.run("node.sh", **given, **own)[0] == 0
    arguments = checkout.arguments()
    assert (arguments.nproc_per_node, arguments.max_restarts, arguments.log_dir) == ("2", 0, "my logs")
    assert own.items() <= checkout.variables().items()


def test_several_nodes_meet_at_one(checkout: Checkout) -> None:
    where = {"HEAD": "node1:29500", "NODES": "2:4", "RUN_ID": "job7", "RANKS": "2"}
    code, _, err = checkout.run("nodes.sh", "hydra.run.dir=/shared/a b", "x=1", **where)
    assert code == 0, err
    given = checkout.arguments()
    assert not given.standalone
    assert (given.nnodes, given.rdzv_backend, given.rdzv_endpoint) == ("2:4", "c10d", "node1:29500")
    assert (given.rdzv_id, given.rdzv_conf) == ("job7", "read_timeout=600")
    assert given.training_script_args == ["train", "hydra.run.dir=/shared/a b", "x=1", "resume=auto"]
    assert (given.nproc_per_node, given.max_restarts, given.redirects, given.tee) == ("2", 3, "3", "0:3")
    assert given.log_dir == f"logs/job7/{os.uname().nodename}"


@pytest.mark.parametrize("variable", ["NODE", "SLURM_NODEID", "JOB_COMPLETION_INDEX"])
def test_node_0_is_where_the_others_meet(checkout: Checkout, variable: str) -> None:
    for number, is_host in (("0", "true"), ("1", "false")):
        environment = {"HEAD": "node1:29500", "NODES": "2", "RANKS": "1", "LOGS": "/l", variable: number}
        assert checkout.run("nodes.sh", "hydra.run.dir=r", **environment)[0] == 0
        given = checkout.arguments(int(number) if variable == "SLURM_NODEID" else 0)
        assert given.rdzv_conf == f"read_timeout=600,is_host={is_host}"
        assert (given.rdzv_id, given.log_dir) == ("bigembed", f"/l/{os.uname().nodename}")


@pytest.mark.parametrize(
    ("name", "environment", "arguments", "says"),
    [
        ("node.sh", {"RANKS": "two"}, [], "RANKS is 'two': it is a number of processes, at least 1"),
        ("node.sh", {"RANKS": "0"}, [], "RANKS is '0': it is a number of processes, at least 1"),
        ("nodes.sh", {"HEAD": ""}, ["hydra.run.dir=r"], "HEAD is '': it names the node where all meet, as host:port"),
        ("nodes.sh", {"HEAD": "node1"}, ["hydra.run.dir=r"], "HEAD is 'node1': it names the node"),
        ("nodes.sh", {"NODES": "2-4"}, ["hydra.run.dir=r"], "NODES is '2-4': it is how many nodes there are"),
        ("nodes.sh", {}, ["x=1"], "several nodes need hydra.run.dir=DIR, a folder that all of them see"),
        ("slurm.sbatch", {}, [], "submit the job from the root of the checkout"),
    ],
)
def test_what_cannot_be_is_refused(
    checkout: Checkout, name: str, environment: dict[str, str], arguments: list[str], says: str
) -> None:
    code, out, err = checkout.run(
        name, *arguments, **{"HEAD": "node1:29500", "NODES": "2", "RANKS": "1", **environment}
    )
    assert (code, out) == (2, "")
    assert err.startswith("bigembed: ") and says in err and len(err.splitlines()) == 1
    assert not (checkout.home / "torchrun.0").exists()


def test_the_screen_shows_rank_0_and_files_hold_every_rank(checkout: Checkout) -> None:
    checkout.put_real_torchrun()
    process = checkout.start("node.sh", "x=1", RANKS="2", OMP_NUM_THREADS="1", LOGS="logs", SECONDS_TO_RUN="60")
    wait_until(lambda: all((checkout.home / f"rank{rank}").exists() for rank in range(2)), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out.splitlines() == [" rank 0 of 2 ['train', 'x=1']", " rank 0 saved"]
    assert " rank 0 warns\n" in err and "rank 1" not in out + err
    for rank in range(2):
        (folder,) = (checkout.work / "logs").glob(f"*/attempt_0/{rank}")
        assert (folder / "stdout.log").read_text() == f"rank {rank} of 2 ['train', 'x=1']\nrank {rank} saved\n"
        assert (folder / "stderr.log").read_text() == f"rank {rank} warns\n"


def test_two_nodes_find_each_other(checkout: Checkout) -> None:
    checkout.put_real_torchrun()
    where = {"HEAD": f"localhost:{free_port()}", "NODES": "2", "RANKS": "1", "OMP_NUM_THREADS": "1"}
    nodes = [
        checkout.start("nodes.sh", "hydra.run.dir=r", **where, NODE=str(node), LOGS=f"logs{node}", SECONDS_TO_RUN="0")
        for node in (1, 0)
    ]
    outputs = [node.communicate(timeout=60) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    given = "['train', 'hydra.run.dir=r', 'resume=auto']"
    assert sorted(out for out, _ in outputs) == [f" rank {rank} of 2 {given}\n" for rank in range(2)]


SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_PER_TASK": "16",
    "RANKS": "4",
}
STARTED = [
    "setup runtime",
    "scontrol show hostnames node[1-2]",
    "srun --kill-on-bad-exit=0 --cpus-per-task=16",
    *["setup runtime"] * 2,
]


def slurm_options() -> dict[str, str]:
    text = (LAUNCH / "slurm.sbatch").read_text()
    return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))


def test_slurm_starts_one_torchrun_a_node(checkout: Checkout) -> None:
    code, _, err = checkout.run("slurm.sbatch", "experiment=imdb", cwd=checkout.root, **SLURM)
    assert code == 0, err
    assert sorted(checkout.calls) == sorted(STARTED)
    for node, is_host in enumerate(("true", "false")):
        given = checkout.arguments(node)
        assert (given.nnodes, given.rdzv_endpoint, given.rdzv_id) == ("2", "node1:23456", "123456")
        assert (given.rdzv_conf, given.nproc_per_node) == (f"read_timeout=600,is_host={is_host}", "4")
        assert given.training_script_args == ["train", "hydra.run.dir=runs/123456", "experiment=imdb", "resume=auto"]
    options = slurm_options()
    assert len(options) == len(re.findall("^#SBATCH", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)) == 10
    assert options["ntasks-per-node"] == "1" and "requeue" in options
    seconds = re.fullmatch(r"B:USR1@(\d+)", options["signal"])
    assert seconds and int(seconds[1]) > int(checkout.variables()["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])


def test_slurm_tells_a_failure_and_does_not_repeat_it(checkout: Checkout) -> None:
    code, _, err = checkout.run("slurm.sbatch", cwd=checkout.root, **SLURM, STATUS="7")
    assert code == 7, err
    assert sorted(checkout.calls) == sorted(STARTED)


def running(checkout: Checkout) -> subprocess.Popen[str]:
    process = checkout.start("slurm.sbatch", cwd=checkout.root, **SLURM, SECONDS_TO_SAVE="0.5")
    wait_until(lambda: all((checkout.home / f"running.{node}").exists() for node in (0, 1)), process)
    return process


def saved(checkout: Checkout) -> list[bool]:
    return [(checkout.home / f"saved.{node}").exists() for node in (0, 1)]


def test_slurm_saves_and_requeues_when_the_time_is_nearly_up(checkout: Checkout) -> None:
    process = running(checkout)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert saved(checkout) == [True, True]
    assert checkout.calls[len(STARTED) :] == ["scancel --signal=TERM 123456", "scontrol requeue 123456"]


def test_a_cancelled_slurm_job_saves_and_is_not_requeued(checkout: Checkout) -> None:
    process = running(checkout)
    process.send_signal(signal.SIGTERM)  # Slurm sends it to the script and to the tasks
    for task in (checkout.home / "tasks").read_text().split():
        os.kill(int(task), signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert saved(checkout) == [True, True]
    assert sorted(checkout.calls) == sorted(STARTED)


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, Any]:
    documents = list(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))
    assert [one["kind"] for one in documents] == ["Service", "Job"]
    return {one["kind"]: one for one in documents}


def test_kubernetes_knows_every_field(kubernetes: dict[str, Any]) -> None:
    for one in kubernetes.values():
        kubernetes_validate.validate(one, "1.30", strict=True)
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    wrong = {**kubernetes["Job"], "spec": {**kubernetes["Job"]["spec"], "completion": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.30", strict=True)


def test_kubernetes_pods_find_the_first_by_name(kubernetes: dict[str, Any]) -> None:
    service, job = kubernetes["Service"], kubernetes["Job"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == int(environment["NODES"])
    assert environment["HEAD"].split(":")[0] == f"{kubernetes['Job']['metadata']['name']}-0.{pod['subdomain']}"
    assert service["metadata"]["name"] == pod["subdomain"]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"] == job["template"]["metadata"]["labels"]


def test_kubernetes_pods_may_save_and_come_back(kubernetes: dict[str, Any], checkout: Checkout) -> None:
    job = kubernetes["Job"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    command, script = container["command"]
    assert command == "bash" and (ROOT / script).is_file()
    code, _, err = checkout.run(
        Path(script).name, *container["args"], **environment, JOB_COMPLETION_INDEX="0", RANKS="8"
    )
    assert code == 0, err
    assert checkout.arguments().rdzv_conf.endswith("is_host=true")
    assert checkout.arguments().training_script_args == ["train", *container["args"], "resume=auto"]
    assert pod["terminationGracePeriodSeconds"] > int(checkout.variables()["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    assert pod["restartPolicy"] == "Never" and job["backoffLimit"] > job["completions"]
    assert job["podFailurePolicy"]["rules"][0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    assert "persistentVolumeClaim" in mounts["/shared"] and mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    (folder,) = [one for one in container["args"] if one.startswith("hydra.run.dir=")]
    assert folder.removeprefix("hydra.run.dir=").startswith("/shared/") and environment["LOGS"].startswith("/shared/")
