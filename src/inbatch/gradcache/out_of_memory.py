"""Out of memory in a step: use less for the rest of it and for all further steps.

What is lowered, in this order: the graphs that are kept, by halves; the chunks, by halves; the panels of the
loss, by halves. Each only where it helps: the loss has no chunks, and a chunk no panels.

Most of it is done in place (retry.py). A backward with nothing left to let go is cheaper to repeat with the
whole step, on one process and in the first batch of an optimizer step, where no gradient outlives the
failed attempt. Where all ranks take part in each forward, see shared.py. What is left ends the run, and the
error names the setting that needs less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

from inbatch.batch.batch import Batch, Chunk
from inbatch.batch.chunks import halve_chunks
from inbatch.device.memory import unless_out_of_memory
from inbatch.errors import ConfigError
from inbatch.gradcache.keep import KeepBudget
from inbatch.losses.base import MOST_PANEL_HALVINGS

T = TypeVar("T")
Place = Literal["guide", "embedding", "gather", "loss", "backward"]
PLACES: tuple[Place, ...] = get_args(Place)
_WORDS = {
    "guide": "the guide",
    "embedding": "embedding",
    "gather": "gathering the batch",
    "loss": "the loss",
    "backward": "the backward pass",
}


class Sizes(NamedTuple):
    """What has been lowered.

    num_halvings: of the chunks of every batch.
    panel_halvings: of the rows of the loss's panels.
    most_tokens: whose graphs are kept; None where that was not lowered.
    """

    num_halvings: int
    panel_halvings: int
    most_tokens: int | None


class OutOfMemoryHandler:
    """Remembers what has been lowered, and lowers it; a `Relief` of retry.py.

    Args:
        budget: of the kept graphs.
    """

    def __init__(self, budget: KeepBudget) -> None:
        self.num_halvings = 0
        self.panel_halvings = 0
        self.budget = budget
        self.may_repeat = False  # of the batch that is run
        self.place: Place = "embedding"  # where the batch is
        self._places: list[Place] = []  # where memory has run out in it
        self._before = self.sizes  # the batch

    @property
    def sizes(self) -> Sizes:
        """What has been lowered up to now."""
        return Sizes(self.num_halvings, self.panel_halvings, self.budget.most_tokens)

    def fit(self, batch: Batch) -> Batch:
        """The batch in chunks of the size that has been found to fit."""
        if self.num_halvings == 0:
            return batch
        chunks = self._halved(batch.chunks)
        return batch._replace(
            chunks=chunks,
            guide_chunks=self._halved(batch.guide_chunks),
            num_padded_tokens=sum(chunk.input_ids.numel() for chunk in chunks),
        )

    def _halved(self, chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
        for _ in range(self.num_halvings):
            chunks = halve_chunks(chunks)
        return tuple(chunks)

    def keep_fewer(self, held: Sequence[Chunk]) -> int:
        """Keep half of what is held; return how many of these graphs may stay."""
        self._note()
        return self.budget.lower(held)

    def halve(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Cut chunks in two from now on; give back these so, or none where the first is a single text."""
        if chunks[0].num_texts <= 1:
            return ()
        self.halve_later()
        return halve_chunks(chunks)

    def halve_later(self) -> None:
        """Cut chunks in two from the next batch on."""
        self._note()
        self.num_halvings += 1

    def halve_panels(self) -> bool:
        """Cut the panels of the loss in two from now on; False where they have a single row."""
        if self.panel_halvings == MOST_PANEL_HALVINGS:
            return False
        self._note()
        self.panel_halvings += 1
        return True

    def _note(self) -> None:
        if self.place not in self._places:
            self._places.append(self.place)

    def begin(self) -> None:
        """A batch begins."""
        self._before = self.sizes
        self._places.clear()

    def report(self, say: Callable[[str], None]) -> None:
        """Say what has been lowered since the batch began, if something was."""
        if self.sizes != self._before:
            places = _listed([_WORDS[place] for place in self._places])
            say(f" in {places}: {self.describe(self._before)} from here on")

    def run(
        self,
        attempt: Callable[[], T],
        *,
        batch: Batch,
        may_repeat: bool,
        may_let_go: bool,
        undo: Callable[[], None],
        say: Callable[[str], None],
    ) -> T:
        """The result of `attempt`, repeated as often as it runs out of memory and something can be lowered.

        Args:
            attempt: cuts its batch by `fit`, sets `place`, and asks this handler for relief.
            batch: of the step.
            may_repeat: whether repeating the whole attempt is exact.
            may_let_go: whether an attempt lets go of the graphs that it holds where memory runs out.
            undo: takes back what a failed attempt has accumulated.
            say: prints the rest of a line that begins with "out of memory", if something was lowered.

        Raises:
            ConfigError: nothing is left to lower.
        """
        self.begin()
        self.may_repeat = may_repeat
        while True:
            found = unless_out_of_memory(attempt)
            if not isinstance(found, RuntimeError):
                break
            if not may_repeat or not self._lower(batch):
                held = 0 if may_let_go else self.budget.num_keep(batch.chunks)
                raise too_large(self.fit(batch), self.place, held=held) from found
            undo()
        self.report(say)
        return found

    def lower_kept(self, batch: Batch) -> bool:
        """Keep half as many graphs as this batch has kept; False where it has kept none."""
        chunks = self.fit(batch).chunks
        kept = self.budget.num_keep(chunks)
        if kept:
            self.keep_fewer(chunks[:kept])
        return kept > 0

    def _lower(self, batch: Batch) -> bool:
        """Lower the next setting before a repeated attempt; False where nothing is left."""
        if self.place == "loss":  # which has lowered what helps it
            return False
        if self.lower_kept(batch):
            return True
        if all(chunk.num_texts <= 1 for chunk in self.fit(batch).chunks):
            return False
        self.halve_later()
        return True

    def describe(self, before: Sizes) -> str:
        """What holds now, of the settings that were lowered."""
        parts = []
        if self.budget.most_tokens != before.most_tokens:
            most = self.budget.most_tokens
            parts.append(
                f"graphs of at most {most:,} tokens are kept" if most else "no graph is kept"
            )
        if self.num_halvings != before.num_halvings:
            parts.append(f"chunks are cut to 1/{2**self.num_halvings} of their size")
        if self.panel_halvings != before.panel_halvings:
            parts.append(f"panels of the loss are cut to 1/{2**self.panel_halvings}")
        return _listed(parts)


