"""A shell that runs `xalma` commands in forks of one process: as many as one likes, and the imports are paid once.

    with Shell(folder) as shell:
        job = shell.start("stage", "1", …)    # goes on by itself; job.kill() is SIGKILL
        done = shell.run("translate", …)      # Done(code, out, err)

Run as a script it is the server: it reads one command per line as JSON, forks, and answers with the process's number.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Done:
    """What a command gave: exit status (None if it was killed), standard output and standard error."""

    code: int | None
    out: str
    err: str

    def one_sentence(self, *names: str) -> bool:
        """Whether it failed with one line on stderr that holds all of `names`, and nothing else."""
        lines = [line for line in self.err.splitlines() if line.startswith("xalma: ")]
        plain = "Traceback" not in self.err and len(lines) == 1 and not self.out
        return bool(self.code) and plain and all(name in lines[0] for name in names)


@dataclass
class Job:
    """A command that was started; its files are `base`.out, .err and, at its end, .code."""

    pid: int
    base: Path

    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float = 1800) -> Done:
        end = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"no end after {timeout:.0f} s: {self.base.read_text()}")
            time.sleep(0.01)
        code, out, err = (self.base.with_suffix(kind) for kind in (".code", ".out", ".err"))
        return Done(int(code.read_text()) if code.exists() else None, out.read_text(), err.read_text())


class Shell:
    """Commands are run in the folder `work`, which must be there, with the environment of now."""

    def __init__(self, work: Path) -> None:
        self.work, self.n = work / "shell", 0
        self.work.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Shell:
        paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        env = {
            **os.environ,
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1",
        }
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.stdin.close()
        self.server.wait()

    def start(self, *arguments: object, stdin: str = "", saves: int | None = None) -> Job:
        """saves: it kills itself, by SIGKILL, after so many checkpoints; whoever watches it may come too late."""
        self.n += 1
        base = self.work / f"{self.n:05d}"
        base.write_text(stdin, encoding="utf-8")
        print(json.dumps([str(base), saves, *map(str, arguments)]), file=self.server.stdin, flush=True)
        return Job(int(self.server.stdout.readline()), base)

    def run(self, *arguments: object, stdin: str = "", timeout: float = 1800) -> Done:
        return self.start(*arguments, stdin=stdin).wait(timeout)


def _serve() -> None:
    import torch

    import xalma.cli.main
    import xalma.models.generation
    import xalma.training.ladder  # all that a command imports later

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    answers = os.dup(1)
    for line in sys.stdin:
        base, saves, *arguments = json.loads(line)
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, (suffix, flags) in enumerate((("", os.O_RDONLY), (".out", _WRITE), (".err", _WRITE))):
                os.dup2(os.open(base + suffix, flags, 0o644), number)
            if saves:
                _die_after(saves)
            code = 70  # an exception that main did not catch
            try:
                code = xalma.cli.main.main(arguments)
            except SystemExit as end:
                code = end.code
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
            Path(base + ".code").write_text(str(code))
            os._exit(0)
        os.write(answers, f"{pid}\n".encode())


def _die_after(saves: int) -> None:
    """This process's checkpoint number `saves` is its last."""
    from xalma.training.checkpoints import Checkpoints

    save, left = Checkpoints.save, [None] * saves

    def save_or_die(self: Checkpoints, *args: object) -> bool:
        done = save(self, *args)
        left.pop()
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Checkpoints.save = save_or_die


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

if __name__ == "__main__":
    _serve()
