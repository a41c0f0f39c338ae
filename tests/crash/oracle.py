"""What a store must hold after a crash, given what its clients were told before it.

Owns: the model, and the verdict on what is found. Must never: talk to a server, or guess: an operation whose
answer did not arrive is unknown until a later read shows it whole or not at all.

Every writer owns its keys, so each key has one history and at most one unknown operation at its end:

  acknowledged   found with exactly its value, create revision, mod revision and version
  unknown        found either entirely or not at all; a txn never in part
  never sent     never found
  revision       1 + acknowledged changes + unknown ones that took effect: exact, so it cannot go back,
                 skip, or be given twice
"""

from collections import deque
from dataclasses import dataclass, field

from client import State

HISTORY_MAX = 4000
FIRST_REVISION = 1  # of an empty store


class Violation(Exception):
    """The store broke a promise."""


@dataclass(frozen=True)
class Operation:
    """Changes that take effect together: {key: new value, or None for a deletion of a key that exists}."""

    changes: dict


@dataclass
class Writer:
    """The model of one writer's keys."""

    name: str
    states: dict = field(default_factory=dict)  # key -> State; no entry while it does not exist
    pending: Operation = None
    last_revision: int = 0
    acknowledged: int = 0
    history: deque = field(default_factory=lambda: deque(maxlen=HISTORY_MAX))  # (revision, key, State or None)

    def acknowledge(self, operation, revision):
        if revision <= self.last_revision:
            raise Violation(f"{self.name}: revision {revision} acknowledged after {self.last_revision}")
        self.states = self.after(operation, revision)
        self.last_revision = revision
        self.acknowledged += 1
        self.history.extend((revision, key, self.states.get(key)) for key in operation.changes)

    def after(self, operation, revision):
        """The states once the operation has taken effect at a revision."""
        states = dict(self.states)
        for key, value in operation.changes.items():
            before = states.pop(key, None)
            if value is not None:
                create, version = (before.create, before.version + 1) if before else (revision, 1)
                states[key] = State(value, create, revision, version)
        return states

    def resolve(self, found, revision_max):
        """Decides the unknown operation by what is found; returns the changes (0 or 1) that turned out done."""
        operation, self.pending = self.pending, None
        if operation is None:
            return 0
        touched = operation.changes.keys()
        if all(found.get(key) == self.states.get(key) for key in touched):
            return 0
        revisions = {found[key].mod for key, value in operation.changes.items() if value is not None and key in found}
        if not revisions and all(value is None for value in operation.changes.values()):
            revisions = {None}  # deletions alone leave no mark of their revision
        if len(revisions) == 1:
            [revision] = revisions
            done = self.after(operation, revision)
            in_order = revision is None or self.last_revision < revision <= revision_max
            if in_order and all(found.get(key) == done.get(key) for key in touched):
                self.states = done
                self.last_revision = revision or self.last_revision
                if revision is not None:
                    self.history.extend((revision, key, done.get(key)) for key in touched)
                return 1
        lines = [f"  {key!r}: before {self.states.get(key)}, asked for {value and value[:60]!r}, found {found.get(key)}"
                 for key, value in operation.changes.items()]
        raise Violation(f"{self.name}: an unanswered operation is there in part or changed:\n" + "\n".join(lines))


@dataclass
class Oracle:
    writers: list
    took_effect: int = 0  # unknown operations that turned out done
    compacted: int = 0
    compacting: int = 0  # a compaction without an answer

    def highest_acknowledged(self):
        return max(writer.last_revision for writer in self.writers)

    def check(self, found, revision):
        """Judges a whole read of the store; unknown operations are known afterwards."""
        for writer in self.writers:
            self.took_effect += writer.resolve(found, revision)
        expected = {key: state for writer in self.writers for key, state in writer.states.items()}
        wrong = [f"  {key!r}: acknowledged {expected.get(key)}, found {found.get(key)}"
                 for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
        if wrong:
            more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
            raise Violation(f"{len(wrong)} keys are wrong:\n" + "\n".join(wrong[:10]) + more)
        changes = sum(writer.acknowledged for writer in self.writers) + self.took_effect
        if revision != FIRST_REVISION + changes:
            raise Violation(f"revision is {revision} after {changes} changes")

    def readable_history(self):
        oldest = max(self.compacted, self.compacting)
        return [past for writer in self.writers for past in writer.history if past[0] >= oldest]
