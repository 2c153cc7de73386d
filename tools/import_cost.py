"""Prints what importing modules, in this order, costs a fresh process, as JSON.

    python -I tools/import_cost.py torch lierope

For each module: seconds, MiB resident, and MiB of pages that no other process shares.
"""

import json
import sys
import time


def memory() -> dict[str, float]:
    """MiB of this process."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file if line.count(":") == 1)
    kib = {key: int(text.split()[0]) for key, text in fields.items() if text.strip().endswith("kB")}
    own = kib["Private_Dirty"] + kib["Private_Clean"]
    return {"resident_mib": kib["Rss"] / 1024, "private_mib": own / 1024}


def measure(name: str) -> dict[str, float]:
    """What one import adds."""
    before, start = memory(), time.perf_counter()
    __import__(name)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, **{key: mib - before[key] for key, mib in memory().items()}}


if __name__ == "__main__":
    print(json.dumps({name: measure(name) for name in sys.argv[1:]}))
