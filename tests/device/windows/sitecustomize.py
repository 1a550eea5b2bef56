"""A pretended Windows: what this program, and no library under it, sees of the machine is what Windows has.

Python imports this file by itself in every process that has its folder on `PYTHONPATH`, so that the processes which the program
starts pretend as well. In the modules of `paperbench`

* `fcntl`, `resource`, `pwd`, `grp`, `termios`, `tty` and `pty` cannot be imported;
* `os` and `signal` lack what they lack on Windows (`os.fork`, `os.setsid`, `signal.SIGUSR1`, …), and have what they have there;
* `sys.platform` is "win32" and `os.name` is "nt".

In the whole process, libraries included,

* a signal "sent" to another process ends it at once, but for Ctrl-Break (here: SIGUSR2), which reaches a process that was started
  in a group of its own; the parent of a process is not the one that started it (in a virtual environment it is a launcher), and
  does not change when that one dies;
* a name that Windows refuses cannot be created (`:`, `con`, a trailing dot), nor a symbolic link (which takes a privilege);
* a file that this process holds open can be neither replaced nor removed.
"""

from __future__ import annotations

import ast
import builtins
import importlib.abc
import importlib.machinery
import os
import re
import signal
import stat
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGE = "paperbench"
MISSING_MODULES = frozenset({"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"})
MISSING = {
    "os": [
        "fork",
        "forkpty",
        "setsid",
        "setpgid",
        "getpgid",
        "getsid",
        "killpg",
        "getuid",
        "geteuid",
        "getgid",
        "getegid",
        "getgroups",
        "setuid",
        "mkfifo",
        "mknod",
        "sysconf",
        "sched_getaffinity",
        "sched_setaffinity",
        "uname",
        "statvfs",
        "pathconf",
        "getloadavg",
        "nice",
        "chown",
        "lchown",
        "chroot",
        "wait",
        "wait3",
        "wait4",
        "WNOHANG",
        "WIFEXITED",
        "pipe2",
        "posix_spawn",
        "posix_fallocate",
        "posix_fadvise",
        "pread",
        "pwrite",
        "sync",
        "fdatasync",
        "openpty",
        "ttyname",
        "O_NONBLOCK",
        "O_DIRECTORY",
        "O_NOFOLLOW",
        "O_CLOEXEC",
        "O_SYNC",
        "lockf",
        "getpriority",
        "register_at_fork",
        "memfd_create",
        "sendfile",
    ],
    "signal": [
        "SIGUSR1",
        "SIGUSR2",
        "SIGHUP",
        "SIGKILL",
        "SIGCHLD",
        "SIGALRM",
        "SIGPIPE",
        "SIGQUIT",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "alarm",
        "setitimer",
        "pause",
        "pthread_sigmask",
        "pthread_kill",
        "sigwait",
        "sigpending",
        "SIG_BLOCK",
        "SIG_UNBLOCK",
        "SIG_SETMASK",
        "siginterrupt",
    ],
}
CTRL_C_EVENT, CTRL_BREAK_EVENT = 0, 1
CREATE_NEW_PROCESS_GROUP = 0x200
SIGBREAK = signal.SIGUSR2
PRESENT = {"os": {"name": "nt"}, "signal": {"SIGBREAK": SIGBREAK, "CTRL_C_EVENT": 0, "CTRL_BREAK_EVENT": 1}}
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
ILLEGAL = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$')
OPENED_BY_US = os.O_WRONLY | os.O_RDWR | os.O_CREAT


# --- modules of the program -------------------------------------------------------------------------------------------


