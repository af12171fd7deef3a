#!/usr/bin/env python3
"""prepare.py: the texts and tasks that the embedded model is trained on, from the data beside the project.

    conf/pretrain/prepare.py DATA OUT

DATA has corpus/*.txt and upstream/<task>/ (shared/data). Writes

    OUT/text.txt     the corpora named below, shuffled: a paragraph a line
    OUT/pairs.txt    the same, and as many lines again where a sentence comes twice, the second time changed a
                     little and often behind other words: a masked character can be found by looking into the other
    OUT/tasks/       the upstream tasks named below as they are; reading comprehension cut to windows that hold
                     the answer; and tasks made from text alone: alike_30, _45, _60 and same_text (pairs),
                     what_is_missing (extractive), which_holds, which_is_said, which_follows, which_word (choice)
    OUT/more/        tasks that come in later: other upstream tasks as they are; reviews (several opinions alike in
                     one text) and which_topic (choice: the word that a paragraph comes back to)
    OUT/wider.txt    text.txt and more corpora, none of their lines a text of a downstream task
    OUT/wider/       tasks that come in last: which_subject, which_feeling, which_meaning (choice: labelled rows asked
                     in many words, wordings.py) and which_theme (which_word of wider.txt)

Same data, same bytes. Nothing of it is part of the project; the model card names sources and licences.
"""
import collections
import json
import pathlib
import random
import re
import shutil
import sys

import wordings

CORPORA = ("recipes", "classics_modern_translation", "dialogue", "clue_corpus_sample")
WIDER = ("news", "law", "idioms")
TASKS = ("online_shopping", "waimai", "weibo_sentiment", "smp_ewect", "cold", "cmos", "thucnews", "domain_cls",
         "csl_discipline", "afqmc", "bq", "chip_sts", "qbqtc", "cmnli", "csnli", "cinlid", "xnli_zh",
         "cluener_span", "msra_span")
MORE = ("bdci_car", "nlpcc_stance", "nlpcc_dbqa", "ccpm")
REVIEWS = ("online_shopping", "waimai", "weibo_sentiment")
READING = {"cmrc2018": 4, "dureader_robust": 6}  # windows of a training row
TEXT_FIELDS = ("text", "text_a", "text_b", "context")
SENTENCE_END = re.compile(r"(?<=[。！？；!?;])")
CLAUSE = re.compile(r"[^，。！？；：、,.!?;:\s]+")
FILLERS = "的了是吗呢就都也很"
STOP = "的了是吗呢就都也很在有和不我你他她它这那一个们上着之其于与而为以"
ASKED = ("什么", "什么", "谁", "哪里", "多少", "哪个", "何")
SAID = ("文中说了什么？", "请选出与文章内容一致的一项。", "下面哪项是对的？", "根据文章，可以知道什么？")
DEV = 1000


def is_chinese(text):
    return sum("一" <= c <= "鿿" for c in text) >= 0.8 * len(text)


