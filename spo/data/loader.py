"""From a data module to Lightning: one item of the train loader = one optimizer step."""

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Sampler

from spo.types import PreferenceBatch

THREAD = "steps ahead"  # its name


class HasSteps(Protocol):
    """A data module: this rank's micro-batches of global batch k."""

    def step(self, k: int) -> list[PreferenceBatch]: ...


class HasStepsInTurn(HasSteps, Protocol):
    """One that makes steps before their turn, and is told when that has come."""

    def begin(self, k: int) -> None: ...


class Steps:
    """A map from the number of a global batch to this rank's share."""

    def __init__(self, data: HasSteps) -> None:
        self.data = data

    def __getitem__(self, k: int) -> list[PreferenceBatch]:
        return self.data.step(k)


class StepsAhead:
    """The steps that `numbers` names, one after the other, the next `ahead` of them made while the device works.

    A thread makes them: it draws no random numbers, and takes no part in what ranks say to one another. What it cannot
    make is raised where its turn comes. Nothing here counts: the position in the data is what was trained on, however
    much lies ready. device: to which batches go; for a GPU they are pinned. ahead 0: a step is made when asked for.
    """

    def __init__(self, data: HasStepsInTurn, numbers: Sampler[int], *, ahead: int, device: torch.device) -> None:
        self.data, self.numbers, self.ahead, self.device = data, numbers, ahead, device

    def __len__(self) -> int:
        return len(self.numbers)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[PreferenceBatch]]:
        if not self.ahead:
            for k in self.numbers:
                step = self.data.step(k)
                self.data.begin(k)
                yield step
            return
        maker = _Maker(self.data, self.numbers, self.ahead, self.device)
        try:
            for k, step in maker.made():
                self.data.begin(k)
                yield step
        finally:  # also where the loop over the steps is left, or fails
            maker.stop()


class _Maker:
    def __init__(self, data: HasSteps, numbers: Iterable[int], ahead: int, device: torch.device) -> None:
        self.data, self.numbers, self.device = data, numbers, device
        self._made: SimpleQueue[tuple[int, list[PreferenceBatch]] | BaseException | None] = SimpleQueue()
        self._room = threading.Semaphore(ahead)  # steps that may be made now
        self._stopped = False
        self._thread = threading.Thread(target=self._make, name=THREAD, daemon=True)
        self._thread.start()

    def made(self) -> Iterator[tuple[int, list[PreferenceBatch]]]:
        """Each step and its number, in order, waited for."""
        while (item := self._made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            self._room.release()
            yield item

    def stop(self) -> None:
        """The thread ends, at the latest after the step that it is making."""
        self._stopped = True
        self._room.release()
        self._thread.join()

    def _make(self) -> None:
        try:
            pin = self.device.type == "cuda"
            if pin:
                torch.cuda.set_device(self.device)  # else this thread would use the first GPU
            for k in self.numbers:
                self._room.acquire()
                if self._stopped:
                    return
                step = self.data.step(k)
                self._made.put((k, [batch.pin_memory() for batch in step] if pin else step))
            self._made.put(None)
        except BaseException as error:  # whatever it is, the run has to hear of it
            self._made.put(error)


def loader(dataset: Any, sampler: Sampler[int] | None = None) -> DataLoader[Any]:
    """Items as they are. A generator of its own: iterating must not draw from torch's global random numbers, or
    a validation would change the dropout of the next training step."""
    return DataLoader(dataset, sampler=sampler, batch_size=None, collate_fn=_as_is, generator=torch.Generator())


def _as_is(item: Any) -> Any:
    return item
