"""What the scripts that call many providers have in common.

STRONGROOM_CASES is a JSON list of objects with `name`, `base_url`, `key`, `wrong_key` and `model`, and
what one SDK alone needs. Each case is called three times: plainly, streamed, and with the wrong key.
Prints one JSON object with what came of each, by name; a call that should have been served and was not
has a `failed` in its place.
"""

import json
import os
import sys
from collections.abc import Callable

PROMPT = os.environ.get("STRONGROOM_PROMPT", "Say hello.")
SAY = [{"role": "user", "content": PROMPT}]


def failure(error: Exception, status: Callable) -> dict:
    return {
        "class": type(error).__name__,
        "package": type(error).__module__.split(".")[0],
        "status": status(error),
        "message": str(error),
    }


def main(calls: dict[str, Callable], status: Callable) -> None:
    def call(one: Callable, case: dict) -> dict:
        try:
            return one(case)
        except Exception as error:
            return {"failed": failure(error, status)}

    def refused(case: dict) -> dict:
        one = next(iter(calls.values()))
        return call(one, {**case, "key": case["wrong_key"]}).get("failed", {"class": "none"})

    got = {}
    for case in json.loads(os.environ["STRONGROOM_CASES"]):
        served = {name: call(one, case) for name, one in calls.items()}
        got[case["name"]] = {**served, "refused": refused(case)}
    json.dump(got, sys.stdout)
