"""Calls Cohere with its own SDK; see `cases.py`."""

import cohere

from cases import SAY, main

ONCE = {"max_retries": 0}


def client(case: dict) -> cohere.ClientV2:
    return cohere.ClientV2(api_key=case["key"], base_url=case["base_url"], timeout=20)


def plain(case: dict) -> dict:
    answer = client(case).chat(model=case["model"], messages=SAY, request_options=ONCE)
    return {
        "text": answer.message.content[0].text,
        "tokens": int(answer.usage.tokens.input_tokens + answer.usage.tokens.output_tokens),
        "finish": answer.finish_reason,
    }


def stream(case: dict) -> dict:
    events = list(
        client(case).chat_stream(model=case["model"], messages=SAY, request_options=ONCE)
    )
    last = events[-1].delta
    return {
        "pieces": [e.delta.message.content.text for e in events if e.type == "content-delta"],
        "tokens": int(last.usage.tokens.input_tokens + last.usage.tokens.output_tokens),
        "finish": last.finish_reason,
    }


if __name__ == "__main__":
    main({"plain": plain, "stream": stream}, lambda error: getattr(error, "status_code", None))
