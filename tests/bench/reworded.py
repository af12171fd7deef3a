#!/usr/bin/env python3
"""reworded.py: downstream tasks asked in other words, to see whether a model reads labels or knows them.

    tests/bench/reworded.py DOWNSTREAM OUT      then: build/mp2 eval --tasks OUT --methods average,route …

The rows are those of DOWNSTREAM (shared/data/downstream). In the names, `_other` has words that the embedded model's
training asks with too (conf/pretrain/wordings.py) in a question that it does not, `_unseen` words and questions that it
never met.
"""
import json
import pathlib
import sys

# name: (task, the words of its labels in their order, the question)
REWORDED = {
    "chnsenticorp_other": ("chnsenticorp", "差评 好评", '酒店点评："{text}"，这一条算什么？选项：'),
    "chnsenticorp_unseen": ("chnsenticorp", "糟心 舒心", '客人说："{text}"他住得怎样？选项：'),
    "smp_ewect_virus_other": ("smp_ewect_virus", "平静 高兴 生气 难过 害怕 惊讶", '有人发了"{text}"，此刻他是什么心情？选项：'),
    "smp_ewect_virus_unseen": ("smp_ewect_virus", "无感 愉悦 暴怒 哀伤 惊恐 诧异", '有人发了"{text}"，此刻他是什么心情？选项：'),
    "lcqmc_other": ("lcqmc", "不同 相同", '甲问"{text_a}"，乙问"{text_b}"，两人的问题相同吗？选项：'),
    "lcqmc_unseen": ("lcqmc", "两码事 一回事", '甲问"{text_a}"，乙问"{text_b}"，他们在问什么？选项：'),
    "ocnli_other": ("ocnli", "错误 不确定 正确", '听说"{text_a}"。有人便讲"{text_b}"，他讲得对吗？选项：'),
    "tnews_other": ("tnews", "楼市 汽车 银行 运动 艺术 明星 学校 数码 武器 旅行 国际 农村 股市 玩家 故事",
                    '编辑收到一条"{text}"，该发到哪一版？选项：'),
    "tnews_unseen": ("tnews", "地产 车辆 钱财 竞技 诗书 艺人 校园 智能 兵器 度假 外国 乡村 大盘 电玩 传说",
                     '编辑收到一条"{text}"，该发到哪一版？选项：'),
}


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    data, out = map(pathlib.Path, sys.argv[1:])
    for name, (task, words, template) in REWORDED.items():
        description = json.loads((data / task / "task.json").read_text(encoding="utf-8"))
        word_of = dict(zip(description["labels"], words.split(), strict=True))
        (out / name).mkdir(parents=True)
        description.update(name=name, labels=list(word_of.values()), template=template)
        (out / name / "task.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
        for part in ("train", "dev", "test"):
            rows = [json.loads(row) for row in (data / task / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
            text = "".join(json.dumps(row | {"label": word_of[row["label"]]}, ensure_ascii=False) + "\n" for row in rows)
            (out / name / f"{part}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
