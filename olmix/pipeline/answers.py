"""Asking many questions of a remote that may be slow, or dead without saying so.

Threads ask, and whoever waits gives up when nothing at all has been heard for `patience` seconds, an answer or a byte.
The threads are daemons: a question that never returns holds up neither the caller nor the end of the process. Given up
is a thread that still hangs, which Python cannot end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

# Seconds for the threads that do not hang to end what they are at, and to remove their temporary files.
_TO_TIDY_UP = 1.0


class Silence(Exception):  # noqa: N818  # what happened, in one word
    """Nothing was heard for too long; the message says how long."""


class Asking(Generic[Question, Answer]):
    """The questions of one kind, asked side by side: iterate over the answers, in the order in which they come.

    `ask` is called in several threads at once. What it raises is handed out as the answer. Iterating raises Silence.
    """

    def __init__(self, ask: Callable[[Question, Callable[[], None]], Answer], threads: int, patience: float) -> None:
        self._ask = ask
        self._threads = threads
        self._patience = patience
        self._heard = 0.0

    def _sign_of_life(self) -> None:
        self._heard = time.monotonic()

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer | Exception]]:
        """Each question with its answer. `ask` gets a question and a function to call whenever something was heard."""
        waiting: SimpleQueue[Question] = SimpleQueue()
        answered: SimpleQueue[tuple[Question, Answer | Exception]] = SimpleQueue()
        left = 0
        for question in questions:
            waiting.put(question)
            left += 1
        given_up = threading.Event()

        def work() -> None:
            while not given_up.is_set():
                try:
                    question = waiting.get_nowait()
                except Empty:
                    return
                try:
                    answered.put((question, self._ask(question, self._sign_of_life)))
                except Exception as error:  # a remote's library may raise anything; the caller judges it
                    answered.put((question, error))
                self._sign_of_life()

        self._sign_of_life()
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self._threads, left))]
        for thread in threads:
            thread.start()
        try:
            for _ in range(left):
                yield self._next(answered)
        finally:
            given_up.set()
            until = time.monotonic() + _TO_TIDY_UP
            for thread in threads:
                thread.join(max(until - time.monotonic(), 0.0))

    def _next(self, answered: SimpleQueue[tuple[Question, Answer | Exception]]) -> tuple[Question, Answer | Exception]:
        while True:
            wait = self._heard + self._patience - time.monotonic()
            try:
                return answered.get(timeout=max(wait, 0.01))
            except Empty:
                if time.monotonic() - self._heard >= self._patience:
                    raise Silence(f"no answer in {self._patience:g} s") from None
