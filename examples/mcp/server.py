"""The MCP server of the example once more, in Python (mcp 2.x): see notes/notes.go.

Usage: server.py [PORT]    (on 127.0.0.1; 8080)
"""

import json
import pathlib
import sys

import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server

DESCRIPTORS = pathlib.Path(__file__).parent / "notes" / "descriptors.json"
TOOLS = [types.Tool.model_validate(d) for d in json.loads(DESCRIPTORS.read_text())]
NOTES = {"work/standup": "ship the report", "home/shopping": "bread, salt"}


def ran(ctx, kind, name, **args):
    """Log what really ran: what, under which grant (the x-grant-ctx-* headers say it),
    and whether a credential came with it: of an authorization header, only that it was
    there."""
    headers = ctx.request.headers
    line = {kind: name, "authorization": str("authorization" in headers).lower(), **args}
    line |= {h: headers[h] for h in sorted(headers) if h.startswith("x-grant-ctx-")}
    print("ran", *(f"{k}={quoted(v)}" for k, v in line.items()), file=sys.stderr, flush=True)


def quoted(text):
    """An argument forges no line, and no other field."""
    return text if text.isprintable() and not set(text) & set(' ="\\') and text else json.dumps(text)


def call(ctx, tool, args):
    match tool, args:
        case "call_tool", {"name": str(inner), "arguments": dict(arguments), **rest} if not rest:
            return call(ctx, inner, arguments)
        case "read_note", {"note": str(note), **rest} if not rest:
            ran(ctx, "tool", tool, note=note)
            if note not in NOTES:
                raise ValueError("there is no such note")
            return NOTES[note]
        case "list_notes", {"shelf": str(shelf), **rest} if not rest:
            ran(ctx, "tool", tool, shelf=shelf)
            return "\n".join(sorted(n for n in NOTES if n.startswith(shelf + "/")))
        case "write_note", {"note": str(note), "text": str(text), **rest} if not rest:
            ran(ctx, "tool", tool, note=note, text=text)
            NOTES[note] = text
            return "written"
        case "delete_note", {"note": str(note), **rest} if not rest:
            ran(ctx, "tool", tool, note=note)
            NOTES.pop(note, None)
            return "deleted"
    raise ValueError(f"no tool {tool!r} takes such arguments")


async def list_tools(ctx, params):
    return types.ListToolsResult(tools=TOOLS)


async def call_tool(ctx, params):
    try:
        text, wrong = call(ctx, params.name, params.arguments or {}), False
    except ValueError as err:
        text, wrong = str(err), True
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=wrong)


async def list_resources(ctx, params):
    return types.ListResourcesResult(resources=[types.Resource(
        uri="notes://index", name="index", description="The names of all notes.", mime_type="text/plain")])


async def read_resource(ctx, params):
    if str(params.uri) != "notes://index":
        raise ValueError("there is no such resource")
    ran(ctx, "resource", "notes://index")
    return types.ReadResourceResult(contents=[types.TextResourceContents(
        uri=params.uri, mime_type="text/plain", text="\n".join(sorted(NOTES)))])


async def list_prompts(ctx, params):
    return types.ListPromptsResult(prompts=[types.Prompt(
        name="summarize", description="Sum up a note.", arguments=[types.PromptArgument(name="note", required=True)])])


async def get_prompt(ctx, params):
    note = (params.arguments or {}).get("note", "")
    ran(ctx, "prompt", "summarize", note=note)
    text = f"Sum up in one sentence: {NOTES[note]}"
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=types.TextContent(type="text", text=text))])


server = Server(
    "notes", version="1.0.0", get_tool_input_schema={t.name: t.input_schema for t in TOOLS}.get,
    on_list_tools=list_tools, on_call_tool=call_tool,
    on_list_resources=list_resources, on_read_resource=read_resource,
    on_list_prompts=list_prompts, on_get_prompt=get_prompt,
)

if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")
