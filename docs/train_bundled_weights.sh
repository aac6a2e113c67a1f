#!/usr/bin/env bash
# Train the bundled weights again: surgery, six stages with two averages, evaluation. Hours on a CPU.
#
#     bash docs/train_bundled_weights.sh CCP U2NETP [flags of train.py ...]
#
# CCP     folder of Clothing Co-Parsing in iMaterialist format: train/ and train.csv
# U2NETP  the original U2NETP weights, u2netp.pth
# flags   for every stage, after its own; "--iter 2 --warmup 1" is a trial
#
# All of it goes to results/bundled/ (or the folder that OUT names, for a trial); nothing in trained_checkpoint/ is
# touched. The same command goes on after an interruption.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
ccp=$(realpath "$1") source=$(realpath "$2")
shift 2
more=("$@")
cd "$(dirname "$0")/.."
out=${OUT:-results/bundled}
# glibc gives every large block back to the system when it is freed, and PyTorch asks for it again in the next step.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000

# Photos whose number ends in 3 are held out.
mkdir -p "$out"
grep -E '^ImageId|^[0-9]*3\.' "$ccp/train.csv" > "$out/val.csv"
grep -vE '^[0-9]*3\.' "$ccp/train.csv" > "$out/train.csv"

stage() { # processes, name, size, initial weights, flags ...
  local processes=$1 name=$2 size=$3 initial=$4
  shift 4
  local go_on=--no-continue_train
  if [ -d "$out/$name" ]; then go_on=--continue_train; fi
  OMP_NUM_THREADS=${threads:-$((2 / processes))} python -m torch.distributed.run --standalone --nproc_per_node="$processes" train.py \
    --name "$name" --save_dir "$out" --logs_dir "$out/logs" "$go_on" --arch u2netp --device cpu --unet_checkpoint "$initial" \
    --image_folder "$ccp/train" --df_path "$out/train.csv" --val_df_path "$out/val.csv" \
    --fine_width "$size" --fine_height "$size" --nThreads 0 --lr 1e-3 --warmup 50 --amp bf16 --channels_last \
    --augment_flip 0.5 --augment_scale 0.2 --augment_rotate 10 --augment_shift 0.05 \
    --val_freq 200 --save_freq 200 --keep_checkpoints 1 "$@" ${more[@]+"${more[@]}"}
}

average() { # file to write, files ...
  local output=$1 IFS=,
  shift
  python setup_model_weights.py --average "$*" --output "$output"
}

python setup_model_weights.py --arch u2netp --source "$source" --output "$out/surgery.pth"

stage 1 1_crops 224 "$out/surgery.pth" --batchSize 8 --iter 2200 --lr_schedule cosine --ema 0.995 \
  --weight_decay 0.01 --augment_crop 0.65 --augment_color 0.3

stage 2 2_small 160 "$out/1_crops/checkpoints/best_u2netp.pth" --batchSize 8 --iter 560 --ema 0.995 \
  --weight_decay 0.05 --augment_crop 0.3 --augment_color 0.4 --augment_pair 0.2 --augment_portrait 0.25

stage 2 3_portraits 224 "$out"/2_small/checkpoints/itr_*.pth --batchSize 8 --iter 1000 --lr_schedule cosine \
  --ema 0.99 --weight_decay 0.05 --augment_crop 0.5 --augment_color 0.4 --augment_pair 0.15 --augment_portrait 0.3 \
  --save_freq 500 --keep_checkpoints 0

average "$out/mean.pth" "$out/1_crops/checkpoints/best_u2netp.pth" "$out"/3_portraits/checkpoints/itr_*.pth

# From here on against learning few photos, whose labels contradict one another, by heart: finer labels, other colours,
# blended photos.
python setup_model_weights.py --arch u2netp --labels garments --source "$out/mean.pth" --output "$out/garments.pth"

stage 1 4_garments 160 "$out/garments.pth" --labels garments --batchSize 8 --iter 1400 --lr_schedule cosine --ema 0.995 \
  --weight_decay 0.05 --augment_crop 0.3 --augment_color 0.4 --augment_pair 0.2 --augment_portrait 0.25 \
  --augment_recolor 0.5

python setup_model_weights.py --arch u2netp --source "$out"/4_garments/checkpoints/itr_*.pth --output "$out/classes.pth"
less_by_heart=(--weight_decay 0.05 --mixup 0.3 --augment_recolor 0.6 --augment_crop 0.3 --augment_color 0.4)
less_by_heart+=(--augment_pair 0.15 --augment_portrait 0.2)

stage 1 5_classes 192 "$out/classes.pth" --seed 3 --batchSize 8 --iter 1200 --lr_schedule cosine --ema 0.995 \
  "${less_by_heart[@]}"

# Two runs that differ by their seed, side by side.
trap wait EXIT  # one that is still saving must not meet its successor
runs=()
for seed in 4 5; do
  threads=1 stage 1 "6_large_$seed" 288 "$out"/5_classes/checkpoints/itr_*.pth --seed "$seed" --batchSize 8 --iter 760 \
    --warmup 30 --lr_schedule cosine --ema 0.99 "${less_by_heart[@]}" &
  runs+=($!)
done
for run in "${runs[@]}"; do wait "$run"; done

average "$out/cloth_segm_u2netp.pth" "$out"/5_classes/checkpoints/itr_*.pth "$out"/6_large_*/checkpoints/itr_*.pth

python evaluate.py --checkpoint "$out/cloth_segm_u2netp.pth" --image_folder "$ccp/train" --df_path "$out/val.csv" \
  --size 256 --record --gallery 6 --pictures "$out/evaluation" --json "$out/figures.json"
