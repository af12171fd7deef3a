#!/usr/bin/env python3
"""prepare.py: the texts and tasks that the embedded model is trained on, from the data beside the project.

    conf/pretrain/prepare.py DATA OUT

DATA has corpus/*.txt and upstream/<task>/ (shared/data). Writes

    OUT/text.txt     the corpora named below, shuffled: a paragraph a line
    OUT/pairs.txt    the same, and as many lines again where a sentence comes twice, the second time changed a
                     little and often behind other words: a masked character can be found by looking into the other
    OUT/tasks/       the upstream tasks named below as they are; reading comprehension cut to windows that hold
                     the answer; and tasks made from text alone: same_text (pair), which_holds (choice),
                     what_is_missing (extractive), cmrc_choice (choice)

Same data, same bytes. Nothing of it is part of the project; the model card names sources and licences.
"""
import json
import pathlib
import random
import re
import shutil
import sys

CORPORA = ("medical", "recipes", "classics_modern_translation", "dialogue", "clue_corpus_sample")
TASKS = ("online_shopping", "waimai", "weibo_sentiment", "smp_ewect", "cold", "cmos", "thucnews", "domain_cls",
         "csl_discipline", "afqmc", "bq", "chip_sts", "qbqtc", "cmnli", "csnli", "cinlid", "xnli_zh", "xiehouyu",
         "cluener_span", "msra_span")
READING = {"cmrc2018": 4, "dureader_robust": 6}  # windows of a training row
SENTENCE_END = re.compile(r"(?<=[。！？；!?;])")
CLAUSE = re.compile(r"[^，。！？；：、,.!?;:\s]+")
FILLERS = "的了是吗呢就都也很"
DEV = 1000


def is_chinese(text):
    return sum("一" <= c <= "鿿" for c in text) >= 0.8 * len(text)


