"""Worlds of 1, 2 and 4 ranks, which are processes that stay: to import torch and Lightning takes longer than a run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

MOST = 4


def serve(calls: Connection) -> None:
    """Run each function that comes through the pipe, as torchrun's process of the rank that it says."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    while True:
        environment, function, arguments, named = pickle.loads(calls.recv_bytes())
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
            os.environ.pop(name, None)
        os.environ.update(environment)
        try:
            found = function(*arguments, **named)
        except BaseException as error:
            found = error
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        calls.send_bytes(pickle.dumps(found))


class Worlds:
    """Processes that become the ranks of one world after another."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for _ in range(MOST):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs,))
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, ranks: int, function: Callable[..., Any], *arguments: Any, **named: Any) -> list[Any]:
        """What the function returns, or the exception that it raises, on each rank of a world of this size."""
        environment = {} if ranks == 1 else meeting(ranks)
        for rank in range(ranks):
            mine = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
            self._pipes[rank].send_bytes(pickle.dumps((mine, function, arguments, named)))
        found = []
        for rank in range(ranks):
            assert self._pipes[rank].poll(60), f"rank {rank} of {ranks} hangs"
            found.append(pickle.loads(self._pipes[rank].recv_bytes()))
        return found

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def meeting(ranks: int) -> dict[str, str]:
    """The environment variables that torchrun gives to all of its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "a test",
    }
