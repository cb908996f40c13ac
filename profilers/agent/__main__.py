"""Entry of the zipapp. This file alone must be readable by every Python, to say which one it needs."""

import sys

if sys.version_info < (3, 8):  # this runs under the board's Python
    sys.exit("the agent needs Python 3.8 or newer, %s is %s" % (  # old Pythons have no f-strings
        sys.executable, sys.version.split()[0]))

from profilers.agent.options import main  # noqa: E402 - after the check

main(sys.argv[1:])
