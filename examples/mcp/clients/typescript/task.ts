// A task's token on every request of an MCP client, renewed while the task lasts.
//
// Copy this file beside your client (@modelcontextprotocol/client 2.x or
// @modelcontextprotocol/sdk 1.x; it needs nothing else), and give the transport
// taskFetch(url) as its fetch. It asks the broker for grants by POST /oauth2/token
// (RFC 8693, with RFC 9396's authorization_details), shortly before the last ones
// end, and after an answer that says they have ended.
//
// From the environment:
//
//   TOOLGRANT_URL                   the broker
//   TOOLGRANT_IDENTITY_TOKEN_FILE   the agent's identity token for the broker; read anew each time
//   TOOLGRANT_TASK                  the task
//   TOOLGRANT_TOOLS                 its tools on this server: "notes/write_note notes/read_note"
//   TOOLGRANT_TTL                   seconds that a grant lasts; 300
//
// Without TOOLGRANT_TASK, the baseline: the agent shows its identity token for this
// server, from the file TOOLGRANT_BASELINE_TOKEN_FILE.

import { readFile } from 'node:fs/promises';

const over = new Set(['expired', 'expired_token', 'superseded']); // reasons of a denial that a new token mends

type Fetch = (url: string | URL, init?: RequestInit) => Promise<Response>;

export function taskFetch(server: string, env: Record<string, string | undefined> = process.env): Fetch {
    const { origin } = new URL(server);
    const source = env.TOOLGRANT_TASK ? new Task(env.TOOLGRANT_TASK, env) : undefined;
    const current = (spent?: string) => source ? source.current(spent) : read(need(env, 'TOOLGRANT_BASELINE_TOKEN_FILE'));
    return async (url, init) => {
        // The token is for this server alone, wherever the client is sent.
        if (new URL(url).origin !== origin) {
            return fetch(url, init);
        }
        const token = await current();
        const response = await fetch(url, bearing(init, token));
        if (source && (response.status === 401 || response.status === 403) && over.has(await reason(response.clone()))) {
            await response.body?.cancel();
            return fetch(url, bearing(init, await current(token)));
        }
        return response;
    };
}

class Task {
    private readonly broker: URL;
    private readonly identity: string;
    private readonly tools: string[];
    private readonly ttl: number;
    private readonly task: string;

    private token = '';
    private grants = new Map<string, string>(); // tool -> grant
    private ends = 0; // milliseconds of performance.now()
    private askAt = 0;
    private asking: Promise<void> | undefined; // one request at a time asks the broker

    constructor(task: string, env: Record<string, string | undefined>) {
        this.task = task;
        this.broker = new URL(need(env, 'TOOLGRANT_URL').replace(/\/$/, '') + '/oauth2/token');
        if (this.broker.protocol !== 'https:' && !/^(localhost|127\.[0-9.]+|\[::1\])$/.test(this.broker.hostname)) {
            throw new Error('TOOLGRANT_URL: plain http is for loopback only, tokens would travel in the clear');
        }
        this.identity = need(env, 'TOOLGRANT_IDENTITY_TOKEN_FILE');
        this.tools = need(env, 'TOOLGRANT_TOOLS').split(/\s+/).filter(Boolean);
        this.ttl = Number(env.TOOLGRANT_TTL ?? 300);
    }

    // The token to send. spent is one that was refused because its time is over.
    async current(spent?: string): Promise<string> {
        await this.asking?.catch(() => {});
        if (spent !== undefined && spent === this.token) {
            this.ends = this.askAt = 0;
        }
        const now = performance.now();
        if (now >= this.askAt) {
            this.asking ??= this.ask(now).finally(() => (this.asking = undefined));
            try {
                await this.asking;
            } catch (err) {
                if (now >= this.ends) {
                    throw err;
                }
                this.askAt = now + (this.ends - now) / 2; // what there is holds until then
            }
        }
        return this.token;
    }

    private async ask(now: number): Promise<void> {
        const details = this.tools.map(tool => ({
            type: 'urn:toolgrant:grant:1', tool, task: this.task, ttl: this.ttl,
            // In place of the living ones: their constraints, and what is left of their budgets.
            ...(now < this.ends ? { renew: this.grants.get(tool) } : {}),
        }));
        const response = await fetch(this.broker, {
            method: 'POST', redirect: 'error', signal: AbortSignal.timeout(10_000),
            body: new URLSearchParams({
                grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
                subject_token: await read(this.identity),
                subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
                authorization_details: JSON.stringify(details),
            }),
        });
        const answer = await response.json();
        if (response.status !== 200) {
            throw new Error(`the broker refused: ${answer.reason}: ${answer.error_description}`);
        }
        const lasts = answer.expires_in * 1000;
        this.token = answer.access_token;
        this.grants = new Map(answer.authorization_details.map((g: { tool: string; grant_id: string }) => [g.tool, g.grant_id]));
        this.ends = now + lasts;
        this.askAt = this.ends - Math.min(30_000, lasts / 5);
    }
}

function bearing(init: RequestInit | undefined, token: string): RequestInit {
    const headers = new Headers(init?.headers);
    headers.set('Authorization', `Bearer ${token}`);
    return { ...init, headers };
}

// Why Envoy refused: error.data.reason of the JSON-RPC error; "" if it is none.
async function reason(response: Response): Promise<string> {
    try {
        return (await response.json()).error.data.reason;
    } catch {
        return '';
    }
}

async function read(file: string): Promise<string> {
    return (await readFile(file, 'ascii')).trim();
}

function need(env: Record<string, string | undefined>, name: string): string {
    const value = env[name];
    if (!value) {
        throw new Error(`${name} is not set`);
    }
    return value;
}
