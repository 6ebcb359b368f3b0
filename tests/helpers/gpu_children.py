"""What test_gpu_study.py lets the processes of a study do in place of training."""

import os
import signal
import time

from gpu_study import ROWS, Children, become_training


def complete_or_never(repository, seed, pipe):
    """Send the lines of an even seed at once; an odd one takes for ever."""
    become_training()
    while seed % 2:
        time.sleep(0.05)
    pipe.send([{"seed": seed, "row": row} for row in ROWS])


def fail(repository, seed, pipe):
    """Send why an even seed failed; an odd one is lost without a word."""
    if seed % 2:
        os._exit(7)
    pipe.send("LossError: a loss is nan")


def send_pid_and_wait(repository, seed, pipe):
    """Say who this is, and take for ever."""
    become_training()
    pipe.send(os.getpid())
    while True:
        time.sleep(0.05)


def start_one_and_be_killed(repository, seed, pipe):
    """Start a process, say which, and be killed, so that nothing is cleaned up."""
    children = Children()
    pipe.send(children.answer(children.start(send_pid_and_wait, None, 0)))
    os.kill(os.getpid(), signal.SIGKILL)
