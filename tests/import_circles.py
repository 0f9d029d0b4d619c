"""Finds files of one crate that import each other, directly or around a corner, and names them.

A module and those inside it are one house: what `super` hands down to them is no circle. Tests may import what they like.
"""

import re
import sys
from pathlib import Path


def modules(source):
    """The crate's modules by path, `('netlink', 'read')`, with their code: without comments and tests."""
    found = {}
    for file in source.rglob("*.rs"):
        path = file.relative_to(source).with_suffix("").parts
        if path[-1] in ("lib", "main", "mod"):
            path = path[:-1]
        if path[-1:] != ("tests",):
            code = re.sub(r"//.*", "", file.read_text())
            found[path] = re.split(r"#\[cfg\(test\)\]\s*mod tests \{", code)[0]
    return found


def paths(tree):
    """The paths of a `use` tree: `a::{b, c::d}` is `a::b` and `a::c::d`."""
    head, brace, rest = tree.partition("{")
    if not brace:
        yield head.split(" as ")[0].strip()
        return
    depth, item = 0, ""
    for character in rest[: rest.rindex("}")] + ",":
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            if item.strip():
                yield from (head.strip() + path for path in paths(item.strip()))
            item = ""
        else:
            item += character


def imports(module, code, known):
    """The modules of the same crate that a module's code names."""
    use = re.compile(r"^(?:pub(?:\(\S+\))? )?use ([^;]+);", re.MULTILINE)
    uses = use.findall(code)
    named = [path for tree in uses for path in paths(re.sub(r"\s+", " ", tree))]
    named += re.findall(r"\b(?:crate|super)(?:::\w+)+", use.sub("", code))
    for path in named:
        words = path.replace(" ", "").split("::")
        at = module
        if words[0] == "crate":
            at, words = (), words[1:]
        elif words[0] not in ("self", "super") and module + (words[0],) not in known:
            continue
        for word in words:
            if word == "super":
                at = at[:-1]
            elif at + (word,) in known:
                at += (word,)
            elif word != "self":
                break
        if at[: len(module)] != module and module[: len(at)] != at:
            yield at


def circles(graph):
    """The sets of modules that all reach each other."""

    def reached(start):
        seen, next_ = set(), [start]
        while next_:
            for module in graph[next_.pop()] - seen:
                seen.add(module)
                next_.append(module)
        return seen

    reach = {module: reached(module) for module in graph}
    found = {frozenset(other for other in reach[module] if module in reach[other]) for module in graph}
    return sorted(sorted(circle) for circle in found if circle)


failed = False
for crate in sorted(Path(__file__).parent.parent.glob("crates/*")):
    known = modules(crate / "src")
    graph = {module: set(imports(module, code, known)) for module, code in known.items()}
    for circle in circles(graph):
        failed = True
        names = ["::".join(module) for module in circle]
        print(f"{crate.name}: {', '.join(names)} import each other:")
        for module in circle:
            for other in sorted(graph[module] & set(circle)):
                print(f"    {'::'.join(module)} -> {'::'.join(other)}")
sys.exit(failed)