def changed_a_little(text, rng):
    """About every sixth character: left out, moved, or a particle put in."""
    chars = list(text)
    for _ in range(rng.randrange(0, max(2, len(chars) // 6)) if chars else 0):
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


def read_rows(data, name, part):
    return [json.loads(line) for line in
            (data / "upstream" / name / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]


def read_corpora(data):
    """Every corpus's lines by its name, but for those that are texts of a downstream task."""
    known = {" ".join(json.loads(row).get(field, "").split()) for part in sorted((data / "downstream").glob("*/*.jsonl"))
             for row in part.read_text(encoding="utf-8").splitlines() for field in TEXT_FIELDS}
    found = {}
    for name in CORPORA + WIDER:
        lines = (data / "corpus" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        found[name] = [line.strip() for line in lines if line.strip() and " ".join(line.split()) not in known]
    return found


def read_text(data, corpora):
    """The first corpora's lines and the texts of the tasks' training rows, each once."""
    lines = {}
    for name in CORPORA:
        lines.update(dict.fromkeys(corpora[name]))
    for name in [*TASKS, *READING]:
        for row in read_rows(data, name, "train"):
            lines.update((" ".join(row[field].split()), None) for field in TEXT_FIELDS if field in row)
    return [line for line in lines if line]


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

ALIKE = '意思判别："{text_a}"与"{text_b}"的意思是？选项：'
READ = '阅读理解：文档"{context}"，问题"{question}"'
CHOOSE = '阅读选择：文档"{context}"，问题"{question}",选项：'


def write_task(out, name, kind, template, parts, rng, labels=(), place="tasks"):
    folder = out / place / name
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


def make_task(out, name, kind, template, make, n, rng, labels=(), place="tasks"):
    """n rows and two parts of DEV more, of make(rng), which may be None now and then."""
    rows = []
    while len(rows) < n + 2 * DEV:
        row = make(rng)
        if row:
            rows.append(row)
    write_task(out, name, kind, template, in_parts(rows), rng, labels, place)


def window(row, rng):
    """60 to 300 characters around the answer, wherever in them; None where it does not fit."""
    context, answer, at = row["context"], row["answer"], row["answer_start"]
    if len(answer) > 24 or len(row["question"]) > 40 or context[at:at + len(answer)] != answer:
        return None
    n = rng.randrange(60, 301)
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
    return {"context": context, "question": row["question"]} | wordings.among(options[1:], answer, rng)


def reading(data, out, rng):
    for name, windows in READING.items():
        parts = {}
        for part in ("train", "dev", "test"):
            rows = [window(row, rng) for row in read_rows(data, name, part)
                    for _ in range(windows if part == "train" else 1)]
            parts[part] = [row for row in rows if row]
        write_task(out, name, "extractive", READ, parts, rng)
        if name == "cmrc2018":
            choices = {part: [as_choice(row, rows, rng) for row in rows] for part, rows in parts.items()}
            write_task(out, "cmrc_choice", "choice", CHOOSE, choices, rng)


# ---- tasks made from text alone -----------------------------------------------------------------------


class Text:
    """Paragraphs, their sentences, and words: pairs of characters that come together more than by chance."""

    def __init__(self, lines):
        self.lines = [line for line in lines if len(line) >= 15]
        self.long = [line for line in lines if len(line) >= 60]
        groups = list(sentences_of(lines))
        self.groups = [g for g in groups if len(g) >= 2 and all(map(is_chinese, g))]
        self.sentences = [s for g in groups for s in g if is_chinese(s)]
        single, pair = collections.Counter(), collections.Counter()
        for line in lines:
            single.update(line)
            pair.update(line[i:i + 2] for i in range(len(line) - 1))
        total = sum(single.values())
        self.words = {w for w, n in pair.items() if 40 <= n <= 4000 and w[0] != w[1] and
                      all("一" <= c <= "鿿" and c not in STOP for c in w) and
                      n * total > 60 * single[w[0]] * single[w[1]]}

        self.topical = [line for line in self.lines if len(set(words := self.words_of(line))) < len(words)]

    def words_of(self, text):
        return [text[i:i + 2] for i in range(len(text) - 1) if text[i:i + 2] in self.words]

    def document(self, rng, low=40, high=301):
        """A paragraph or the piece of one, or several put together until they are long enough."""
        n = rng.randrange(low, high)
        if rng.random() < 0.5:
            line = rng.choice(self.long)
            start = rng.randrange(max(1, len(line) - n))
            return line[start:start + n]
        text = ""
        while len(text) < n:
            text += rng.choice(self.lines)
        return text[:n]


def replaced(text, other, share, rng):
    """Pieces of two to four characters, each with probability `share` one of the other text."""
    pieces, i = [], 0
    while i < len(text):
        n = rng.randrange(2, 5)
        at = rng.randrange(max(1, len(other) - n))
        pieces.append(other[at:at + n] if rng.random() < share else text[i:i + n])
        i += n
    return "".join(pieces)


def is_alike(a, b, share):
    a, b = set(a), set(b)
    return len(a & b) >= share * len(a | b)


def alike(text, share, rng):
    """Two sentences, alike when they have `share` of their characters in common; half of the rows are."""
    wanted = rng.random() < 0.5
    for _ in range(20):
        a = rng.choice(text.sentences)[:rng.randrange(8, 30)]
        b = changed_a_little(replaced(a, rng.choice(text.sentences), rng.random(), rng), rng)
        if rng.random() < 0.3:
            half = rng.randrange(len(b))
            b = b[half:] + b[:half]
        if is_alike(a, b, share) == wanted:
            pair = [a, b]
            rng.shuffle(pair)
            return {"text_a": pair[0], "text_b": pair[1], "label": "相似" if wanted else "矛盾"}
    return None


def same_text(text, rng):
    """A sentence and itself, itself with other words put in, or another of the same paragraph."""
    group = rng.choice(text.groups)
    a, kind = rng.choice(group), rng.random()
    if kind < 0.5:
        b = changed_a_little(a, rng)
    elif kind < 0.75:
        b = changed_a_little(other_words(a, rng.choice(text.sentences), rng), rng)
    else:
        b = rng.choice([s for s in group if s != a] or text.sentences)
    return {"text_a": a, "text_b": b, "label": "相似" if kind < 0.5 else "矛盾"}


def other_words(text, other, rng):
    n = rng.randrange(2, 5)
    at, from_ = rng.randrange(max(1, len(text) - n)), rng.randrange(max(1, len(other) - n))
    return text[:at] + other[from_:from_ + n] + text[at + n:]


def what_is_missing(text, rng):
    """A piece of a document with two to six characters of it asked for."""
    document = text.document(rng, 30)
    clauses = [m for m in CLAUSE.finditer(document) if len(m.group()) >= 7 and is_chinese(m.group())]
    if not clauses:
        return None
    clause = rng.choice(clauses)
    words, n = clause.group(), rng.choice([2, 2, 2, 3, 3, 4, 5, 6])
    at = rng.randrange(max(1, len(words) - n + 1))
    answer = words[at:at + n]
    if document.count(answer) != 1:
        return None
    low, high = max(0, at - rng.randrange(4, 13)), at + n + rng.randrange(4, 13)
    before, after = words[low:at], words[at + n:high]
    if rng.random() < 0.4:  # asked the other way round
        before, after = after + "的", before
    return {"context": document, "question": changed_a_little(before, rng) + rng.choice(ASKED) +
            changed_a_little(after, rng) + "？", "answer": answer, "answer_start": clause.start() + at}


def with_options(row, answer, others, n, rng):
    """`answer` among n options, the rest from others(); None if they do not differ."""
    placed = wordings.among([others() for _ in range(n - 1)], answer, rng)
    return row | placed if len(set(placed["options"])) == n and all(placed["options"]) else None


def which_holds(text, rng):
    """The sentence that has the words asked for."""
    answer = rng.choice(text.sentences)[:16]
    words = [answer[i:i + 2] for i in range(0, len(answer) - 1, 2)]
    rng.shuffle(words)
    return with_options({"question": "哪句里有" + "、".join(words[:3]) + "？"}, answer,
                        lambda: rng.choice(text.sentences)[:16], 4, rng)


def which_is_said(text, rng):
    """What a document says, among what others say and mixtures of both."""
    document = text.document(rng)
    clauses = [c for c in CLAUSE.findall(document) if len(c) >= 5 and is_chinese(c)]
    if not clauses:
        return None

    def other():
        sentence = rng.choice(text.sentences)
        return sentence[:rng.randrange(5, 15)] if rng.random() < 0.6 else \
            replaced(rng.choice(clauses)[:14], sentence, 0.6, rng)

    return with_options({"context": document, "question": rng.choice(SAID)},
                        changed_a_little(rng.choice(clauses)[:rng.randrange(6, 15)], rng), other,
                        rng.randrange(2, 5), rng)


def which_follows(text, rng):
    """The sentence of the same paragraph that comes next."""
    group = rng.choice(text.groups)
    i = rng.randrange(len(group) - 1)
    return with_options({"context": "".join(group[max(0, i - 2):i + 1]), "question": "接下来是哪一句？"}, group[i + 1][:24],
                        lambda: rng.choice(text.sentences)[:24], rng.randrange(2, 5), rng)


def which_word(text, rng):
    """The word that was taken out of a text, among words of other texts: what belongs to its subject."""
    line = rng.choice(text.lines)[:rng.randrange(15, 70)]
    words = text.words_of(line)
    if not words:
        return None
    answer = rng.choice(words)

    def other():
        return rng.choice(text.words_of(rng.choice(text.lines)) or [""])

    return with_options({"context": line.replace(answer, ""), "question": "主题是什么？"}, answer, other, rng.randrange(3, 11), rng)


def which_topic(text, rng):
    """The word that a paragraph has more than once, taken out of it, among such words of other paragraphs."""

    def topic(line):
        words = text.words_of(line)
        return rng.choice([w for w in words if words.count(w) > 1] or [""])

    line = rng.choice(text.lines)
    answer, n = topic(line), rng.randrange(15, 70)
    rest = line.replace(answer, "") if answer else ""
    at = rng.randrange(max(1, len(rest) - n))
    return with_options({"context": rest[at:at + n], "question": "主题是什么？"}, answer,
                        lambda: topic(rng.choice(text.topical)), rng.randrange(4, 16), rng) if answer else None


def opinion(rows, rng):
    """One to five opinions alike, until they are long enough."""
    label, n = rng.choice(("负面", "正面")), rng.randrange(30, 301)
    found = ""
    for row in rng.sample(rows[label], 5):
        if found and len(found) + len(row) > n:
            break
        found += row + ("" if row[-1] in "。！？!?~～…." else rng.choice(("，", "。", "！", " ")))
    return {"text": found[:320], "label": label}


def opinions_of(data):
    rows = {"负面": [], "正面": []}
    for name in REVIEWS:
        for row in read_rows(data, name, "train"):
            rows[row["label"]].append(row["text"].strip())
    return {label: [text for text in texts if text] for label, texts in rows.items()}


def reviews(opinions, out, rng):
    make_task(out, "reviews", "classification", '情感分析："{text}"的情感是？选项：', lambda r: opinion(opinions, r), 20000, rng,
              ("负面", "正面"), "more")


def from_text(text, out, rng):
    print(len(text.words), "words")
    for share in (30, 45, 60):
        make_task(out, f"alike_{share}", "pair", ALIKE, lambda r, share=share: alike(text, share / 100, r), 20000, rng,
                  ("矛盾", "相似"))
    make_task(out, "same_text", "pair", ALIKE, lambda r: same_text(text, r), 20000, rng, ("矛盾", "相似"))
    make_task(out, "what_is_missing", "extractive", READ, lambda r: what_is_missing(text, r), 40000, rng)
    make_task(out, "which_holds", "choice", '阅读选择：问题"{question}",选项：', lambda r: which_holds(text, r), 10000, rng)
    make_task(out, "which_is_said", "choice", CHOOSE, lambda r: which_is_said(text, r), 40000, rng)
    make_task(out, "which_follows", "choice", CHOOSE, lambda r: which_follows(text, r), 20000, rng)
    make_task(out, "which_word", "choice", '主题识别："{context}"的主题是？选项：', lambda r: which_word(text, r), 40000, rng)


def wider(data, out, lines, corpora, opinions):
    lines = list(dict.fromkeys(lines + [line for name in WIDER for line in corpora[name]]))
    random.Random(19).shuffle(lines)
    (out / "wider.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = Text(lines)

    def train_rows(name):
        return read_rows(data, name, "train")

    made = {"which_subject": wordings.which_subject(train_rows, corpora),
            "which_feeling": wordings.which_feeling(train_rows, lambda r: opinion(opinions, r)),
            "which_meaning": wordings.which_meaning(train_rows)}
    for i, (name, make) in enumerate(made.items()):
        make_task(out, name, "choice", wordings.TEMPLATE, make, 60000, random.Random(23 + i), place="wider")
    make_task(out, "which_theme", "choice", '主题识别："{context}"的主题是？选项：', lambda r: which_word(text, r), 60000,
              random.Random(29), place="wider")


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    data, out = map(pathlib.Path, sys.argv[1:])
    if (out / "tasks").exists():
        raise SystemExit(f"{out / 'tasks'} exists already")
    out.mkdir(parents=True, exist_ok=True)
    corpora, opinions = read_corpora(data), opinions_of(data)
    lines = read_text(data, corpora)
    random.Random(1).shuffle(lines)
    mixed = lines + list(pair_lines(lines, random.Random(3)))
    random.Random(4).shuffle(mixed)
    (out / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "pairs.txt").write_text("\n".join(mixed) + "\n", encoding="utf-8")
    for name in TASKS:
        shutil.copytree(data / "upstream" / name, out / "tasks" / name)
    reading(data, out, random.Random(11))
    text = Text(lines)
    from_text(text, out, random.Random(7))
    for name in MORE:
        shutil.copytree(data / "upstream" / name, out / "more" / name)
    reviews(opinions, out, random.Random(13))
    make_task(out, "which_topic", "choice", '主题识别："{context}"的主题是？选项：', lambda r: which_topic(text, r), 40000,
              random.Random(17), place="more")
    wider(data, out, lines, corpora, opinions)


if __name__ == "__main__":
    main()
