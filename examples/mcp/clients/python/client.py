"""An MCP client (mcp 2.x). A line of its input is a step, and gets a line of JSON:

    tools                              the names of the server's tools
    call write_note {"note": "a/b"}    what the tool answers
    read notes://index                 a resource's text
    prompt summarize {"note": "a/b"}   a prompt's text

Usage: client.py URL [REVISION]
"""

import asyncio
import json
import sys

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from toolgrant_task import Task


async def main(url, revision="auto"):
    async with (
        httpx2.AsyncClient(auth=Task(url), timeout=httpx2.Timeout(30, read=300)) as http,
        Client(streamable_http_client(url, http_client=http), mode=revision if revision in ("auto", "2026-07-28") else "legacy") as client,
    ):
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                answer = {"ok": await step(client, *line.strip().split(" ", 2))}
            except MCPError as err:
                answer = {"error": err.error.message, "data": err.error.data}
            print(json.dumps(answer), flush=True)


async def step(client, what, name="", args="{}"):
    match what:
        case "tools":
            return " ".join(tool.name for tool in (await client.list_tools()).tools)
        case "call":
            return (await client.call_tool(name, json.loads(args))).content[0].text
        case "read":
            return (await client.read_resource(name)).contents[0].text
        case "prompt":
            return (await client.get_prompt(name, json.loads(args))).messages[0].content.text
    raise SystemExit(f"no such step: {what}")


asyncio.run(main(*sys.argv[1:]))