class _Part(types.ModuleType):
    """A module of the standard library without what it lacks on Windows."""

    def __init__(self, whole: types.ModuleType) -> None:
        super().__init__(whole.__name__)
        self.__dict__["_whole"] = whole

    def __getattr__(self, name: str) -> Any:
        whole = self.__dict__["_whole"]
        present = PRESENT[whole.__name__]
        if name in present:
            return present[name]
        if name in MISSING[whole.__name__]:
            raise AttributeError(f"module {whole.__name__!r} has no attribute {name!r} on Windows")
        return getattr(whole, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_whole"], name, value)


_import = builtins.__import__
_parts = {"os": _Part(os), "signal": _Part(signal)}


def _import_as_on_windows(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    ours = str((globals or {}).get("__package__") or (globals or {}).get("__name__")).partition(".")[0] == PACKAGE
    if ours and level == 0:
        if name in MISSING_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in _parts:
            return _parts[name]
    return _import(name, globals, locals, fromlist, level)


class _OnWindows(ast.NodeTransformer):
    """Replaces `sys.platform` by what it is on Windows."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and (node.value.id, node.attr) == ("sys", "platform"):
            return ast.copy_location(ast.Constant("win32"), node)
        return node


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        """Compile the module from its source. The bytecode is not kept: that of the real system has the same name."""
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        return compile(ast.fix_missing_locations(_OnWindows().visit(tree)), path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


# --- processes --------------------------------------------------------------------------------------------------------

_kill, _run, _Popen, _exit = os.kill, subprocess.run, subprocess.Popen, os._exit


def _send(pid: int, number: int) -> None:
    """Do what `os.kill` does on Windows: pass Ctrl-Break on, and end the process for everything else."""
    if number == CTRL_BREAK_EVENT:
        _kill(pid, SIGBREAK)
    elif number == CTRL_C_EVENT:
        raise OSError(22, "Ctrl-C reaches the processes of a console, not one group")
    else:
        _kill(pid, signal.SIGKILL)


class _StartedOnWindows(subprocess.Popen[Any]):
    def __init__(self, *arguments: Any, creationflags: int = 0, **options: Any) -> None:
        for name in ("preexec_fn", "pass_fds", "process_group", "user", "group", "umask"):
            if options.get(name):
                raise ValueError(f"{name} is not supported on Windows platforms")
        options["start_new_session"] = bool(creationflags & CREATE_NEW_PROCESS_GROUP)
        super().__init__(*arguments, **options)

    def kill(self) -> None:
        self.send_signal(signal.SIGTERM)


# --- files ------------------------------------------------------------------------------------------------------------


def _refused(path: Any) -> str:
    """Return the part of a path that Windows would not create; empty if there is none."""
    if not isinstance(path, str | bytes | os.PathLike):
        return ""
    parts = [part for part in os.fsdecode(path).split("/") if part not in ("", ".", "..")]
    return next((part for part in parts if ILLEGAL.search(part) or RESERVED.fullmatch(part)), "")


def _is_open(path: Any) -> bool:
    """Return True if this process has the regular file open."""
    try:
        wanted = Path(path).stat()
    except (OSError, TypeError):
        return False
    if not stat.S_ISREG(wanted.st_mode):
        return False
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if os.path.samestat(entry.stat(), wanted):
                return True
        except OSError:
            continue
    return False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if (
            isinstance(flags, int)
            and flags & OPENED_BY_US
            and not str(path).startswith("/dev/")
            and (bad := _refused(path))
        ):
            raise OSError(22, f"Invalid argument (Windows: {bad})", os.fsdecode(path))
    elif event == "os.mkdir" and (bad := _refused(arguments[0])):
        raise OSError(22, f"Invalid argument (Windows: {bad})", os.fsdecode(arguments[0]))
    elif event == "os.symlink":
        raise OSError(1314, "A required privilege is not held by the client", os.fsdecode(arguments[1]))
    elif event == "os.rename":
        if bad := _refused(arguments[1]):
            raise OSError(22, f"Invalid argument (Windows: {bad})", os.fsdecode(arguments[1]))
        for path in arguments[:2]:
            if _is_open(path):
                raise PermissionError(13, "The process cannot access the file: it is open", os.fsdecode(path))
    elif event == "os.remove" and _is_open(arguments[0]):
        raise PermissionError(13, "The process cannot access the file: it is open", os.fsdecode(arguments[0]))


def _pretend() -> None:
    parent = os.getppid() + 1_000_000
    builtins.__import__ = _import_as_on_windows
    sys.meta_path.insert(0, _Finder())
    os.kill = _send
    os.getppid = lambda: parent
    subprocess.Popen = _StartedOnWindows  # type: ignore[misc]
    subprocess.CREATE_NEW_PROCESS_GROUP = CREATE_NEW_PROCESS_GROUP  # type: ignore[attr-defined]
    sys.addaudithook(_audit)


_pretend()