def changed_a_little(text, rng):
    """About every sixth character: left out, moved, or a particle put in."""
    chars = list(text)
    for _ in range(rng.randrange(0, max(2, len(chars) // 6))):
        kind, i = rng.randrange(3), rng.randrange(len(chars))
        if kind == 0 and len(chars) > 5:
            del chars[i]
        elif kind == 1:
            n, to = rng.randrange(1, 4), rng.randrange(len(chars))
            moved = chars[i:i + n]
            del chars[i:i + n]
            chars[to:to] = moved
        else:
            chars.insert(i, rng.choice(FILLERS))
    return "".join(chars)


# ---- text -------------------------------------------------------------------------------------------


def read_text(data):
    lines = []
    for name in CORPORA:
        text = (data / "corpus" / f"{name}.txt").read_text(encoding="utf-8")
        lines += [line.strip() for line in text.splitlines() if line.strip()]
    return lines


def sentences_of(lines):
    """Per line its sentences of 8 to 45 characters."""
    for line in lines:
        found = [s.strip() for s in SENTENCE_END.split(line) if 8 <= len(s.strip()) <= 45]
        if found:
            yield found


def pair_lines(lines, rng):
    found = [s for group in sentences_of(lines) for s in group]
    rng.shuffle(found)
    found = found[:2 * len(lines)]
    for sentence in found:
        between = rng.choice(found)[:rng.randrange(30)] if rng.random() < 0.6 else ""
        two = [sentence, changed_a_little(sentence, rng)]
        rng.shuffle(two)
        yield two[0] + between + two[1]


# ---- tasks ------------------------------------------------------------------------------------------


def write_task(out, name, kind, template, parts, rng, labels=()):
    folder = out / "tasks" / name
    folder.mkdir(parents=True)
    task = {"name": name, "type": kind, "labels": list(labels), "template": template}
    (folder / "task.json").write_text(json.dumps(task, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for part, rows in parts.items():
        rng.shuffle(rows)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{part}.jsonl").write_text(text, encoding="utf-8")
    print(name, {part: len(rows) for part, rows in parts.items()})


def in_parts(rows):
    return {"dev": rows[:DEV], "test": rows[DEV:2 * DEV], "train": rows[2 * DEV:]}


def window(row, rng):
    """60 to 95 characters around the answer, wherever in them; None where it does not fit."""
    context, answer, at = row["context"], row["answer"], row["answer_start"]
    if len(answer) > 24 or len(row["question"]) > 40 or context[at:at + len(answer)] != answer:
        return None
    n = rng.randrange(60, 96)
    low, high = max(0, at + len(answer) - n), min(at, max(0, len(context) - n))
    start = rng.randrange(low, max(low, high) + 1)
    return {"context": context[start:start + n], "question": row["question"], "answer": answer,
            "answer_start": at - start}


def as_choice(row, rows, rng):
    """The answer among two spans of its context and answers to other questions."""
    context, answer = row["context"], row["answer"]
    options = [answer]
    for _ in range(2):
        i = rng.randrange(max(1, len(context) - len(answer)))
        span = context[i:i + len(answer)].strip("，。、；： ")
        if span and span not in options:
            options.append(span)
    while len(options) < 4:
        other = rng.choice(rows)["answer"]
        if other not in options:
            options.append(other)
    rng.shuffle(options)
    return {"context": context, "question": row["question"], "options": options, "label": options.index(answer)}


def reading(data, out, rng):
    for name, windows in READING.items():
        parts = {}
        for part in ("train", "dev", "test"):
            lines = (data / "upstream" / name / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [window(json.loads(line), rng)
                    for line in lines for _ in range(windows if part == "train" else 1)]
            parts[part] = [row for row in rows if row]
        write_task(out, name, "extractive", '阅读理解：文档"{context}"，问题"{question}"', parts, rng)
        if name == "cmrc2018":
            choices = {part: [as_choice(row, rows, rng) for row in rows] for part, rows in parts.items()}
            write_task(out, "cmrc_choice", "choice", '阅读选择：文档"{context}"，问题"{question}",选项：', choices, rng)


def what_is_missing(line, rng):
    text = line[:rng.randrange(30, 56)]
    clauses = [m for m in CLAUSE.finditer(text) if len(m.group()) >= 7 and is_chinese(m.group())]
    if not clauses:
        return None
    clause = rng.choice(clauses)
    words, n = clause.group(), rng.choice([2, 2, 2, 3, 3, 4])
    at = rng.randrange(len(words) - n + 1)
    answer = words[at:at + n]
    if text.count(answer) != 1:
        return None
    low, high = max(0, at - rng.randrange(4, 9)), at + n + rng.randrange(4, 9)
    return {"context": text, "question": f"{words[low:at]}什么{words[at + n:high]}？", "answer": answer,
            "answer_start": clause.start() + at}


def other_words(text, other, rng):
    n = rng.randrange(2, 5)
    at, from_ = rng.randrange(max(1, len(text) - n)), rng.randrange(max(1, len(other) - n))
    return text[:at] + other[from_:from_ + n] + text[at + n:]


def same_text(group, groups, rng):
    """A sentence and itself, itself with other words put in, or another of the same paragraph."""
    a, kind = rng.choice(group), rng.random()
    if kind < 0.5:
        b = changed_a_little(a, rng)
    elif kind < 0.75:
        b = changed_a_little(other_words(a, rng.choice(rng.choice(groups)), rng), rng)
    else:
        b = rng.choice([s for s in group if s != a] or rng.choice(groups))
    return {"text_a": a, "text_b": b, "label": "相似" if kind < 0.5 else "矛盾"}


def which_holds(group, groups, rng):
    answer = rng.choice(group)[:16]
    options = [answer] + [rng.choice(rng.choice(groups))[:16] for _ in range(3)]
    words = [answer[i:i + 2] for i in range(0, len(answer) - 1, 2)]
    rng.shuffle(words)
    rng.shuffle(options)
    return {"question": "哪句里有" + "、".join(words[:3]) + "？", "options": options,
            "label": options.index(answer)} if len(set(options)) == 4 else None


def from_text(lines, out, rng):
    rows = [row for row in (what_is_missing(line, rng) for line in lines if len(line) >= 20) if row]
    write_task(out, "what_is_missing", "extractive", '阅读理解：文档"{context}"，问题"{question}"',
               in_parts(rows[:40000]), rng)
    groups = [g for g in sentences_of(lines) if len(g) >= 2 and all(map(is_chinese, g))]
    rows = [same_text(group, groups, rng) for group in groups]
    write_task(out, "same_text", "pair", '意思判别："{text_a}"与"{text_b}"的意思是？选项：', in_parts(rows[:40000]), rng,
               labels=("矛盾", "相似"))
    rows = [row for row in (which_holds(group, groups, rng) for group in groups) if row]
    write_task(out, "which_holds", "choice", '阅读选择：问题"{question}",选项：', in_parts(rows[:40000]), rng)


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    data, out = map(pathlib.Path, sys.argv[1:])
    if (out / "tasks").exists():
        raise SystemExit(f"{out / 'tasks'} exists already")
    out.mkdir(parents=True, exist_ok=True)
    lines = read_text(data)
    random.Random(1).shuffle(lines)
    mixed = lines + list(pair_lines(lines, random.Random(3)))
    random.Random(4).shuffle(mixed)
    (out / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "pairs.txt").write_text("\n".join(mixed) + "\n", encoding="utf-8")
    for name in TASKS:
        shutil.copytree(data / "upstream" / name, out / "tasks" / name)
    reading(data, out, random.Random(11))
    from_text(lines, out, random.Random(7))


if __name__ == "__main__":
    main()
