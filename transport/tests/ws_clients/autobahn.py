"""Runs the core cases of Autobahn|Testsuite: autobahn.py PACKAGES ADDRESS REPORTS. Python 2.7, see autobahn.sh.

MQTT is a stream of bytes in binary frames. So the suite is adapted in two places, and nowhere else:

  - Its text frames go out as binary ones. A text frame is refused with 1003 [MQTT-6.0.0-1], which the clients beside
    this file look at; here the framing is what matters. Category 6 is about UTF-8 in text, so it is left out.
  - Where a case waits for a message, the bytes count, in however many frames they come back [MQTT-6.0.0-2].
"""
from __future__ import print_function

import json
import os
import shutil
import site
import sys

# Before those that `pip install --target` put beside each other in namespaces (zope).
sys.path.insert(0, sys.argv[1])
site.addsitedir(sys.argv[1])

from autobahntestsuite import fuzzing  # chooses the reactor
from autobahntestsuite.case import Case
from twisted.internet import reactor

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "7.*", "10.*"]
# Both halves of a verdict: what came back, and how the connection ended.
WELL = {"behavior": ["OK", "NON-STRICT", "INFORMATIONAL"], "behaviorClose": ["OK", "INFORMATIONAL"]}
NOTHING = "it waits for an empty message, and of a stream nothing comes back for nothing"
# Cases that must fail here, with the reason: one that does not is a fault of this list.
FAILS = {"1.1.1": NOTHING, "1.2.1": NOTHING}
TEXT, BINARY = 1, 2
Original = fuzzing.FuzzingClientProtocol


class Stream(Original):
    """The fuzzing client, with a stream of bytes on the other side."""

    def connectionMade(self):
        self.unread = ""
        Original.connectionMade(self)

    def sendFrame(self, opcode, *args, **kwargs):
        opcode = BINARY if opcode == TEXT else opcode
        Original.sendFrame(self, opcode, *args, **kwargs)

    def logTxFrame(self, *args):
        Original.logTxFrame(self, *args)
        self.txFrameStats[TEXT] = self.txFrameStats.get(BINARY, 0)  # case 10.1.1 counts them

    def onMessage(self, payload, binary):
        if not binary:
            raise AssertionError("the server sent text")
        self.unread += payload
        while self.runCase:
            had = len([event for event in self.runCase.received if event[0] == "message"])
            wanted = [event for event in self.runCase.expected.get(Case.OK, []) if event[0] == "message"][had:]
            if wanted and len(self.unread) < len(wanted[0][1]):
                return
            size = len(wanted[0][1]) if wanted else len(self.unread)
            if not size:
                return
            whole, self.unread = self.unread[:size], self.unread[size:]
            Original.onMessage(self, whole, wanted[0][2] if wanted else True)


def main(address, folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    fuzzing.FuzzingClientProtocol = Stream
    server = {"agent": "ringmain", "url": "ws://%s/mqtt" % address, "protocols": ["mqtt"]}
    fuzzing.startClient({"outdir": folder, "servers": [server], "cases": CASES, "exclude-cases": []})
    reactor.run()
    with open(os.path.join(folder, "index.json")) as index:
        results = json.load(index)["ringmain"]
    faults = []
    for case, result in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        well = all(result[half] in verdicts for half, verdicts in WELL.items())
        if well == (case in FAILS):
            faults.append("%s: %s, close: %s" % (case, result["behavior"], result["behaviorClose"]))
    print("%d passed, %d failed" % (len(results) - len(faults), len(faults)))
    print("%d of those that passed must fail: %s" % (len(FAILS), ", ".join(sorted(FAILS))))
    for fault in faults:
        print("FAULT", fault)
    return 1 if faults or len(results) < 100 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[2:]))
