"""
The interpreter's collector of cycles: it looks seldom, and not at what stays anyway.

Theory. It looks for cycles whenever so many more objects have been made than let go. A crowd that comes at once makes
just that, and so each of its logins paid a tenth of itself for looking at those before it, and all had to wait while
every module of the process was looked at too. Here hardly anything ends as part of a cycle: what ends is let go at
once, and thousands of logins leave nothing to collect. So what is there once the proxy is up is not looked at again,
and the young are looked at when there are `YOUNG` of them: some 500 clients. All are looked at about as seldom as
before, so what little is found does not wait longer.
"""

import gc
from typing import Final

YOUNG: Final = 10_000  # objects; a few megabytes at the most. The interpreter's own is 700
THRESHOLDS: Final = (YOUNG, 5, 1)  # the interpreter's own: 700, 10, 10


def settle_in() -> None:
    """Everything that will stay is there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
