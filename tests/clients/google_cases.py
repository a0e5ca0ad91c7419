"""Calls Gemini with Google's own SDK; see `cases.py`.

A case may say which `api_version` to use; one with a `project` is called through Vertex AI, with the key
as an access token.
"""

from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials

from cases import PROMPT, main


def client(case: dict) -> genai.Client:
    options = types.HttpOptions(
        base_url=case["base_url"], api_version=case.get("api_version"), timeout=20_000
    )
    if "project" in case:
        return genai.Client(
            vertexai=True,
            project=case["project"],
            location=case["location"],
            credentials=Credentials(case["key"]),
            http_options=options,
        )
    return genai.Client(api_key=case["key"], http_options=options)


def plain(case: dict) -> dict:
    with client(case) as calls:
        answer = calls.models.generate_content(model=case["model"], contents=PROMPT)
    return {
        "text": answer.text,
        "tokens": answer.usage_metadata.total_token_count,
        "finish": answer.candidates[0].finish_reason.name,
    }


def stream(case: dict) -> dict:
    with client(case) as calls:
        events = calls.models.generate_content_stream(model=case["model"], contents=PROMPT)
        chunks = list(events)
    return {
        "pieces": [chunk.text for chunk in chunks if chunk.text],
        "tokens": chunks[-1].usage_metadata.total_token_count,
        "finish": chunks[-1].candidates[0].finish_reason.name,
    }


if __name__ == "__main__":
    main({"plain": plain, "stream": stream}, lambda error: getattr(error, "code", None))
