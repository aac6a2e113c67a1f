#!/usr/bin/env bash
# Train the bundled weights again: pictures, a mean to start from, training, a mean, evaluation. Hours on a CPU.
#
#     bash recipe/train.sh SHARED STARTS [flags of train.py ...]
#
# SHARED    folder with ccp/, more/ and flat/, each with train/ and train.csv, and weights/u2netp.pth, the original
#           U2NETP weights
# STARTS    U2NETP weights for clothes, with commas; training begins with their mean
# flags     of the training, after its own; "--iter 2 --warmup 1" is a trial
#
# It needs scikit-image beside requirements.txt. All of it goes to results/bundled/ (or the folder that OUT names);
# nothing in trained_checkpoint/ is touched. The same command goes on after an interruption. PREPARE holds more flags of
# prepare.py, for trials.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
shared=$(realpath "$1") starts=()
for start in ${2//,/ }; do starts+=("$(realpath "$start")"); done
shift 2
more=("$@")
cd "$(dirname "$0")/.."
out=${OUT:-results/bundled}
mkdir -p "$out"
# glibc gives every large block back to the system when it is freed, and PyTorch asks for it again in the next step.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000 OMP_NUM_THREADS=1

if [ ! -e "$out/data/done" ]; then
  python recipe/prepare.py --ccp "$shared/ccp" --more "$shared/more" --flat "$shared/flat" \
    --salient "$shared/weights/u2netp.pth" --output "$out/data" ${PREPARE:-}
  touch "$out/data/done"
fi

average() { # file to write, files ...
  local output=$1 IFS=,
  shift
  if [ $# -eq 1 ]; then cp "$1" "$output"; else python setup_model_weights.py --average "$*" --output "$output"; fi
}

if [ ! -e "$out/start.pth" ]; then average "$out/start.pth" "${starts[@]}"; fi

go_on=--no-continue_train
if [ -d "$out/trained" ]; then go_on=--continue_train; fi
python train.py --name trained --save_dir "$out" --logs_dir "$out/logs" "$go_on" --arch u2netp --device cpu --seed 1 \
  --unet_checkpoint "$out/start.pth" --image_folder "$out/data" --df_path "$out/data/train.csv" \
  --val_df_path "$out/data/val_ccp.csv" --fine_width 192 --fine_height 192 --nThreads 0 --batchSize 16 --iter 900 \
  --amp bf16 --channels_last --lr 1.5e-4 --lr_schedule cosine --warmup 30 --ema 0.99 --weight_decay 0.01 \
  --augment_flip 0.5 --augment_scale 0.2 --augment_rotate 8 --augment_shift 0.06 --augment_color 0.3 \
  --augment_pair 0.1 --augment_portrait 0.15 --augment_crop 0.25 --augment_recolor 0.25 \
  --val_freq 200 --save_freq 100 --keep_checkpoints 1 ${more[@]+"${more[@]}"}

# What was learned counts twice as much as the start, which knows streets better.
end=("$out"/trained/checkpoints/itr_*.pth)
average "$out/cloth_segm_u2netp.pth" "$out/start.pth" "${end[0]}" "${end[0]}"
python evaluate.py --checkpoint "$out/cloth_segm_u2netp.pth" --image_folder "$out/data" \
  --df_path "$out/data/val_ccp.csv" --size 192 --record --gallery 6 --pictures "$out/evaluation" \
  --json "$out/figures_ccp.json"
python evaluate.py --checkpoint "$out/cloth_segm_u2netp.pth" --image_folder "$out/data" \
  --df_path "$out/data/val_flat.csv" --json "$out/figures_flat.json"
