"""
A proxy whose names are looked up in a file: what /etc/hosts and DNS say is not for a test to change.

Theory. `run(path)` is the proxy's own command line with one thing replaced, the question to the system's resolver.
The file has a line per name, `db 127.0.0.2 127.0.0.3`, and is read for each lookup; a name it lacks does not exist.
`Names` writes it: `say` what names lead to, `fail` as a name server does that does not answer.
"""

import shutil
import socket
import tempfile
from pathlib import Path

FAILING = "!"


class Names:
    """The name server of one test."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="pgshuttle-names-"))
        folder.chmod(0o755)  # the proxy may be somebody else
        self._path = folder / "names"
        self.say()

    def remove(self) -> None:
        shutil.rmtree(self._path.parent)

    @property
    def program(self) -> tuple[str, str]:
        """For `Stand`."""
        return "-c", f"from tests.live.names import run; run({str(self._path)!r})"

    def say(self, **names: str) -> None:
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_text("".join(f"{name} {addresses}\n" for name, addresses in names.items()))
        unfinished.rename(self._path)

    def fail(self) -> None:
        self._path.write_text(FAILING)


def run(path: str) -> None:
    from proxy import __main__, resolver  # noqa: PLC0415 - in the child only

    async def look_up(name: str) -> list[str]:
        text = Path(path).read_text()
        if text == FAILING:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        known = {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}
        if name not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known[name]

    resolver.ask_system = look_up
    __main__.run()
