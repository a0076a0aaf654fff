"""A client of mcp 1.x that starts a task, polls it, fetches its result, and asks for it
once more with another grant's token.

Usage: jobs_client.py URL TOKEN ANOTHER-TOKEN
"""

import asyncio
import sys

import httpx
import mcp.types as types
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client


async def main(url, token, another):
    http = httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30)
    async with http, streamable_http_client(url, http_client=http) as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        job = (await session.experimental.call_tool_as_task("start_job", {"text": "x"})).task
        print("started", job.status)
        async for status in session.experimental.poll_task(job.taskId):
            last = status.status
        print("got", last)
        result = await session.experimental.get_task_result(job.taskId, types.CallToolResult)
        print("result", result.content[0].text)
        http.headers["Authorization"] = f"Bearer {another}"
        try:
            print("another grant:", await session.experimental.get_task(job.taskId))
        except McpError as err:
            print("another grant:", err.error.data["reason"])


asyncio.run(main(*sys.argv[1:]))
