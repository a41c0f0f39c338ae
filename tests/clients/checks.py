"""What the Python clients' tests share.

Owns: how a test fails, and what is said of all of them. Must never: know a client.
"""


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} instead of {wanted!r}")


def run_all(cases, run):
    """Runs `run` for each (name, case), says how each ended, and answers the exit status."""
    failed = 0
    for name, case in cases:
        try:
            run(case)
        except Exception as error:  # noqa: BLE001  (any error is a failed test)
            failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}")
        else:
            print(f"ok   {name}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


def named(tests):
    """Tests under the names of their functions."""
    return [(test.__name__, test) for test in tests]
