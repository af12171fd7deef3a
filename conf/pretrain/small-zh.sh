#!/bin/bash
# small-zh.sh: trains the embedded model anew.
#
#   conf/pretrain/small-zh.sh DATA OUT     four and a half hours on two cores; needs build/mp2, Python 3 and 1 GiB of disk
#
# DATA is the data beside the project (../shared/data). OUT gets the texts and tasks (data), the backbone after
# masked characters (masked), backbone and bank after the tasks (joint), after more of them (longer) and after the same
# asked in many words (words, again; their mean), the model directory (small-zh), and in it the tied bank.
# What is there already is not made again; a training that was stopped goes on.
set -eu
data=$1 out=$2
top=$(cd "$(dirname "$0")/../.." && pwd)
mp2=$top/build/mp2
mkdir -p "$out"

[ -d "$out/data/tasks" ] || "$top/conf/pretrain/prepare.py" "$data" "$out/data"

# train OUT COMMAND...: a model directory or a bank, unless it is done; a run leaves no checkpoint when it ends
train() {
    local to=$1 result=$1/model.safetensors checkpoint=$1/checkpoint.bin resume=
    case $to in *.bank.safetensors) result=$to checkpoint=${to%.bank.safetensors}.checkpoint ;; esac
    shift
    [ -e "$checkpoint" ] && resume=--resume
    if [ -n "$resume" ] || [ ! -e "$result" ]; then
        "$mp2" pretrain "$@" $resume --out "$to"
    fi
}

train "$out/masked" backbone "$out/data/pairs.txt" --vocab "$top/tests/models/boot/vocab.txt" \
    --layers 3 --hidden 128 --heads 4 --ffn 512 --positions 512 --batch-tokens 2048 --max-len 256 \
    --lr 1.5e-3 --warmup 200 --dropout 0 --mask 0.25 --steps 12000

# Of all runs over tasks, and of those that train the backbone too.
bank=(--prompt-offset 1 --modules 8 --prompt-tokens 16 --intrinsic 64 --text-limit 320 --neutral 3 --batch 16)
joint=("${bank[@]}" --train joint --mlm-weight 0.2 --mlm-tokens 512 --dev-every 2000 --dev-rows 40)

train "$out/joint" prompts "$out/data/tasks" "${joint[@]}" --text "$out/data/text.txt" --model "$out/masked" \
    --lr-backbone 4e-4 --lr 2e-3 --lr-route 3e-2 --warmup 200 --steps 56000 \
    --first online_shopping,waimai,weibo_sentiment,thucnews,smp_ewect,cold,csl_discipline --first-steps 3500

# Goes on from there with more tasks, and more often with those that short texts make cheap and that are far from
# what the same examples can teach.
train "$out/longer" prompts "$out/data/tasks" "$out/data/more" "${joint[@]}" --text "$out/data/text.txt" \
    --model "$out/joint" --bank "$out/joint/shallow.bank.safetensors" --neutral-labels 6 \
    --lr-backbone 3e-4 --lr 1e-3 --lr-route 2e-2 --warmup 500 --steps 50000 \
    --weights smp_ewect=4,thucnews=4,which_topic=4,reviews=3,which_word=3,cmnli=3,cmrc2018=3,dureader_robust=3,online_shopping=2,domain_cls=2,csl_discipline=2,csnli=2,xnli_zh=2,what_is_missing=2,which_is_said=2

# The same rows asked in many words, in turn with the rest; more text beside them. From here on with the positions
# that are kept: few texts reached those behind, and what does not fit is cut rather than read badly.
[ -d "$out/cut" ] || "$mp2" convert model "$out/longer" "$out/cut" --dtype F16 --positions 352

words() {
    local to=$1 from=$2
    shift 2
    train "$out/$to" prompts "$out/data/tasks" "$out/data/more" "$out/data/wider" "${joint[@]}" --text "$out/data/wider.txt" \
        --neutral-labels 6 --model "$out/$from" --bank "$out/$from/shallow.bank.safetensors" --lr 1e-3 --lr-route 2e-2 "$@"
}
words words cut --lr-backbone 2.5e-4 --warmup 500 --steps 24000 \
    --weights which_subject=9,which_feeling=9,which_meaning=9,which_theme=4,smp_ewect=2,thucnews=2,which_topic=2,which_word=2,cmnli=2,bq=2,afqmc=2,chip_sts=2,cmrc2018=3,dureader_robust=2,csnli=2,xnli_zh=2,what_is_missing=2,which_is_said=2,online_shopping=2,reviews=2
words again words --lr-backbone 2e-4 --warmup 200 --steps 14000 \
    --weights which_subject=6,which_feeling=8,which_meaning=12,which_theme=2,smp_ewect=6,online_shopping=4,waimai=3,reviews=4,bq=3,afqmc=3,chip_sts=3,cmrc2018=3,thucnews=2,cmnli=2,csnli=2,xnli_zh=2,dureader_robust=2,what_is_missing=2,which_is_said=2,alike_45=2

[ -d "$out/mean" ] || "$top/conf/pretrain/mean.py" "$out/mean" "$out/words" "$out/again" "$out/again/last"
# Of a context of extractive tasks it reads 120 tokens best, by the upstream tasks' test rows.
[ -d "$out/small-zh" ] || "$mp2" convert model "$out/mean" "$out/small-zh" --dtype F16 --context-tokens 120

# The frozen backbone's deep bank, one route across its layers; it starts as the shallow one.
train "$out/tied.bank.safetensors" prompts "$out/data/tasks" "$out/data/more" "$out/data/wider" "${bank[@]}" --neutral-labels 6 --deep --tied \
    --model "$out/small-zh" --bank "$out/small-zh/shallow.bank.safetensors" --lr 1e-3 --lr-route 1e-2 \
    --warmup 300 --steps 6000 --dev-every 1500 --dev-rows 40

[ -e "$out/small-zh/tied.bank.safetensors" ] ||
    "$mp2" convert bank "$out/tied.bank.safetensors" "$out/small-zh/tied.bank.safetensors" --dtype F16 --context-tokens 120
