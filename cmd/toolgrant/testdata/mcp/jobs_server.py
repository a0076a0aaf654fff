"""A server of mcp 1.x of which a call becomes a task of 2025-11-25.

Usage: jobs_server.py PORT    (on 127.0.0.1)
"""

import contextlib
import sys

import mcp.types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.routing import Mount

server = Server("jobs")
server.experimental.enable_tasks()


@server.list_tools()
async def list_tools():
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    return [types.Tool(name="start_job", inputSchema=schema, execution=types.ToolExecution(taskSupport="required"))]


@server.call_tool()
async def call_tool(name, arguments):
    async def work(task):
        print("ran", arguments["text"], flush=True)
        return types.CallToolResult(content=[types.TextContent(type="text", text="done: " + arguments["text"])])

    return await server.request_context.experimental.run_task(work)


manager = StreamableHTTPSessionManager(server)


@contextlib.asynccontextmanager
async def lifespan(app):
    async with manager.run():
        yield


app = Starlette(routes=[Mount("/", app=manager.handle_request)], lifespan=lifespan)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
