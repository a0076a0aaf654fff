"""A task's token on every request of an MCP client, renewed while the task lasts.

Copy this file beside your client (mcp 1.x or 2.x; it needs nothing else), and give
the HTTP client Task(url) as its auth. It asks the broker for grants by
POST /oauth2/token (RFC 8693, with RFC 9396's authorization_details), shortly before
the last ones end, and after an answer that says they have ended.
"""

import json
import logging
import os
import time
from ipaddress import ip_address

import anyio

try:
    import httpx2 as httpx  # mcp 2.x
except ImportError:
    import httpx  # mcp 1.x

log = logging.getLogger("toolgrant")

OVER = {"expired", "expired_token", "superseded"}  # reasons of a denial that a new token mends


class NoToken(httpx.RequestError):
    """The broker gave no token: it refused, or did not answer."""


class Task(httpx.Auth):
    """Tokens for one task on one MCP server, from the environment:

    TOOLGRANT_URL                   the broker
    TOOLGRANT_IDENTITY_TOKEN_FILE   the agent's identity token for the broker; read anew each time
    TOOLGRANT_TASK                  the task
    TOOLGRANT_TOOLS                 its tools on this server: "notes/write_note notes/read_note"
    TOOLGRANT_TTL                   seconds that a grant lasts; 300

    Without TOOLGRANT_TASK, the baseline: the agent shows its identity token for this
    server, from the file TOOLGRANT_BASELINE_TOKEN_FILE.
    """

    def __init__(self, url, env=os.environ):
        self._server = httpx.URL(url)
        self._task = env.get("TOOLGRANT_TASK")
        if not self._task:
            self._baseline = env["TOOLGRANT_BASELINE_TOKEN_FILE"]
            return
        self._broker = httpx.URL(env["TOOLGRANT_URL"].rstrip("/") + "/oauth2/token")
        if self._broker.scheme != "https" and not loopback(self._broker.host):
            raise ValueError("TOOLGRANT_URL: plain http is for loopback only, tokens would travel in the clear")
        self._identity = env["TOOLGRANT_IDENTITY_TOKEN_FILE"]
        self._tools = env["TOOLGRANT_TOOLS"].split()
        self._ttl = int(env.get("TOOLGRANT_TTL", "300"))
        self._lock = anyio.Lock()  # one request at a time asks the broker
        self._token, self._grants, self._ends, self._ask_at = "", {}, 0.0, 0.0

    async def async_auth_flow(self, request):
        # The token is for this server alone, wherever the client is sent.
        if (request.url.scheme, request.url.netloc) != (self._server.scheme, self._server.netloc):
            yield request
            return
        token = await self._current()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if self._task and response.status_code in (401, 403) and reason(await response.aread()) in OVER:
            renewed = await self._current(over=token)
            if renewed != token:
                request.headers["Authorization"] = f"Bearer {renewed}"
                yield request

    async def _current(self, over=None):
        """The token to send. over is one that was refused because its time is over."""
        if not self._task:
            return read(self._baseline)
        async with self._lock:
            now = time.monotonic()
            if over == self._token:
                self._ends = self._ask_at = 0.0
            if now >= self._ask_at:
                try:
                    await self._ask(now)
                except NoToken as err:
                    if not self._token:
                        raise
                    # An exception would end the MCP session. So the last token is
                    # sent, while it holds and after: Envoy says what it is worth.
                    log.warning("%s", err)
                    self._ask_at = now + max(1, (self._ends - now) / 2)
            return self._token

    async def _ask(self, now):
        details = [{"type": "urn:toolgrant:grant:1", "tool": t, "task": self._task, "ttl": self._ttl} for t in self._tools]
        if now < self._ends:  # in place of the living ones: their constraints, and what is left of their budgets
            details = [d | {"renew": self._grants[d["tool"]]} for d in details]
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": read(self._identity),
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "authorization_details": json.dumps(details),
        }
        try:
            async with httpx.AsyncClient(timeout=10, follow_redirects=False) as http:
                response = await http.post(self._broker, data=form)
            answer = response.json()
            if response.status_code != 200:
                raise NoToken(f"the broker refused: {answer.get('reason')}: {answer.get('error_description')}")
            self._token, lasts = answer["access_token"], answer["expires_in"]
            self._grants = {g["tool"]: g["grant_id"] for g in answer["authorization_details"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as err:
            raise err if isinstance(err, NoToken) else NoToken(f"no answer from the broker: {type(err).__name__}") from None
        self._ends, self._ask_at = now + lasts, now + lasts - min(30, lasts / 5)


def read(file):
    with open(file, encoding="ascii") as f:
        return f.read().strip()


def reason(body):
    """Why Envoy refused: error.data.reason of the JSON-RPC error; None if it is none."""
    try:
        return json.loads(body)["error"]["data"]["reason"]
    except (ValueError, KeyError, TypeError):
        return None


def loopback(host):
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
