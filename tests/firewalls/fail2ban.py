"""Starts fail2ban's jail sshd, bans an address, and leaves the rules: PROGRAM CONFIGURATION ADDRESS.

PROGRAM is the root of the unpacked package, CONFIGURATION a directory in the place of /etc/fail2ban. The server stays
within this process and gets the commands that fail2ban-client would send it. It ends without stopping the jail, which
would take the rules away.
"""

import logging
import os
import sys
import types

program, configuration, address = sys.argv[1:]
sys.path.insert(0, f"{program}/usr/lib/python3/dist-packages")

# The server's socket, which nothing uses here, is made with a module that Python 3.12 no longer has.
socket = types.ModuleType("fail2ban.server.asyncserver")
socket.AsyncServer = socket.AsyncServerException = Exception
sys.modules[socket.__name__] = socket

from fail2ban.client.configurator import Configurator  # noqa: E402
from fail2ban.server.server import Server  # noqa: E402
from fail2ban.server.transmitter import Transmitter  # noqa: E402


def give_up(reason):
    # Not by an exception: the jail's thread would keep the process alive.
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


# A command that fails, such as nft's, is an error in the log and nothing else. The server keeps the handlers of its own
# logger for itself, so this one is the root's.
class Errors(logging.Handler):
    seen = []

    def emit(self, record):
        self.seen.append(record.getMessage())


logging.getLogger().addHandler(Errors(logging.ERROR))

configurator = Configurator()
configurator.setBaseDir(configuration)
configurator.readAll()
configurator.getEarlyOptions()
if not configurator.getOptions("sshd"):
    give_up(f"the jail sshd of {configuration}: {Errors.seen}")
configurator.convertToProtocol()

transmitter = Transmitter(Server())
# A ban is done when its command returns.
for command in [*configurator.getConfigStream(), ["set", "sshd", "banip", address]]:
    failed, answer = transmitter.proceed(command)
    if failed:
        give_up(f"{command}: {answer}")
if Errors.seen:
    give_up("\n".join(Errors.seen))
os._exit(0)
