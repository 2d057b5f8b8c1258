#!/usr/bin/env bash
# Measure a curve with one process per GPU, or with GPUS processes on a
# CPU-only machine; TOOL is jnd_curve or rate_curve:
#   tools/dist_curve.sh TOOL CONFIG CHECKPOINT GPUS --out OUT [flags of TOOL]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.

USAGE="usage: $0 TOOL CONFIG CHECKPOINT GPUS --out OUT [flags of TOOL]"
TOOL=${1:?$USAGE}
CONFIG=${2:?$USAGE}
CHECKPOINT=${3:?$USAGE}
GPUS=${4:?$USAGE}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
PORT=${PORT:-29500}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
TOOLS=$(dirname "$0")

PYTHONPATH="$TOOLS/..:$PYTHONPATH" \
exec python -m torch.distributed.run \
    --nnodes="$NNODES" \
    --node_rank="$NODE_RANK" \
    --master_addr="$MASTER_ADDR" \
    --nproc_per_node="$GPUS" \
    --master_port="$PORT" \
    "$TOOLS/analysis_tools/$TOOL.py" "$CONFIG" "$CHECKPOINT" \
    --launcher pytorch "${@:5}"
