// An MCP client (@modelcontextprotocol/client 2.x). A line of its input is a step,
// and gets a line of JSON:
//
//   tools                              the names of the server's tools
//   call write_note {"note": "a/b"}    what the tool answers
//   read notes://index                 a resource's text
//   prompt summarize {"note": "a/b"}   a prompt's text
//
// Usage: node client.ts URL [REVISION]

import { createInterface } from 'node:readline';
import { Client, ProtocolError, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { taskFetch } from './task.ts';

const [url = '', revision = '2026-07-28'] = process.argv.slice(2);
const client = new Client(
    { name: 'example', version: '1.0.0' },
    { versionNegotiation: { mode: revision < '2026-07-28' ? 'legacy' : 'auto' } },
);
await client.connect(new StreamableHTTPClientTransport(new URL(url), { fetch: taskFetch(url) }));
for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
        answer = { ok: await step(line) };
    } catch (err) {
        answer = { error: String(err), data: err instanceof ProtocolError ? err.data : undefined };
    }
    console.log(JSON.stringify(answer));
}
await client.close();

async function step(line: string): Promise<string> {
    const [, what, name = '', args = '{}'] = /^(\S+)(?: (\S+))?(?: (.*))?$/.exec(line) ?? [];
    switch (what) {
        case 'tools':
            return (await client.listTools()).tools.map(tool => tool.name).join(' ');
        case 'call':
            return text((await client.callTool({ name, arguments: JSON.parse(args) })).content[0]);
        case 'read':
            return text((await client.readResource({ uri: name })).contents[0]);
        case 'prompt':
            return text((await client.getPrompt({ name, arguments: JSON.parse(args) })).messages[0]?.content);
    }
    throw new Error(`no such step: ${what}`);
}

function text(content: object | undefined): string {
    return content && 'text' in content ? String(content.text) : '';
}
