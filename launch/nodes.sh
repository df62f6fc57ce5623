#!/usr/bin/env bash
# The same command on every node of several, in any order, within ten minutes:
#     HEAD=node1:29500 NODES=2 bash launch/nodes.sh hydra.run.dir=DIR [overrides]
#
#   HEAD=host:port   where all meet: one of the nodes, by a name that the others know, and a free port there
#   NODES=N          how many nodes; or MIN:MAX, then the run goes on with fewer when some are lost, and with more again
#   RUN_ID=NAME      a name for this start, the same on every node; else bigembed
#   NODE=I           this node's number, 0 at HEAD; else Slurm's or Kubernetes', else HEAD is compared with its names
#   and RANKS, RESTARTS and LOGS as in node.sh; in LOGS (else logs/RUN_ID) each node has a folder by its name
#
# DIR lies on storage that all nodes share. Where a run is in it already, that run goes on.
set -euo pipefail

die() {
    printf 'bigembed: %s\n' "$*" >&2
    exit 2
}

[[ ${HEAD:-} =~ ^.+:[0-9]+$ ]] || die "HEAD is '${HEAD:-}': it names the node where all meet, as host:port"
[[ ${NODES:-} =~ ^[1-9][0-9]*(:[1-9][0-9]*)?$ ]] || die "NODES is '${NODES:-}': it is how many nodes there are, N or MIN:MAX"
[[ " $* " == *" hydra.run.dir="* ]] || die "several nodes need hydra.run.dir=DIR, a folder that all of them see"

run=${RUN_ID:-bigembed}
node=${NODE:-${SLURM_NODEID:-${JOB_COMPLETION_INDEX:-}}}
meeting=read_timeout=600 # seconds until the nodes give up looking for HEAD; torchrun's own 60 are few where images load
# Said, not guessed: in a pod the node's own name may not be known yet, and then none would take itself for HEAD.
[[ -z $node ]] || meeting+=,is_host=$([[ $node == 0 ]] && echo true || echo false)
rendezvous=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "$HEAD" --rdzv-id "$run" --rdzv-conf "$meeting")
logs=${LOGS:-logs/$run}/$HOSTNAME

# resume=auto, because torchrun counts restarts per node: where another node's rank failed, this one's count stays 0.
set -- "$@" resume=auto
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source-path=SCRIPTDIR source=node.sh
source "$here/node.sh"
