"""The round driver's calls, through Ray: references go between actors, records to the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import ray

from actors.hosts import Deadline, Hosts
from actors.refs import Messages, Ref, States
from actors.server_handle import ServerHandle
from actors.task_names import of_round
from fedfuse_ray.federation.checkpoints.promise import Journal
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.records import TrainRecord
from fedfuse_ray.federation.modes import mode_of
from fedfuse_ray.federation.modes.delivery import Sent
from fedfuse_ray.federation.modes.exchange import Answer
from fedfuse_ray.federation.modes.outcome import Closed
from fedfuse_ray.federation.plan.plan import Plan


class RayCalls:
    """Calls all hosts at once, and the parameter server.

    Args:
        plan: The federation's plan.
        hosts: The actors that institutions live in.
        server: The parameter server.
        states: What the institutions of each host keep, by host.
        round_seconds: How long the institutions' part of a round may take.
        attempts: Counts the rounds that this session has begun.
        journal: Where survivors are kept before their sums are unmasked.
    """

    def __init__(
        self,
        plan: Plan,
        hosts: Hosts,
        server: ServerHandle,
        states: Mapping[str, Ref[States]],
        round_seconds: float,
        attempts: Iterator[int],
        journal: Journal,
    ) -> None:
        self._journal = journal
        self._plan, self._hosts, self._server = plan, hosts, server
        self._attempts = attempts
        self._round_seconds = round_seconds
        self._nothing_kept: Ref[States] = ray.put({})
        self._no_answer: Ref[Answer] = ray.put(Answer())
        # A member of a round of several steps is lost with its process, and the round with it.
        self._again = not mode_of(plan).remembers
        self.states = dict(states)

    def begin(self, round: int, epoch: int) -> None:
        """Have the server broadcast."""
        self._epoch = epoch
        # Never twice the same in a session, whoever died in between.
        attempt = next(self._attempts)
        self._journal.begin(attempt)
        self._broadcast: Ref[Broadcast] = self._server.begin(attempt, epoch)
        self._answer = self._no_answer
        self._deadline = Deadline.after(self._round_seconds, "round_seconds")

    def take(
        self, step: str, round: int, idle: Sequence[str], behind: Sequence[str]
    ) -> tuple[Sent[Ref[Messages]], list[TrainRecord]]:
        """Let all institutions but the idle ones take a step."""
        messages: dict[str, Ref[Messages]] = {}
        states: dict[str, Ref[States]] = {}
        given = (step, round, self._answer, self._broadcast)
        span = of_round(round, self._plan.experiment.training.rounds)

        def call(host: str) -> Ref[list[TrainRecord]]:
            task = self._hosts.actors[host].take.options(
                num_returns=3, name=f"{span}: {step} {host}"
            )
            kept = self.states.get(host, self._nothing_kept)
            records: Ref[list[TrainRecord]]
            messages[host], states[host], records = task.remote(
                *given, kept, list(idle), list(behind), self._journal.memory
            )
            return records

        answers = self._hosts.call(
            call, f"round {round}: {step}", self._deadline, again=self._again
        )
        if self._plan.keeps_state:
            self.states = states
        layout = self._hosts.layout
        return (
            [(messages[host.name], host.participants) for host in layout],
            [record for answer in answers.values() for record in answer],
        )

    def close(self, step: str, round: int, sent: Sent[Ref[Messages]]) -> bool:
        """Have the server close a step before the last."""
        answer, survivors = self._server.close(step, round, sent)
        self._journal.note(round, self._epoch, survivors)
        self._answer = answer or self._no_answer
        return answer is not None

    def finish(self, round: int, sent: Sent[Ref[Messages]]) -> Closed:
        """Have the server close the last step, and step itself."""
        return self._server.finish(round, sent)

    def lost(self, round: int) -> Closed:
        """Have the server end a round that is lost."""
        return self._server.lost(round)