def _listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def too_large(batch: Batch, place: Place, *, held: int) -> ConfigError:
    """The error for a batch that does not fit, with the setting that helps.

    Args:
        batch: in the chunks that did not fit.
        place: where memory ran out.
        held: graphs that were held meanwhile.
    """
    if place == "guide" and batch.guide_chunks:
        most = max(chunk.input_ids.numel() for chunk in batch.guide_chunks)
        return ConfigError(
            "guide.chunk_tokens",
            f"leaves too little memory for the guide, with chunks of up to {most} tokens",
            f"set guide.mode=stored, or guide.chunk_tokens={max(1, most // 2)}",
        )
    if place not in ("embedding", "backward") and held:
        return ConfigError(
            "gradcache.keep_gib",
            f"leaves too little memory for {_WORDS[place]} beside {held} kept graphs",
            "set less, or 0",
        )
    if place not in ("embedding", "backward"):
        return ConfigError(
            "global_batch_size",
            f"does not fit in memory in {_WORDS[place]}, beside no kept graph",
            "lower it, or set trainer.devices to more and gather=ring, where no rank holds all rows",
            value=batch.num_global_rows,
        )
    shapes = [chunk.input_ids.shape for chunk in batch.chunks]
    tokens = max((rows * width for rows, width in shapes), default=0)
    longest = max((width for _, width in shapes), default=0)
    fix = (
        f"gradcache.chunk_tokens={tokens // 2} gradcache.keep_gib=0"
        if tokens // 2 >= longest
        else "encoder.gradient_checkpointing=true gradcache.keep_gib=0, or a smaller "
        "encoder.max_length"
    )
    return ConfigError(
        "gradcache", f"runs out of memory with chunks of up to {tokens} tokens", f"set {fix}"
    )
