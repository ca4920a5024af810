#!/usr/bin/env bash
# Execute sessions on a GPU machine without internet, whose Python has torch and torchvision (and what Colab has besides:
# matplotlib, scikit-learn, safetensors, tqdm, psutil, pyyaml).
#
#   ./offline.sh pack 3.12 ARCHIVE...    here: wheels for that Python, and the data sets as archives, into .offline/
#   ./offline.sh run JOBS OUT            there: each line of the file JOBS is what follows `course run`, such as
#                                        s06 --seed 3; OUT/runs.tar.gz gets the notebooks that are done
#
# Back here, unpack runs.tar.gz in the course and call `course publish runs/full/SESSION/*.ipynb`. What was cut off goes
# on from its checkpoints when it is called again there.
set -euo pipefail
cd "$(dirname "$0")"

# What papermill and a kernel need, and what the sessions need besides, each in the version of requirements.lock.
PACKAGES="papermill nbclient nbformat ipykernel ipython ipython-pygments-lexers jupyter-client jupyter-core traitlets
    jsonschema jsonschema-specifications referencing rpds-py fastjsonschema attrs pyzmq tornado comm debugpy
    matplotlib-inline jedi parso prompt-toolkit wcwidth stack-data executing asttokens pure-eval pexpect ptyprocess
    platformdirs nest-asyncio2 entrypoints tenacity click requests urllib3 idna certifi charset-normalizer
    python-dateutil six pygments pooch torchsummary"

pack() {
    local python=$1 package platforms=()
    shift
    for glibc in 2_17 2_28 2_34; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
    mkdir -p .offline/wheels .offline/data
    rm -f .offline/wheels/*
    for package in $PACKAGES; do grep -m1 -o "^$package==[^ ]*" requirements.lock; done > .offline/packages.txt
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "$python" --implementation cp \
        "${platforms[@]}" --platform manylinux2014_x86_64 --requirement .offline/packages.txt --dest .offline/wheels
    [ $# -eq 0 ] || cp "$@" .offline/data
    du -sh .offline
}

run() {
    local jobs=$1 out=$2
    export COURSE_DATA=$PWD/.offline/unpacked PYTHONPATH=$PWD/.offline/site OMP_NUM_THREADS=1
    mkdir -p "$out"
    if [ ! -f .offline/ready ]; then
        rm -rf .offline/site .offline/unpacked
        python3 -m pip install --quiet --no-index --no-deps --no-compile --target .offline/site .offline/wheels/*
        mkdir -p .offline/unpacked
        for archive in .offline/data/*; do
            [ -e "$archive" ] || continue
            case $archive in
                */cifar-10-python.tar.gz) cp "$archive" .offline/unpacked ;; # the course unpacks and checks it itself
                *) tar -xf "$archive" -C .offline/unpacked ;;
            esac
        done
        touch .offline/ready
    fi
    # The networks are small: several at a time share a GPU well.
    local code=0
    xargs -a "$jobs" -d '\n' -P 8 -I{} sh -c 'python3 -m course run {} || { echo "FAILED: {}"; exit 1; }' 2>&1 |
        tee "$out/log.txt" || code=$?
    # Large weights stay there: they are not committed, and `course publish` does not ask for them (MAX_WEIGHTS).
    find runs/full -name '*.ipynb' -o -name '*.safetensors' -size -6000001c | tar -czf "$out/runs.tar.gz" -T -
    return $code
}

"$@"
