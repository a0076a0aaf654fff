"""Prints, for each length-prefixed message on standard input, how Python reads it.

One line per message: "error", or the RFC 8785 text of
[method, name, uri, taskId, arguments, id], a tab, and that of the message.
"""
import json
import sys


def number(x):
    """ECMAScript's Number::toString, which RFC 8785 asks for."""
    x = float(x)
    if x == 0:
        return "0"
    digits, exponent = ("%r" % x).lstrip("-"), 0
    if "e" in digits:
        digits, e = digits.split("e")
        exponent = int(e)
    whole, _, fraction = digits.partition(".")
    point = len(whole) + exponent
    digits = whole + fraction
    point -= len(digits) - len(digits.lstrip("0"))
    digits = digits.strip("0")
    n = len(digits)
    if n <= point <= 21:
        text = digits + "0" * (point - n)
    elif 0 < point <= 21:
        text = digits[:point] + "." + digits[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        text = digits[0] + ("." + digits[1:] if n > 1 else "") + "e%+d" % (point - 1)
    return "-" + text if x < 0 else text


def string(s):
    return json.dumps(s, ensure_ascii=False)


def canonical(v):
    if v is None or v is True or v is False:
        return json.dumps(v)
    if isinstance(v, str):
        return string(v)
    if isinstance(v, (int, float)):
        return number(v)
    if isinstance(v, list):
        return "[" + ",".join(map(canonical, v)) + "]"
    names = sorted(v, key=lambda name: name.encode("utf-16-be"))
    return "{" + ",".join(string(name) + ":" + canonical(v[name]) for name in names) + "}"


def read(data):
    try:
        message = json.loads(data)
        params = message.get("params") or {}
        picked = [params.get(name) for name in ("name", "uri", "taskId")]
        picked = [message.get("method"), *picked, params.get("arguments", {}), message.get("id")]
        return (canonical(picked) + "\t" + canonical(message)).encode()
    except (ValueError, AttributeError, OverflowError, RecursionError):
        return b"error"


def main():
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while prefix := source.read(4):
        out.write(read(source.read(int.from_bytes(prefix, "big"))) + b"\n")


main()
