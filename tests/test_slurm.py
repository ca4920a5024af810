"""The batch on a real Slurm: a controller and two nodes on this machine, a job killed in flight, a node lost."""

import contextlib
import os
import shutil
import socket
import subprocess
from fnmatch import fnmatch
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
    """A controller and the nodes n1 and n2. All their processes, jobs included, have a SLURM_CONF in this folder.

    A node has a copy of the file to itself: that tells its processes from those of the others.
    """

    def __init__(self, folder):
        self.folder = folder
        for name in ("munge", "state", "spool-n1", "spool-n2"):
            (folder / name).mkdir(mode=0o700, parents=True)
        config = CONFIG.format(host=socket.gethostname().split(".")[0], folder=folder, ports=free_ports(3))
        for name in ("slurm.conf", "n1.conf", "n2.conf"):
            (folder / name).write_text(config)

    def start(self):
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o600)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={munge / name}" for option, name in files.items()]
        self.daemon("slurm.conf", "munged", "--force", "--foreground", *options)
        wait_for((munge / "socket").exists)
        self.daemon("slurm.conf", "slurmctld", "-D")
        for node in ("n1", "n2"):
            self.daemon(f"{node}.conf", "slurmd", "-D", "-N", node)
        wait_for(lambda: self.ask("sinfo", "--noheader", "--format=%T %D") == "idle 2")

    def environment(self, config="slurm.conf"):
        return {**os.environ, "SLURM_CONF": str(self.folder / config)}

    def daemon(self, config, *command):
        with open(self.folder / "daemons.log", "a") as log:
            subprocess.Popen(command, env=self.environment(config), stdout=log, stderr=log, start_new_session=True)

    def ask(self, *command):
        """What one of Slurm's commands prints."""
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True).stdout.strip()

    def kill(self, config="*.conf"):
        """Kill the processes with this SLURM_CONF; all are stopped first, so that none can report another's end."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if fnmatch(process.environ().get("SLURM_CONF", ""), str(self.folder / config)):
                    # slurmstepd, the parent of a job's processes, hides its environment
                    found += [process, *(parent for parent in process.parents() if parent.name() == "slurmstepd")]
        for action in (psutil.Process.suspend, psutil.Process.kill):
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    action(process)


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


def test_jobs_survive_a_kill_and_a_lost_node(own_course, cluster, monkeypatch):
    """The quick course and two held runs: one is cancelled, the node of the other dies."""
    for name in ("s91_held", "s92_held"):
        own_course.add_session(name, HOLD)
    (own_course.root / "hold").touch()
    monkeypatch.setenv("SLURM_CONF", cluster.environment()["SLURM_CONF"])
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
    cluster.kill("n2.conf")
    (own_course.root / "hold").unlink()
    output, _ = batch.communicate(timeout=1800)
    assert batch.returncode == 0, output
    sessions = [path.parent.name for path in own_course.root.glob("sessions/*/session.ipynb")]
    assert len(results(own_course)) == len(sessions)
    for session in sessions:
        assert (own_course.root / "runs" / "quick" / session / "README.md").exists()
    assert "Trying to restart job" in output  # the one that was cancelled
    assert f"Requeuing JobId={jobs['n2']}" in (cluster.folder / "daemons.log").read_text()


def held(course):
    """The held runs that have begun."""
    return [path for path in course.root.glob("logs/quick/*_held/*.log") if "the run is held" in path.read_text()]
