"""The processes that train one crosscoder: what each holds, and how their parts come together.

Processes form a grid of parts of the data and shards of the dictionary. Those of one shard hold the same latents and
see different tokens; those of one part see the same tokens and hold different latents.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional

from chronocoder.crosscoder.sparse import ActiveLatents, Kept, active_topk, active_where, keep_largest
from chronocoder.errors import ConfigError


class Team:
    """The place of this process among all.

    Attributes:
        rank: this process.
        processes: number of processes.
        shards: number of parts that the dictionary is cut into.
        shard: the part of the dictionary that this process holds.
        data_parts: number of parts of the data, each held by as many processes as there are shards.
        part: the part of the data that this process holds.
        parts: into which each batch is dealt, whatever the number of processes; 0: it is not.
    """

    def __init__(
        self,
        rank: int = 0,
        processes: int = 1,
        shards: int = 1,
        device: torch.device | str = "cpu",
        parts: int = 0,
    ) -> None:
        """Form the groups; every process has to call this at the same time.

        Args:
            rank: this process.
            processes: number of processes.
            shards: parts of the dictionary.
            device: where tensors have to be for processes to exchange them.
            parts: into which each batch is dealt; 0: into none.

        Raises:
            ConfigError: the processes cannot be shared out among the shards, or the parts among the processes.
        """
        if parts % processes:
            raise ConfigError(
                f"{processes} processes cannot hold {parts} parts of a batch evenly; make training.parts a multiple of"
                " training.processes, or 0"
            )
        if processes % shards:
            raise ConfigError(
                f"{processes} processes cannot hold {shards} dictionary shards evenly;"
                " make training.processes a multiple of training.dictionary_shards"
            )
        self.rank, self.processes, self.shards, self._device = rank, processes, shards, device
        self.part, self.shard = divmod(rank, shards)
        self.parts, self.data_parts = parts, processes // shards
        same_shard = [range(shard, processes, shards) for shard in range(shards)]
        self._same_shard = _own_group(same_shard, rank, self.data_parts)
        same_part = [range(part * shards, (part + 1) * shards) for part in range(self.data_parts)]
        self._same_part = _own_group(same_part, rank, shards)

    @property
    def leads(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    @property
    def own_parts(self) -> range:
        """The parts of a batch that this process reads."""
        each = self.all_parts // self.processes
        return range(self.rank * each, (self.rank + 1) * each)

    @property
    def all_parts(self) -> int:
        """How many parts the processes read: those that batches are dealt to, else one each."""
        return self.parts or self.processes

    @property
    def saves(self) -> bool:
        """Whether this process saves its shard: one of those that hold the same."""
        return self.part == 0

    def features(self, count: int) -> range:
        """Return the latents of a dictionary of `count` that this process holds.

        Raises:
            ConfigError: the dictionary cannot be cut evenly.
        """
        if count % self.shards:
            raise ConfigError(f"dictionary_size {count} is no multiple of {self.shards} dictionary shards; change one")
        size = count // self.shards
        return range(self.shard * size, (self.shard + 1) * size)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.processes > 1:
            dist.barrier()

    def add_all(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""
        return self._add(value, dist.group.WORLD) if self.processes > 1 else value

    def add_parts(self, value: Tensor) -> Tensor:
        """Return the sum over the parts of the data."""
        return self._add(value, self._same_shard) if self._same_shard else value

    def add_shards(self, value: Tensor) -> Tensor:
        """Return the sum over the shards of the dictionary; the gradient passes through to this shard's value."""
        if not self._same_part:
            return value
        add = self._add_in_order if self.parts else self._add
        summed: Tensor = _SumOverShards.apply(value, add, self._same_part)  # type: ignore[no-untyped-call]
        return summed

    def gather_all(self, rows: Float[Tensor, "row ..."]) -> Float[Tensor, "all_rows ..."]:
        """Return the rows of all processes, each of which gives as many."""
        if self.processes == 1:
            return rows
        return _gathered(rows.to(self._device), [len(rows)] * self.processes, dist.group.WORLD).to(rows.device)

    def gather_rows(self, rows: Float[Tensor, "row ..."], counts: Sequence[int]) -> Float[Tensor, "all_rows ..."]:
        """Return the rows of all parts of the data, which have so many each."""
        return _gathered(rows, counts, self._same_shard) if self._same_shard else rows

    def exchange_columns(
        self, rows: Float[Tensor, "token column"], tokens: Sequence[int], columns: Sequence[int]
    ) -> Float[Tensor, "all_tokens own_column"]:
        """Return some columns of the rows of all parts of the data.

        Args:
            rows: of this part.
            tokens: rows of each part.
            columns: how many columns each part's process gets.
        """
        if not self._same_shard:
            return rows
        own = columns[self.part]
        sent = torch.cat([block.flatten() for block in rows.split(list(columns), dim=1)])
        got = sent.new_empty(sum(tokens) * own)
        sizes = [count * own for count in tokens], [len(rows) * count for count in columns]
        dist.all_to_all_single(got, sent, *sizes, group=self._same_shard)
        return got.view(sum(tokens), own)

    def share_tokens(self, x: Float[Tensor, "token n"]) -> Float[Tensor, "all_tokens n"]:
        """Return the rows of all processes of this part of the data; each gives another number of rows."""
        if not self._same_part:
            return x
        counts = [torch.zeros((), dtype=torch.long, device=x.device) for _ in range(self.shards)]
        dist.all_gather(counts, torch.tensor(len(x), device=x.device), group=self._same_part)
        return _gathered(x, [int(count) for count in counts], self._same_part)

    def gather_shards(self, value: Float[Tensor, "feature ..."]) -> Float[Tensor, "all_features ..."]:
        """Return the whole dictionary's value on the leading process, elsewhere the own shard's; both on the CPU.

        One shard at a time passes over the leading process's device, which could not hold all of them.
        """
        own = value.detach().contiguous()
        if not self._same_part or not self.saves:
            return own.cpu()
        if not self.leads:
            dist.send(own, dst=0)
            return own.cpu()
        parts, room = [own.cpu()], torch.empty_like(own)
        for shard in range(1, self.shards):
            dist.recv(room, src=shard)
            parts.append(room.to("cpu", copy=True))
        return torch.cat(parts)

    def keep_largest(
        self, values: Float[Tensor, "token feature"], norms: Float[Tensor, " feature"], count: int, guess: Tensor
    ) -> Kept:
        """Return where value times norm is among the `count` largest positive ones over all processes, exactly."""
        return keep_largest(values, norms, count, self.add_all, guess)

    def largest_of_token(
        self, values: Float[Tensor, "token feature"], norms: Float[Tensor, " feature"], count: int
    ) -> ActiveLatents:
        """Return where value times norm is among the `count` largest positive ones of its token over all shards."""
        if not self._same_part:
            return active_topk(values, norms, min(count, values.shape[1]))
        weighted = (values * norms).relu_()
        return active_where((weighted >= self.kth_of_token(weighted, count)) & (weighted > 0))

    def kth_of_token(self, values: Float[Tensor, "token feature"], count: int) -> Float[Tensor, "token 1"]:
        """Return the `count`-th largest value of each token over all shards; -inf where there are fewer."""
        own = values.topk(min(count, values.shape[1]), dim=1).values
        own = functional.pad(own, (0, count - own.shape[1]), value=-torch.inf)  # a shard may hold fewer
        if self._same_part:
            gathered = [torch.empty_like(own) for _ in range(self.shards)]
            dist.all_gather(gathered, own, group=self._same_part)
            own = torch.cat(gathered, dim=1).topk(count, dim=1).values
        return own[:, -1:]

    def _add(self, value: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        summed = value.detach().to(self._device, copy=True, memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=group)
        return summed.to(value.device)

    @staticmethod
    def _add_in_order(value: Tensor, group: dist.ProcessGroup) -> Tensor:
        own = value.detach().contiguous()
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, own, group=group)
        return reduce(torch.Tensor.add_, gathered)

    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> Callable[[], None]:
        """Sum gradients over the parts of the data, each as soon as it is known; call the result before using them.

        Where batches are dealt to parts, gradients are of the whole batch from the start.
        """
        pending: list[Any] = []

        def start(parameter: Tensor) -> None:
            if self._same_shard and not self.parts:
                pending.append(dist.all_reduce(parameter.grad, group=self._same_shard, async_op=True))

        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(start)

        def finish() -> None:
            while pending:
                pending.pop().wait()

        return finish


class _SumOverShards(torch.autograd.Function):
    """The sum of all shards' values; all shards then compute the same loss, whose gradient is that of each value."""

    @staticmethod
    def forward(context: Any, value: Tensor, add: Callable[..., Tensor], group: dist.ProcessGroup) -> Tensor:
        return add(value, group)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


def _gathered(rows: Tensor, counts: Sequence[int], group: dist.ProcessGroup | None) -> Tensor:
    """Return the rows of all processes of a group, which have so many each."""
    padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded, group=group)
    return torch.cat([some[:count] for some, count in zip(gathered, counts, strict=True)])


def _own_group(groups: list[range], rank: int, size: int) -> dist.ProcessGroup | None:
    if size == 1:
        return None
    made = [(members, dist.new_group(list(members))) for members in groups]  # every process has to make them all
    own: list[dist.ProcessGroup] = [group for members, group in made if rank in members]
    return own[0]
