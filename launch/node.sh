#!/usr/bin/env bash
# bash launch/node.sh [overrides]: sets up what is missing and trains on all GPUs of this machine.
#
#   RANKS=N      how many processes, instead of one for each GPU (without a GPU, one): they meet over gloo on CPUs
#   RESTARTS=3   how often all ranks are started again after one has failed; the run goes on from its last checkpoint
#   LOGS=DIR     torchrun makes a folder in it with what every rank printed; else logs/DATE/TIME
#
# The screen shows what rank 0 prints. It stays in the caller's folder, like train.sh; nodes.sh reads this file.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
bash "$here/setup.sh" runtime
bin=$here/../.venv/bin

ranks=${RANKS:-$("$bin/python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
if [[ ! $ranks =~ ^[1-9][0-9]*$ ]]; then
    printf "bigembed: RANKS is '%s': it is a number of processes, at least 1\n" "$ranks" >&2
    exit 2
fi

# Arrow, OpenMP and numpy's BLAS read this number when they load; torchrun would give every rank a 1.
if [[ -z ${OMP_NUM_THREADS:-} ]]; then
    cores=$("$bin/python" -c 'from bigembed.cores import available_cores; print(available_cores())')
    export OMP_NUM_THREADS=$((cores > ranks ? cores / ranks : 1))
fi

# How long torchrun (2.12 and later; before, 30 s) lets the ranks save after SIGTERM or Ctrl-C before it kills them.
# Whatever sends the signal must wait longer: slurm.sbatch and kubernetes.yaml wait 300 s.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240}
export TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE=${TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE:-' '} # instead of [default0]:
export PYTHONUNBUFFERED=1 # else torchrun holds rank 0's lines back where the screen is a file or a pipe

# Only where the ranks cannot reach each other, or take a slow network: the name of the interface (ip -brief address).
# export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0

[[ -v rendezvous ]] || rendezvous=(--standalone) # nodes.sh has set it
logs=${logs:-${LOGS:-logs/$(date +%Y-%m-%d/%H-%M-%S)}}
printf 'bigembed: %s ranks here, %s threads each; what each prints is in %s\n' "$ranks" "$OMP_NUM_THREADS" "$logs" >&2
# Both streams of all ranks go to files, rank 0's to the screen too: redirects alone would show nothing.
exec "$bin/torchrun" "${rendezvous[@]}" --nproc-per-node "$ranks" --max-restarts "${RESTARTS:-3}" \
    --log-dir "$logs" --redirects 3 --tee 0:3 -m bigembed train "$@"
