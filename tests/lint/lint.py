#!/usr/bin/env python3
"""lint.py: the house rules a machine can hold.

Prints one line per rule, "RULE: ok" or "RULE: FAILED" after its findings. Before the tree is judged,
every rule is shown a small tree that breaks it: a rule that does not see its own violation fails.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
TOP_LEVEL = {"server", "engine", "store", "static", "tests", "conf", "CMakeLists.txt", "Dockerfile",
             "README.md"}
BANNED = re.compile(r"\b(atoi|atol|atof|strtok|sprintf|vsprintf|strcpy|strcat|gets|alloca)\s*\(")
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)
MAX_FUNCTION = 100
MAX_FILE = 900
OUTSIDE = re.compile(r"/work/(?:main|wt|shared|\.library)|farm-(?:bench|studio)|\.library\b"
                     r"|https?://(?:registry|pypi|deb)\.")


def c_files(top):
    found = []
    for folder in ("server", "engine", "store", "tests"):
        found += sorted((top / folder).rglob("*.[ch]"))
    return found


def strip_comments(text):
    """Comments and strings become blanks of the same length, so that lines and columns stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def read(path):
    return path.read_text(encoding="utf-8")


def layers(top):
    """server -> engine/engine.h and store/store.h; engine and store include nothing of the others."""
    for path in c_files(top):
        folder = path.relative_to(top).parts[0]
        for name in INCLUDE.findall(read(path)):
            target = name.split("/")[0]
            if target not in ("server", "engine", "store", "tests") or target == folder:
                continue
            if folder == "server" and name in ("engine/engine.h", "store/store.h"):
                continue
            if folder == "tests":
                continue
            yield f"{path.relative_to(top)}: includes {name}"


def banned_functions(top):
    for path in c_files(top):
        for number, line in enumerate(strip_comments(read(path)).split("\n"), 1):
            hit = BANNED.search(line)
            if hit:
                yield f"{path.relative_to(top)}:{number}: {hit.group(1)} is banned"


def top_level(top):
    for path in sorted(top.iterdir()):
        name = path.name
        if name.startswith(".") or name.startswith("build") or name == "data":
            continue
        if name not in TOP_LEVEL:
            yield f"{name}: not a top-level entry of this project"


def file_essays(top):
    for path in c_files(top):
        if not read(path).lstrip().startswith("/* " + path.name + ":"):
            if not read(path).lstrip().startswith("/* " + path.name + " "):
                yield f"{path.relative_to(top)}: does not open with \"/* {path.name}: …\""


def lengths(top):
    for path in c_files(top):
        lines = read(path).split("\n")
        if len(lines) > MAX_FILE:
            yield f"{path.relative_to(top)}: {len(lines)} lines, at most {MAX_FILE}"
        start = None
        for number, line in enumerate(lines, 1):
            if line == "{":
                start = number
            elif line == "}" and start is not None:
                if number - start > MAX_FUNCTION:
                    yield f"{path.relative_to(top)}:{start}: {number - start} lines in one function"
                start = None


def header_guards(top):
    for path in c_files(top):
        if path.suffix == ".h" and not re.search(r"^#ifndef \w+_H$", read(path), re.M):
            yield f"{path.relative_to(top)}: no include guard"


def outside_names(top):
    """Nothing of the machine it was written on, no address of a registry."""
    for path in sorted(top.rglob("*")):
        parts = path.relative_to(top).parts
        if (not path.is_file() or parts[0].startswith((".git", "build", "data")) or
                path.suffix in (".safetensors", ".bin", ".th", ".png", ".ico") or
                path == pathlib.Path(__file__).resolve() or "__pycache__" in parts):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
            if OUTSIDE.search(line):
                yield f"{path.relative_to(top)}:{number}: {line.strip()[:80]}"


def clang_format(top):
    files = [str(path) for path in c_files(top)]
    if not files:
        return
    done = subprocess.run(["clang-format", "--style=file", "--dry-run", "-Werror", *files], cwd=TOP,
                          capture_output=True, text=True)
    if done.returncode != 0:
        hits = [line for line in done.stderr.split("\n") if "error:" in line]
        yield from hits[:20] or [done.stderr[:400]]


GOOD = "/* bad.c: x. */\n"
RULES = [
    # rule, a file and its text that break it
    (layers, "engine/bad.c", GOOD + '#include "server/http.h"\n'),
    (banned_functions, "engine/bad.c", GOOD + "int f(void)\n{\n    return atoi(\"1\");\n}\n"),
    (top_level, "surprise.txt", "x"),
    (file_essays, "engine/bad.c", "int x;\n"),
    (lengths, "engine/bad.c", GOOD + "int f(void)\n{\n" + "    x();\n" * 120 + "}\n"),
    (header_guards, "engine/bad.h", "/* bad.h: x. */\nint x;\n"),
    (outside_names, "conf/bad.sh", "cd /work/" + "main\n"),
    (clang_format, "engine/bad.c", GOOD + "int   f( void ){return 1;}\n"),
]


def sees_its_violation(rule, name, text):
    with tempfile.TemporaryDirectory() as folder:
        bad = pathlib.Path(folder) / name
        bad.parent.mkdir(parents=True, exist_ok=True)
        bad.write_text(text, encoding="utf-8")
        (pathlib.Path(folder) / ".clang-format").write_text(read(TOP / ".clang-format"))
        return bool(list(rule(pathlib.Path(folder))))


def main():
    failed = False
    for rule, name, text in RULES:
        findings = list(rule(TOP))
        if not sees_its_violation(rule, name, text):
            findings.append("the rule does not see the violation made for it")
        for finding in findings:
            print("  " + finding)
        print(f"lint {rule.__name__}: {'FAILED' if findings else 'ok'}")
        failed = failed or bool(findings)
    return 1 if failed else 0


sys.exit(main())
