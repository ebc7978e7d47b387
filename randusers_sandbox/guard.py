"""Run a command in the guard's own process group, and end that group with the supervisor.

A script of the standard library alone, so that it starts in milliseconds:
`guard.py LIFELINE COMMAND...`, LIFELINE being a pipe that only the supervisor holds open. It says
how the command ended as a shell does: its exit status, or 128 + the signal that ended it.
"""

import os
import signal
import sys
import threading

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_SECONDS = 10.0


def main(lifeline: int, command: list[str]) -> int:
    """Run the command to its end and return its status."""
    lost, ended = threading.Event(), threading.Event()

    def end_with_supervisor() -> None:
        os.read(lifeline, 1)
        lost.set()
        os.killpg(0, signal.SIGTERM)
        ended.wait(STOP_SECONDS)
        os.killpg(0, signal.SIGKILL)

    # The group's signals are for the command. A handler, unlike SIG_IGN, does not outlive exec.
    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    os.set_inheritable(lifeline, False)  # noqa: FBT003 - the name of the function says which
    try:
        process = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )
    except OSError as error:
        sys.stderr.write(f"randusers sandbox: cannot run {command[0]}: {error.strerror}.\n")
        return 126
    watcher = threading.Thread(target=end_with_supervisor, daemon=True)
    watcher.start()
    _, status = os.waitpid(process, 0)
    ended.set()
    if lost.is_set():
        watcher.join()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
