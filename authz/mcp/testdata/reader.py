"""Prints, for each length-prefixed message on standard input, how Python reads it.

One line per message: "error", or the RFC 8785 text of
[method, name, uri, taskId, arguments, id], a tab, and that of the message.
With "uris" behind it, what comes are URIs, and a line is the JSON text of what
pydantic makes of one, as version 1.x of the SDK reads it, or of where a path leads
that is unlike it when decoded; null: no URI.
"""
import json
import posixpath
import sys
import urllib.parse


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


def uri_reader():
    from typing import Annotated

    from pydantic import AnyUrl, TypeAdapter, UrlConstraints

    url = TypeAdapter(Annotated[AnyUrl, UrlConstraints(host_required=False)])  # mcp.types

    def read(data):
        try:
            text = data.decode()
            parsed = str(url.validate_python(text))
            path = urllib.parse.unquote(urllib.parse.urlsplit(text).path, errors="strict")
        except ValueError:
            return b"null"
        below = "x" + path if path.startswith("/") else "x/" + path
        where = posixpath.normpath(below)
        if where != below.removesuffix("/"):
            parsed = "leads to " + where
        return json.dumps(parsed).encode()

    return read


def main():
    reader = uri_reader() if sys.argv[1:] == ["uris"] else read
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while prefix := source.read(4):
        out.write(reader(source.read(int.from_bytes(prefix, "big"))) + b"\n")


main()
