"""The batch on a real Slurm: a controller and two nodes on this machine, a job killed in flight, a node lost."""

import contextlib
import os
import shutil
import socket
import subprocess
from importlib.util import find_spec

import psutil
import pytest
from test_batch import results, wait_for

MISSING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
if not find_spec("snakemake_executor_plugin_slurm"):
    MISSING.append("snakemake-executor-plugin-slurm")
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may start Slurm's daemons"),
]

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdTimeout=5
KillWait=5
ReturnToService=0
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES
"""

HOLD = "import os, time\nprint('the run is held')\nwhile os.path.exists('hold'):\n    time.sleep(0.1)\naccuracy = 0.9"


class Cluster:
    """A controller and the nodes n1 and n2, as processes that all have this cluster's SLURM_CONF."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("munge", "state", "spool-n1", "spool-n2"):
            (folder / name).mkdir(mode=0o700, parents=True)
        self.conf = folder / "slurm.conf"
        self.conf.write_text(CONFIG.format(host=socket.gethostname().split(".")[0], folder=folder, ports=free_ports(3)))
        self.environment = {"SLURM_CONF": str(self.conf)}

    def start(self):
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o600)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.daemon(
            "munged", "--force", "--foreground", *(f"--{option}={munge / name}" for option, name in files.items())
        )
        wait_for((munge / "socket").exists)
        self.daemon("slurmctld", "-D")
        for node in ("n1", "n2"):
            self.daemon("slurmd", "-D", "-N", node, SLURMD_NODENAME=node)  # as Slurm tells it to the node's jobs
        wait_for(lambda: self.ask("sinfo", "--noheader", "--format=%T %D") == "idle 2")

    def daemon(self, *command, **environment):
        with open(self.folder / "daemons.log", "a") as log:
            environment = {**os.environ, **self.environment, **environment}
            subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def ask(self, *command):
        """What one of Slurm's commands prints."""
        process = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True)
        return process.stdout.strip()

    def kill(self, **environment):
        """Kill every process of the cluster whose environment has these variables."""
        environment |= self.environment
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if environment.items() <= process.environ().items():
                    process.kill()


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path / "slurm")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def test_jobs_outlive_a_kill_and_a_lost_node(own_course, cluster, monkeypatch):
    """The quick course and two runs that are held: one of them is cancelled, the other one's node dies."""
    for name in ("s91_held", "s92_held"):
        own_course.add_session(name, HOLD)
    (own_course.root / "hold").touch()
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    intervals = ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"]
    batch = own_course.start_batch(
        "--workflow-profile", "slurm", "quick", "--slurm-status-command", "squeue", *intervals
    )
    wait_for(lambda: len(held(own_course)) == 2, seconds=900)
    jobs = dict(
        line.split() for line in cluster.ask("squeue", "--noheader", "--format=%N %A", "--state=R").splitlines()
    )
    assert set(jobs) == {"n1", "n2"}
    cluster.ask("scancel", jobs["n1"])
    cluster.kill(SLURMD_NODENAME="n2")
    (own_course.root / "hold").unlink()
    output, _ = batch.communicate(timeout=1800)
    assert batch.returncode == 0, output
    sessions = [path.parent.name for path in own_course.root.glob("sessions/*/session.ipynb")]
    assert len(results(own_course)) == len(sessions)
    for session in sessions:
        assert (own_course.root / "runs" / "quick" / session / "README.md").exists()
    assert "Trying to restart job" in output  # the one that was cancelled
    assert "n2 down" in cluster.ask("sinfo", "--noheader", "--format=%N %T")


def held(course):
    """The held runs that have begun."""
    return [path for path in course.root.glob("logs/quick/*_held/*.log") if "the run is held" in path.read_text()]
