"""Cuts a sequence of operations down to one from which nothing more can be taken.

Owns: which parts are left out. Must never: know what an operation is, beyond that a part of it may be a list or a field.
"""


def shrink(operations, differs, tries_max):
    """Delta debugging: `differs(operations)` says whether the difference is still there, on fresh servers."""
    budget = Budget(differs, tries_max)
    operations = fewer(list(operations), budget)
    return simpler(operations, budget)


class Budget:
    def __init__(self, differs, tries_max):
        self.differs, self.left = differs, tries_max

    def __call__(self, operations):
        if self.left == 0:
            return False
        self.left -= 1
        return self.differs(operations)


def fewer(operations, differs):
    """Leaves out ever smaller pieces, from the end: what comes late is often only there by chance."""
    size = max(1, len(operations) // 2)
    while True:
        end, changed = len(operations), False
        while end > 0:
            begin = max(0, end - size)
            rest = operations[:begin] + operations[end:]
            if rest and differs(rest):
                operations, changed = rest, True
            end = begin
        if size == 1 and not changed:
            return operations
        size = max(1, size // 2)


def simpler(operations, differs):
    """Within the operations that are left: without a field, or without an item of a list."""
    position = 0
    while position < len(operations):
        name, fields = operations[position]
        for candidate in cut(fields):
            attempt = [*operations[:position], (name, candidate), *operations[position + 1:]]
            if differs(attempt):
                operations = attempt
                break
        else:
            position += 1
    return operations


KEPT = {"key", "stream", "ids", "id", "TTL", "ID"}


def cut(fields):
    """Every way to take one thing out of a request."""
    for name, value in fields.items():
        rest = {other: kept for other, kept in fields.items() if other != name}
        if name not in KEPT:
            yield rest
        if isinstance(value, dict):
            yield from ({**fields, name: smaller} for smaller in cut(value))
        if isinstance(value, list):
            for index, item in enumerate(value):
                before, after = value[:index], value[index + 1:]
                yield {**fields, name: before + after}
                if isinstance(item, dict):
                    yield from ({**fields, name: [*before, smaller, *after]} for smaller in cut(item))
