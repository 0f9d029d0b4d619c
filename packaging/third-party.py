"""Prints which libraries are part of the program, with their licences: what their authors ask of whoever hands it on."""

import json
import pathlib
import subprocess
import sys

target = sys.argv[1]
metadata = json.loads(
    subprocess.check_output(
        ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", target]
    )
)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}


def linked(root):
    """All that ends in the program: no build scripts, no tests."""
    found, ahead = set(), [root]
    while ahead:
        package = ahead.pop()
        if package not in found:
            found.add(package)
            kinds = lambda dep: {kind["kind"] for kind in dep["dep_kinds"]}
            ahead += [dep["pkg"] for dep in nodes[package]["deps"] if None in kinds(dep)]
    return found


root = next(id for id, package in packages.items() if package["name"] == "cachenat")
crates = sorted(
    (packages[id] for id in linked(root) if packages[id]["source"]),
    key=lambda crate: (crate["name"], crate["version"]),
)

texts = {}
for crate in crates:
    name = f"{crate['name']} {crate['version']}"
    print(f"{name}: {crate['license'] or crate['license_file']}")
    directory = pathlib.Path(crate["manifest_path"]).parent
    for file in sorted(directory.iterdir()):
        if file.is_file() and file.name.upper().startswith(("LICEN", "COPYING", "NOTICE")):
            text = file.read_text(errors="replace").strip()
            texts.setdefault(text, []).append(name)
for text, names in texts.items():
    print(f"\n{'=' * 78}\n{', '.join(names)}\n\n{text}")
