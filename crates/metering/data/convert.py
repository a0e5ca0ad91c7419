#!/usr/bin/env python3
"""Makes prices.json from a table in the short form, on standard output.

    convert.py SHORT.json VERSION > prices.json

The short form is JSON: `retrieved` (a date), `sources` (where the figures are from), and
`models.<provider>.<model>` with the members of RATES and OTHERS below, in pico-USD: per token, or per call for
`request` and `query`. `tiers` is a list of the same with `above`, a number of input tokens.
"""
import json
import sys

# `cw12h` is a longer retention; no model has both it and `cw1h`.
RATES = {
    "in": "input", "out": "output", "cr": "cache_read", "cw": "cache_write_5m",
    "cw1h": "cache_write_1h", "cw12h": "cache_write_1h", "reason": "reasoning",
}
OTHERS = {
    "mode": "kind", "query": "search", "request": "request", "ctx": "context",
    "max_out": "max_output",
}


def rates(short):
    return {RATES[name]: value for name, value in short.items() if name in RATES}


def model(short):
    # A size of 0 says that nobody knows.
    row = {OTHERS[name]: value for name, value in short.items() if name in OTHERS and value != 0}
    row["rates"] = rates(short)
    if "tiers" in short:
        row["tiers"] = [{"above": it["above"], "rates": rates(it)} for it in short["tiers"]]
    return row


def main():
    path, version = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        short = json.load(file)
    print("{")
    print(f'"version": {int(version)},')
    print(f'"date": {json.dumps(short["retrieved"])},')
    print(f'"sources": {json.dumps(short["sources"], sort_keys=True)},')
    print('"providers": {')
    for at, (provider, models) in enumerate(sorted(short["models"].items())):
        print(("," if at else "") + f"{json.dumps(provider)}: {{")
        rows = (f"{json.dumps(name)}: {json.dumps(model(row), separators=(',', ':'))}"
                for name, row in sorted(models.items()))
        print(",\n".join(rows))
        print("}")
    print("}\n}")


main()
