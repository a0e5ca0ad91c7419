"""Calls Mistral with its own SDK; see `cases.py`."""

from mistralai.client import Mistral

from cases import SAY, main


def client(case: dict) -> Mistral:
    return Mistral(api_key=case["key"], server_url=case["base_url"], timeout_ms=20_000)


def plain(case: dict) -> dict:
    with client(case) as calls:
        answer = calls.chat.complete(model=case["model"], messages=SAY)
    return {
        "text": answer.choices[0].message.content,
        "tokens": answer.usage.total_tokens,
        "finish": answer.choices[0].finish_reason,
    }


def stream(case: dict) -> dict:
    with client(case) as calls, calls.chat.stream(model=case["model"], messages=SAY) as events:
        chunks = [event.data for event in events]
    return {
        "pieces": [piece for chunk in chunks if (piece := chunk.choices[0].delta.content)],
        "tokens": chunks[-1].usage.total_tokens,
        "finish": chunks[-1].choices[0].finish_reason,
    }


if __name__ == "__main__":
    main({"plain": plain, "stream": stream}, lambda error: getattr(error, "status_code", None))
