"""Calls the proxy with Anthropic's own SDK, as an application would.

    anthropic_calls.py every     plain and streamed messages
    anthropic_calls.py once      one plain call: prints what came back, or how it was refused
    anthropic_calls.py errors    what the SDK makes of refusals

Address and key come from STRONGROOM_BASE_URL (of which this SDK wants the part before `/v1`) and
STRONGROOM_API_KEY, the model from STRONGROOM_MODEL; `errors` also wants STRONGROOM_POOR_KEY, of a
tenant without credentials. Prints one JSON object; fails with a traceback.
"""

import json
import os
import sys

import anthropic

MODEL = os.environ.get("STRONGROOM_MODEL", "claude-sonnet-4-5")
PROMPT = os.environ.get("STRONGROOM_PROMPT", "Say hello.")
ASK = {"max_tokens": 64, "messages": [{"role": "user", "content": PROMPT}]}


def client(key: str | None = None) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=os.environ["STRONGROOM_BASE_URL"].removesuffix("/v1"),
        api_key=key or os.environ["STRONGROOM_API_KEY"],
        max_retries=0,
        timeout=20,
    )


def refusal(error: anthropic.APIStatusError) -> dict:
    body = error.body if isinstance(error.body, dict) else {}
    return {
        "class": type(error).__name__,
        "status": error.status_code,
        "shape": body.get("type"),
        "type": body.get("error", {}).get("type"),
        "message": body.get("error", {}).get("message"),
    }


def once() -> dict:
    try:
        raw = client().messages.with_raw_response.create(model=MODEL, **ASK)
    except anthropic.APIStatusError as error:
        return {"refused": refusal(error)}
    headers = {name: value for name, value in raw.headers.items() if name.startswith("x-strongroom-")}
    answer = raw.parse()
    return {"text": answer.content[0].text, "model": answer.model, "headers": headers}


def stream() -> dict:
    with client().messages.stream(model=MODEL, **ASK) as events:
        pieces = list(events.text_stream)
        final = events.get_final_message()
    return {
        "pieces": [piece for piece in pieces if piece],
        "usage": final.usage.output_tokens,
        "finish": final.stop_reason,
    }


def every() -> dict:
    return {"message": once(), "stream": stream()}


def errors() -> dict:
    def refused(key: str, model: str) -> dict:
        try:
            client(key).messages.create(model=model, **ASK)
        except anthropic.APIStatusError as error:
            return refusal(error)
        raise AssertionError(f"a call with {model} was served")

    return {
        "foreign key": refused("sk-ant-REDACTED", MODEL),
        "unknown model": refused(os.environ["STRONGROOM_POOR_KEY"], "no-such-model-anywhere"),
    }


COMMANDS = {"every": every, "once": once, "errors": errors}

if __name__ == "__main__":
    json.dump(COMMANDS[sys.argv[1]](), sys.stdout)
