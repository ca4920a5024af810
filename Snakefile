"""The batch: every run of every session is a job; one that is done is not done again unless what decides it changed.

    snakemake --cores 2 quick      # each session once, on embedded digits
    snakemake --cores 2 full       # all variants and seeds, on the real data
"""

from common import notebooks

SESSIONS = [path.parent.name for path in notebooks.sessions()]


def runs(session):
    """The runs of a session's full profile, as VARIANT-seed-K."""
    source = notebooks.read_notebook(f"sessions/{session}/session.ipynb")
    return [f"{variant}-seed-{seed}" for variant, seed in notebooks.runs(source)]


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
    params:
        digest=lambda wildcards: notebooks.run_digest(wildcards.session, wildcards.profile),
    threads: 1
    shell:
        "OMP_NUM_THREADS={threads} course run {wildcards.session} --profile {wildcards.profile}"
        " -p variant {wildcards.variant} --seed {wildcards.seed}"


rule publish_quick:
    input:
        "sessions/{session}/session.ipynb",
        "common/readme.md.j2",
        run=lambda wildcards: f"runs/quick/{wildcards.session}/{runs(wildcards.session)[0]}.ipynb",
    output:
        "runs/quick/{session}/README.md",
    shell:
        "course publish {input.run} --to runs/quick/{wildcards.session}"
