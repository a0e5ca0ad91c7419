"""Calls providers that speak OpenAI's format with OpenAI's own SDK; see `cases.py`.

A case with `api_version` is called with the SDK's client for Azure.
"""

import openai

from cases import SAY, main


def client(case: dict) -> openai.OpenAI:
    common = {"api_key": case["key"], "max_retries": 0, "timeout": 20}
    if "api_version" in case:
        version, endpoint = case["api_version"], case["base_url"]
        return openai.AzureOpenAI(api_version=version, azure_endpoint=endpoint, **common)
    return openai.OpenAI(base_url=case["base_url"], **common)


def plain(case: dict) -> dict:
    raw = client(case).chat.completions.with_raw_response.create(
        model=case["model"], messages=SAY, **case.get("extra", {})
    )
    answer = raw.parse()
    return {
        "text": answer.choices[0].message.content,
        "tokens": answer.usage.total_tokens,
        "finish": answer.choices[0].finish_reason,
        "provider": raw.headers.get("x-strongroom-provider"),
    }


def stream(case: dict) -> dict:
    with client(case).chat.completions.create(
        model=case["model"], messages=SAY, stream=True, **case.get("extra", {})
    ) as events:
        chunks = list(events)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return {
        "pieces": [choice.delta.content for choice in choices if choice.delta.content],
        "finish": choices[-1].finish_reason,
    }


if __name__ == "__main__":
    main({"plain": plain, "stream": stream}, lambda error: getattr(error, "status_code", None))
