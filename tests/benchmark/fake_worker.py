"""A worker that measures nothing and answers at once, in place of another framework's."""

import time
from pathlib import Path

# Answers as `benchmarks/peers/config.py` does; what it is asked to do stands in its setting.
FAKE = """
import json, shutil, sys, time
options = json.loads(sys.argv[1])
if options["setting"] == "cannot be built":
    print(json.dumps({"error": "ImportError: no such thing"}))
    sys.exit()
framework = f"Fake 1.0, {options['precision']}"
print(json.dumps({"framework": framework, "phases": ["train", "infer"]}), flush=True)
steps = 0
for line in sys.stdin:
    request = json.loads(line)
    steps += request.get("steps", 0)
    if options["setting"] == "dies" and steps > 1:
        sys.exit(3)
    if request["phase"] == "check":
        answer = {"error": "KeyError: no weights"} if options["setting"] == "no check" else {}
        shutil.copy(options["list"], request["file"])
    elif request["phase"] == "memory":
        answer = {"mib": 100.0}
    else:
        time.sleep(0.02 * request["steps"])
        answer = {"steps": [{"iteration": 0.02}] * request["steps"]}
    print(json.dumps(answer), flush=True)
"""


def state(process: int) -> str:
    """Of a process; "T" if it is stopped, which may take a moment to be seen."""
    deadline, found = time.monotonic() + 5, ""
    while found != "T" and time.monotonic() < deadline:
        found = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        time.sleep(0.01)
    return found
