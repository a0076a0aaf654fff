package authz

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// contextPrefix begins the headers that an allow sets. A client's are replaced
// or removed here, and stripped by the printed configuration before that.
const contextPrefix = "x-grant-ctx-"

// allowed lets the request through: the credential and all undeclared headers
// removed, the context set, and the response cut off when the window ends.
func (d *Door) allowed(c *check, v verdict) *authv3.CheckResponse {
	set := []*corev3.HeaderValueOption{
		header(contextPrefix+"agent", headerSafe(c.caller.agent.ID())),
	}
	if c.call.at.tool != nil {
		set = append(set, header(contextPrefix+"tool", c.call.at.tool.ID))
	}
	remove := c.call.toRemove()
	if v.held {
		g := v.grant.Grant()
		set = append(set, header(contextPrefix+"task", g.Task), header(contextPrefix+"grant", g.ID))
	}
	if v.held || c.call.message != nil {
		// Envoy takes the header even where it is longer than the route's own
		// time-out, so the shorter is sent; "0" would mean none.
		cut := v.left
		if own := c.call.mayLast(); own > 0 {
			cut = min(cut, own)
		}
		set = append(set, header("x-envoy-upstream-rq-timeout-ms", strconv.FormatInt(max(1, cut.Milliseconds()), 10)))
	}
	if pass := d.pass(c, v); pass != "" {
		set = append(set, header(mcp.PassHeader, pass))
	}
	if m := c.call.message; m != nil && m.Method.Stream {
		set = append(set, header(StreamHeader, "1"))
	}
	d.remember(c, v)
	// Removal wins over setting: a name is in one list alone. (Setting replaces
	// every copy that a client sent.)
	remove = slices.DeleteFunc(remove, func(name string) bool {
		return slices.ContainsFunc(set, func(h *corev3.HeaderValueOption) bool { return h.GetHeader().GetKey() == name })
	})
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: set, HeadersToRemove: remove,
		}},
		DynamicMetadata: d.metadata(c, v),
	}
}

// StreamHeader tells Envoy that a message's answer is a stream, which has
// connections of its own. Envoy strips it from what clients send, because of its
// prefix.
const StreamHeader = contextPrefix + "stream"

// remember keeps what later messages of a session depend on, before this one is
// let through.
func (d *Door) remember(c *check, v verdict) {
	m := c.call.message
	if m == nil || m.Session == "" {
		return
	}
	if m.Method.Name == http.MethodDelete {
		d.cfg.Watched.EndSession(c.call.server.ID, m.Session) // and if the server refuses, its client starts a new one
		return
	}
	for _, live := range v.under {
		if m.Method.Name == mcp.ToolsCall && d.keeps(live.Grant()) {
			d.cfg.Watched.PinSession(c.call.server.ID, m.Session)
		}
	}
}

// toRemove are the headers that do not reach the tool. Of MCP's own those pass
// that the message was compared with.
func (c *call) toRemove() []string {
	remove := slices.Clone(c.headers.remove)
	if c.message == nil {
		return remove
	}
	own := mcp.PassedHeaders(c.message)
	return slices.DeleteFunc(remove, func(name string) bool { return slices.Contains(own, name) })
}

// mayLast is how long the whole exchange may last, its window aside; 0: not said.
// An MCP server's route knows neither tool nor method.
func (c *call) mayLast() time.Duration {
	switch {
	case c.message == nil:
		return c.timeout
	case c.message.Method.Stream:
		return c.server.MCP.Stream
	case c.asks[0].tool != nil:
		return c.asks[0].tool.Timeout
	}
	return c.server.MCP.Timeout
}

// pass marks a message whose answer has to be seen: one that opens a session, and
// a call that may become a task; "" for any other.
func (d *Door) pass(c *check, v verdict) string {
	m := c.call.message
	if m == nil {
		return ""
	}
	p := mcp.Pass{
		Decision: c.id, Server: c.call.server.ID, Agent: c.caller.agent.ID(), Method: m.Method.Name, Revision: m.Revision,
		Ends: d.cfg.Table.Now().Add(min(v.left, c.call.mayLast())),
	}
	watched := m.Method.Name == "initialize"
	for i := range c.call.asks {
		if t := c.call.asks[i].tool; t != nil && t.Tasks {
			watched = true
		}
	}
	if !watched {
		return ""
	}
	for _, live := range v.under {
		p.Grants = append(p.Grants, live.Grant().ID)
	}
	slices.Sort(p.Grants)
	p.Grants = slices.Compact(p.Grants)
	return d.cfg.Watched.Seal.Close(p)
}

// header sets a header in place of every copy that a client sent. Envoy reads
// the deprecated bool alone (OkHttpResponse ignores append_action).
func header(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, Value: value},
		//lint:ignore SA1019 see above
		Append: overwrite,
	}
}

var overwrite = wrapperspb.Bool(false)

// headerSafe percent-encodes what a header value cannot hold in one reading:
// all but visible ASCII, and "%" itself.
func headerSafe(s string) string {
	plain := func(b byte) bool { return b > 0x20 && b < 0x7f && b != '%' }
	if i := strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 || !plain(byte(r)) }); i < 0 {
		return s
	}
	var out strings.Builder
	for i := range len(s) {
		if plain(s[i]) {
			out.WriteByte(s[i])
		} else {
			fmt.Fprintf(&out, "%%%02X", s[i])
		}
	}
	return out.String()
}
