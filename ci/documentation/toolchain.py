"""SwiftPM's description of the package, and calls of the compiler on its build."""

import dataclasses
import functools
import json
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Failed(Exception):
    pass


def run(*command, limit=300, cwd=ROOT, env=None):
    """Runs a command and returns its result, with its output as text."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=limit
    )


def output_of(*command, limit=600, cwd=ROOT):
    result = run(*command, limit=limit, cwd=cwd)
    if result.returncode != 0:
        words = " ".join(str(word) for word in command[:2])
        raise Failed(f"{words}: status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


@functools.cache
def version():
    """The version in the sources."""
    text = (ROOT / "Packages" / "Gevent" / "Sources" / "GeventCore" / "Exports.swift").read_text(encoding="utf-8")
    return re.search(r'^public let version = "(.*)"$', text, re.MULTILINE)[1]


@dataclasses.dataclass
class Module:
    name: str
    sources: pathlib.Path
    kind: str
    dependencies: list

    @property
    def catalog(self):
        return next(self.sources.glob("*.docc"), None)


@functools.cache
def description():
    return json.loads(output_of("swift", "package", "describe", "--type", "json"))


def products():
    """The library products and the programs for `swift run`, by name."""
    return {product["name"]: product for product in description()["products"]}


@functools.cache
def modules():
    """All modules in library products, dependencies first."""
    targets = {target["name"]: target for target in description()["targets"]}
    found = {}

    def add(name):
        if name in found:
            return
        target = targets[name]
        for dependency in target.get("target_dependencies", []):
            add(dependency)
        found[name] = Module(
            name, ROOT / target["path"], target["module_type"], target.get("target_dependencies", [])
        )

    for product in products().values():
        if "library" in product["type"]:
            for name in product["targets"]:
                add(name)
    return found


def swift_modules():
    """The modules that users import: an umbrella module instead of the modules of its package that it exports.

    Leaves out modules without an API, which declare nothing and export nothing of their package.
    """
    found = [module for module in modules().values() if module.kind == "SwiftTarget"]
    parts = {name for module in found for name in exported(module) if in_one_package(module, name)}
    return [
        module for module in found
        if module.name not in parts
        and (declares_something(module) or any(in_one_package(module, name) for name in exported(module)))
    ]


def exported(module):
    """The names of the modules that this one exports."""
    text = "".join(file.read_text() for file in module.sources.rglob("*.swift"))
    names = re.findall(r"^@_exported (?:public )?import (\w+)$", text, re.MULTILINE)
    return sorted({*names, *(name for each in names for name in exported(modules()[each]))})


def in_one_package(module, name):
    return modules()[name].sources.parent == module.sources.parent


def declares_something(module):
    declaration = re.compile(r"^\s*(?:public|open) (?!import)", re.MULTILINE)
    return any(declaration.search(file.read_text()) for file in module.sources.rglob("*.swift"))


def needs(module):
    """The names of all direct and indirect dependencies."""
    found = []
    for name in module.dependencies:
        for each in [*needs(modules()[name]), name]:
            if each not in found:
                found.append(each)
    return found


@dataclasses.dataclass
class Build:
    """A debug build, and a directory for files made from it."""

    directory: pathlib.Path
    scratch: pathlib.Path

    @functools.cached_property
    def search_paths(self):
        """The compiler arguments that locate the modules, including C modules."""
        words = ["-I", self.directory / "Modules", "-module-cache-path", self.scratch / "modules"]
        for module in modules().values():
            if module.kind == "SwiftTarget":
                continue
            headers = module.sources if module.kind == "SystemLibraryTarget" else module.sources / "include"
            words += ["-I", headers, "-Xcc", "-I", "-Xcc", headers]
            generated = self.directory / f"{module.name}.build" / "module.modulemap"
            if generated.exists():
                words += ["-Xcc", f"-fmodule-map-file={generated}"]
        return [str(word) for word in words]

    @functools.cached_property
    def library(self):
        """All modules as one library, so that linking a program is fast."""
        path = self.scratch / "programs" / "liball.so"
        path.parent.mkdir(parents=True, exist_ok=True)
        objects, libraries = [], []
        for module in modules().values():
            sources = {file.name for file in module.sources.rglob("*")}
            # Ignores object files of deleted sources.
            objects += sorted(
                file
                for file in (self.directory / f"{module.name}.build").rglob("*.o")
                if file.name.removesuffix(".o") in sources
            )
            if module.kind == "SystemLibraryTarget":
                text = (module.sources / "module.modulemap").read_text()
                libraries += [f"-l{name}" for name in re.findall(r'\blink\s+"(\w+)"', text)]
        output_of("swiftc", "-emit-library", "-o", path, *objects, *libraries)
        return path


def toolchain_program(name):
    """A program in the directory of `swift`."""
    swift = shutil.which("swift")
    path = pathlib.Path(swift).resolve().parent / name
    if not path.exists():
        raise Failed(f"the toolchain of {swift} has no {name}")
    return path


@functools.cache
def target_triple():
    return json.loads(output_of("swiftc", "-print-target-info"))["target"]["triple"]
