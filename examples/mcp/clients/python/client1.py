"""The client once more, for mcp 1.x (revisions up to 2025-11-25): see client.py.

Usage: client1.py URL
"""

import asyncio
import json
import sys

import httpx
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client

from toolgrant_task import Task


async def main(url):
    async with (
        httpx.AsyncClient(auth=Task(url), timeout=httpx.Timeout(30, read=300)) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                answer = {"ok": await step(session, *line.strip().split(" ", 2))}
            except McpError as err:
                answer = {"error": err.error.message, "data": err.error.data}
            print(json.dumps(answer), flush=True)


async def step(session, what, name="", args="{}"):
    match what:
        case "tools":
            return " ".join(tool.name for tool in (await session.list_tools()).tools)
        case "call":
            return (await session.call_tool(name, json.loads(args))).content[0].text
        case "read":
            return (await session.read_resource(name)).contents[0].text
        case "prompt":
            return (await session.get_prompt(name, json.loads(args))).messages[0].content.text
    raise SystemExit(f"no such step: {what}")


asyncio.run(main(*sys.argv[1:]))
