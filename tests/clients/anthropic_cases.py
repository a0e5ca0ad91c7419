"""Calls providers that speak Anthropic's format with Anthropic's own SDK; see `cases.py`.

A case with `client` is called with the SDK's client for `foundry` (Azure) or `vertex`.
"""

import anthropic

from cases import SAY, main


def client(case: dict):
    key, common = case["key"], {"base_url": case["base_url"], "max_retries": 0, "timeout": 20}
    if case.get("client") == "foundry":
        return anthropic.AnthropicFoundry(api_key=key, **common)
    if case.get("client") == "vertex":
        place = {"project_id": case["project"], "region": case["location"]}
        return anthropic.AnthropicVertex(access_token=key, **place, **common)
    return anthropic.Anthropic(api_key=key, **common)


def plain(case: dict) -> dict:
    answer = client(case).messages.create(model=case["model"], max_tokens=64, messages=SAY)
    return {
        "text": answer.content[0].text,
        "tokens": answer.usage.input_tokens + answer.usage.output_tokens,
        "finish": answer.stop_reason,
    }


def stream(case: dict) -> dict:
    with client(case).messages.stream(model=case["model"], max_tokens=64, messages=SAY) as events:
        pieces = [piece for piece in events.text_stream if piece]
        final = events.get_final_message()
    return {
        "pieces": pieces,
        "tokens": final.usage.input_tokens + final.usage.output_tokens,
        "finish": final.stop_reason,
    }


if __name__ == "__main__":
    main({"plain": plain, "stream": stream}, lambda error: getattr(error, "status_code", None))
