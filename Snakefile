"""The batch: every run of every session is a job; one that is done is not done again unless what decides it changed.

    snakemake --cores 2 quick                    # each session once, on embedded digits; --config seeds=2 for more
    snakemake --cores 2 full                     # all variants and seeds, on the real data
    snakemake --workflow-profile slurm full      # the same on a cluster

The options that hold for every call, such as the retry of a job that failed, are in profiles/.
"""

import fcntl
import shutil
import sys
from pathlib import Path

from course.progress import show_progress
from course.sessions import all_sessions

SESSIONS = {session.name: session for session in all_sessions()}

# A second batch waits for the first. The lock lets go by itself when a batch is killed.
if workflow.is_main_process and not workflow.output_settings.dryrun:
    Path("runs").mkdir(exist_ok=True)
    lock = open("runs/.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another batch is running here: waiting until it ends.", file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)
    show_progress()


def runs(session):
    """The runs of a session's full profile, as VARIANT-seed-K."""
    return [f"{variant}-seed-{seed}" for variant, seed in SESSIONS[session].runs()]


def quick_runs(session):
    """The runs of a session's quick profile, with as many seeds as the config says."""
    variant = SESSIONS[session].quick.get("variant", SESSIONS[session].runs()[0][0])
    return [f"{variant}-seed-{seed}" for seed in range(config.get("seeds", 1))]


localrules: publish_quick,  # a few seconds


rule quick:
    input:
        expand("runs/quick/{session}/README.md", session=SESSIONS),


rule full:
    input:
        [f"runs/full/{session}/{run}.ipynb" for session in SESSIONS for run in runs(session)],


# A notebook's age does not matter (ancient), only the code and the parameters that decide its result (digest).
rule execute:
    input:
        ancient("sessions/{session}/session.ipynb"),
    output:
        "runs/{profile}/{session}/{variant}-seed-{seed}.ipynb",
        "runs/{profile}/{session}/{variant}-seed-{seed}.safetensors",
    log:
        "logs/{profile}/{session}/{variant}-seed-{seed}.error",
    params:
        digest=lambda run: SESSIONS[run.session].digest(run.profile, run.variant, run.seed),
    threads: lambda run: 1 if run.profile == "quick" else SESSIONS[run.session].threads
    resources:
        gpu=1 if shutil.which("nvidia-smi") else 0,
    shell:
        "OMP_NUM_THREADS={threads} course run {wildcards.session} --profile {wildcards.profile}"
        " -p variant {wildcards.variant} --seed {wildcards.seed} 2> {log}"


rule publish_quick:
    input:
        "sessions/{session}/session.ipynb",
        "course/readme.md.j2",
        runs=lambda wildcards: expand("runs/quick/{{session}}/{run}.ipynb", run=quick_runs(wildcards.session)),
    output:
        "runs/quick/{session}/README.md",
    log:
        "logs/quick/{session}/publish.error",
    shell:
        "course publish {input.runs} --to runs/quick/{wildcards.session} 2> {log}"


onerror:
    for job in workflow.scheduler.failed:
        reason = Path(job.log[0]).read_text().strip() if Path(job.log[0]).exists() else ""
        print(f"FAILED {job.output[0]}: {reason or 'no reason was left, see above.'}", file=sys.stderr)
