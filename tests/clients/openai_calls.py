"""Calls the proxy with OpenAI's own SDK, as an application would.

    openai_calls.py every     each call that the SDK offers and the proxy serves
    openai_calls.py once      one plain call: prints what came back, or how it was refused
    openai_calls.py stream    one streamed call: prints the pieces
    openai_calls.py errors    what the SDK makes of refusals

Address and key come from STRONGROOM_BASE_URL and STRONGROOM_API_KEY, the model from
STRONGROOM_MODEL; `errors` also wants STRONGROOM_POOR_KEY, of a tenant without credentials. Prints one JSON object; fails with a traceback.
"""

import json
import os
import sys

import openai

MODEL = os.environ.get("STRONGROOM_MODEL", "gpt-4o-mini")
PROMPT = os.environ.get("STRONGROOM_PROMPT", "Say hello.")
SAY = [{"role": "user", "content": PROMPT}]


def client(key: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=os.environ["STRONGROOM_BASE_URL"],
        api_key=key or os.environ["STRONGROOM_API_KEY"],
        max_retries=0,
        timeout=20,
    )


def refusal(error: openai.APIStatusError) -> dict:
    return {
        "class": type(error).__name__,
        "status": error.status_code,
        "code": error.code,
        "type": error.type,
        "message": error.message,
    }


def once() -> dict:
    try:
        raw = client().chat.completions.with_raw_response.create(model=MODEL, messages=SAY)
    except openai.APIStatusError as error:
        return {"refused": refusal(error)}
    headers = {name: value for name, value in raw.headers.items() if name.startswith("x-strongroom-")}
    answer = raw.parse()
    return {"text": answer.choices[0].message.content, "model": answer.model, "headers": headers}


def stream() -> dict:
    with client().chat.completions.create(
        model=MODEL, messages=SAY, stream=True, stream_options={"include_usage": True}
    ) as events:
        chunks = list(events)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    usage = chunks[-1].usage
    return {
        "pieces": [piece for piece in pieces if piece],
        "usage": usage.total_tokens if usage else None,
        "finish": [c.choices[0].finish_reason for c in chunks if c.choices][-1],
    }


def every() -> dict:
    calls = client()
    embedding = calls.embeddings.create(
        model="text-embedding-3-small", input="hello", encoding_format="float"
    )
    response = calls.responses.create(model=MODEL, input=PROMPT)
    with calls.responses.create(model=MODEL, input=PROMPT, stream=True) as events:
        kinds = [event.type for event in events]
    return {
        "chat": once(),
        "stream": stream(),
        "embedding": len(embedding.data[0].embedding),
        "response": response.output_text,
        "response_stream": kinds,
        "models": sorted(model.id for model in calls.models.list()),
    }


def errors() -> dict:
    key = os.environ["STRONGROOM_API_KEY"]
    # The key of a tenant that has no credentials.
    poor = os.environ["STRONGROOM_POOR_KEY"]
    # One character of the secret changed: the check at the end no longer fits.
    typo = key[:30] + ("b" if key[30] == "a" else "a") + key[31:]

    def refused(key: str, model: str) -> dict:
        try:
            client(key).chat.completions.create(model=model, messages=SAY)
        except openai.APIStatusError as error:
            return refusal(error)
        raise AssertionError(f"a call with {model} was served")

    return {
        "typo": refused(typo, MODEL),
        "foreign key": refused("sk-proj-0123456789abcdef0123456789abcdef", MODEL),
        "unknown model": refused(poor, "no-such-model-anywhere"),
        "no credential": refused(poor, MODEL),
    }


COMMANDS = {"every": every, "once": once, "stream": stream, "errors": errors}

if __name__ == "__main__":
    json.dump(COMMANDS[sys.argv[1]](), sys.stdout)
