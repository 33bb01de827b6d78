"""A Kubernetes control plane built from its released Go modules for `make test-cluster`: half an hour, once.

etcd, API server, controller manager, scheduler and kubectl of one release; kwok, which plays the kubelets.
Kubernetes replaces its `k8s.io/*` modules by directories of its own tree; a module that requires it has to
say which published versions stand for them: v0.X.Y for v1.X.Y.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy_tools import ToolMissing, cache, go, run

KUBERNETES = "v1.36.3"
KWOK = "v0.8.0"
#: The file with how kwok plays nodes and pods.
STAGES = "kwok-stages.yaml"
#: The parts of that file, by their paths in kwok's module; these stages happen at once.
_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


def directory() -> Path:
    """Where the control plane's programs are kept."""
    return cache() / f"kubernetes-{KUBERNETES}"


def install() -> Path:
    """Build what is not there yet; returns the directory that holds the programs and STAGES.

    Raises ToolMissing when something is not available or cannot be built.
    """
    target = directory()
    target.mkdir(parents=True, exist_ok=True)
    compiler = go()
    if not all((target / name).exists() for name in (*PROGRAMS, "etcd")):
        _kubernetes(compiler, target)
    if not all((target / name).exists() for name in ("kwok", STAGES)):
        _kwok(compiler, target)
    return target


def _kubernetes(compiler: str, target: Path) -> None:
    source = _module(compiler, f"k8s.io/kubernetes@{KUBERNETES}")
    described = json.loads(_output([compiler, "mod", "edit", "-json", str(source / "go.mod")]))
    staged = "v0" + KUBERNETES.removeprefix("v1")
    replaced = [entry["Old"]["Path"] for entry in described["Replace"]]
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    base = "k8s.io/component-base/version"
    version = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(["-s -w", *(f"-X {base}.{name}={value}" for name, value in version.items())])
    packages = {name: f"k8s.io/kubernetes/cmd/{name}" for name in PROGRAMS}
    packages["etcd"] = "go.etcd.io/etcd/server/v3"
    with tempfile.TemporaryDirectory() as temporary:
        module = Path(temporary)
        lines = [
            "module cluster",
            f"go {described['Go']}",
            f"require k8s.io/kubernetes {KUBERNETES}",
            *(f"replace {path} => {path} {staged}" for path in replaced),
        ]
        (module / "go.mod").write_text("\n".join(lines) + "\n")
        for name, package in packages.items():
            _build(compiler, module, package, target / name, flags)


def _kwok(compiler: str, target: Path) -> None:
    source = _module(compiler, f"sigs.k8s.io/kwok@{KWOK}")
    stages = [(source / "kustomize" / "stage" / name).read_text("utf-8") for name in _STAGES]
    (target / STAGES).write_text("\n---\n".join(stages), "utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        module = Path(temporary)
        (module / "go.mod").write_text(f"module cluster\ngo 1.26\nrequire sigs.k8s.io/kwok {KWOK}\n")
        _build(compiler, module, "sigs.k8s.io/kwok/cmd/kwok", target / "kwok", "-s -w")


def _build(compiler: str, module: Path, package: str, program: Path, flags: str) -> None:
    if program.exists():
        return
    partial = program.with_name(program.name + ".partial")
    command = [compiler, "build", "-mod=mod", "-trimpath", "-ldflags", flags, "-o", str(partial), package]
    run(command, f"building {program.name}", cwd=module)
    partial.rename(program)


def _module(compiler: str, name: str) -> Path:
    answer = json.loads(_output([compiler, "mod", "download", "-json", name]))
    return Path(answer["Dir"])


def _output(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "GOFLAGS": "-mod=mod"}
    )
    if done.returncode != 0:
        raise ToolMissing(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def main() -> int:
    """Build everything; says where it is."""
    try:
        print(install())
    except ToolMissing as problem:
        print(f"tools: FAILED: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
