"""Where Debian's mosquitto deviates from what these tests require. Patterns over `file.py::test[parameters]`.

Only the mosquitto adapter reads this table: nothing here is ever allowed to Ringmain.
"""

DEVIATIONS: dict[str, str] = {}
