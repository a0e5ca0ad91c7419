"""Calls Amazon Bedrock with AWS's own SDK and a key of Bedrock; see `cases.py`.

The SDK sends such keys over HTTPS only; AWS_CA_BUNDLE names whom to trust.
"""

import json
import os

import boto3
from botocore.config import Config

from cases import PROMPT, main

ASK = [{"role": "user", "content": [{"text": PROMPT}]}]
BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": PROMPT}],
    }
)


def client(case: dict):
    # The only way to hand such a key over, as its name here is documented.
    os.environ["AWS_BEARER_TOKEN_BEDROCK"] = case["key"]
    once = Config(retries={"total_max_attempts": 1}, read_timeout=20)
    where = {"region_name": case["region"], "endpoint_url": case["base_url"]}
    return boto3.client("bedrock-runtime", config=once, **where)


def plain(case: dict) -> dict:
    answer = client(case).converse(modelId=case["model"], messages=ASK)
    return {
        "text": answer["output"]["message"]["content"][0]["text"],
        "tokens": answer["usage"]["totalTokens"],
        "finish": answer["stopReason"],
    }


def stream(case: dict) -> dict:
    events = list(client(case).converse_stream(modelId=case["model"], messages=ASK)["stream"])
    deltas = [event["contentBlockDelta"] for event in events if "contentBlockDelta" in event]
    return {
        "pieces": [delta["delta"]["text"] for delta in deltas],
        "tokens": events[-1]["metadata"]["usage"]["totalTokens"],
        "finish": next(e["messageStop"]["stopReason"] for e in events if "messageStop" in e),
    }


def invoke(case: dict) -> dict:
    answer = json.load(client(case).invoke_model(modelId=case["model"], body=BODY)["body"])
    return {"text": answer["content"][0]["text"], "finish": answer["stop_reason"]}


def invoke_stream(case: dict) -> dict:
    answer = client(case).invoke_model_with_response_stream(modelId=case["model"], body=BODY)
    events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    return {
        "pieces": [delta["text"] for delta in deltas],
        "finish": next(e["delta"]["stop_reason"] for e in events if e["type"] == "message_delta"),
    }


def status(error):
    answer = getattr(error, "response", {})
    return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")


CALLS = {"plain": plain, "stream": stream, "invoke": invoke, "invoke_stream": invoke_stream}

if __name__ == "__main__":
    main(CALLS, status)
