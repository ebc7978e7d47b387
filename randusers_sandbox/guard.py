"""Run a command in its own process group, and end that group when the supervisor ends.

Usage: `guard.py PIPE COMMAND...`. PIPE is the read end of a pipe that only the supervisor keeps
open, so it closes however the supervisor ends. The exit status is the command's own, or 128 + the
number of the signal that ended it. Imports only the standard library, to start in milliseconds.
"""

import os
import signal
import sys
import threading

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_SECONDS = 6.0  # with what ends after it, all is over within 10


def main(pipe: int, command: list[str]) -> int:
    """Run the command and return its status."""
    orphaned, ended = threading.Event(), threading.Event()

    def end_with_supervisor() -> None:
        os.read(pipe, 1)
        orphaned.set()
        os.killpg(0, signal.SIGTERM)
        ended.wait(STOP_SECONDS)
        os.killpg(0, signal.SIGKILL)

    # The command, in the same group, handles these. SIG_IGN would be inherited by the command.
    for number in FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    os.set_inheritable(pipe, False)  # noqa: FBT003 - the function takes no keyword
    try:
        ignored_by_python = [signal.SIGPIPE, signal.SIGXFSZ]
        process = os.posix_spawnp(command[0], command, os.environ, setsigdef=ignored_by_python)
    except OSError as error:
        sys.stderr.write(
            f"randusers sandbox: cannot run {command[0]} ({error.strerror}): check that it is a"
            " program, or a script that starts with #!.\n"
        )
        return 126
    watcher = threading.Thread(target=end_with_supervisor, daemon=True)
    watcher.start()
    _, status = os.waitpid(process, 0)
    ended.set()
    if orphaned.is_set():
        watcher.join()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
