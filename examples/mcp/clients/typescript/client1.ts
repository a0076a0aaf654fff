// The client once more, for @modelcontextprotocol/sdk 1.x (revisions up to
// 2025-11-25): see client.ts.
//
// Usage: node client1.ts URL

import { createInterface } from 'node:readline';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CallToolResultSchema, McpError } from '@modelcontextprotocol/sdk/types.js';
import { taskFetch } from './task.ts';

const [url = ''] = process.argv.slice(2);
const client = new Client({ name: 'example', version: '1.0.0' });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { fetch: taskFetch(url) }));
for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
        answer = { ok: await step(line) };
    } catch (err) {
        answer = { error: String(err), data: err instanceof McpError ? err.data : undefined };
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
            return text(CallToolResultSchema.parse(await client.callTool({ name, arguments: JSON.parse(args) })).content[0]);
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
