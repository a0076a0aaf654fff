package authz

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// denial is a denial as the agent sees it: never which policy, never a value of
// its own request.
type denial struct {
	answer
	why      grants.Reason
	help     string
	advice   string          // what a policy tells who was refused; "": nothing
	rpc      bool            // told as a JSON-RPC error
	code     int             // of it
	id       json.RawMessage // of the request that it is of; nil: not known
	data     map[string]any  // of it, beside what every denial has
	scopes   []string        // tools for which a grant may help
	metadata string          // URL of the resource's metadata (RFC 9728); "": none
}

// plain is the denial of what is not known to be MCP.
func plain(why grants.Reason) denial {
	a := answers[why]
	if a.status == 0 { // not of the closed set: still a denial, and never status 0
		a, why = answers[grants.Undecided], grants.Undecided
	}
	return denial{answer: a, why: why, help: a.help}
}

// told is how the verdict's denial is told.
func (d *Door) told(c *check, v verdict) denial {
	n := plain(v.why)
	if v.detail != "" {
		n.help = v.detail
	}
	if c.call.server == nil {
		return n
	}
	if v.why == grants.Policy || v.why == grants.PolicyChanged {
		n.advice = v.decision.Advice
	}
	n.metadata = d.discovery[c.call.server.ID]
	n.scopes = c.lacking
	if c.call.server.MCP == nil {
		return n
	}
	n.rpc, n.id, n.code = true, c.call.id, n.status
	if n.status < 401 || n.status == http.StatusRequestEntityTooLarge || n.status == http.StatusUnsupportedMediaType {
		n.code = mcp.CodeInvalid
	}
	if no := v.refusal; no != nil {
		n.status, n.code = no.Status, no.Code
		if no.Why == mcp.BadRevision { // MCP 2026-07-28, UnsupportedProtocolVersionError
			n.data = map[string]any{"supported": no.Supported, "requested": no.Requested}
		}
	}
	// A client that an HTTP error ends still learns that it has no session, where to
	// get a first token, and that it does not speak the protocol.
	if c.call.server.MCP.Denials == catalog.DenialsJSONRPC && n.id != nil {
		switch {
		case n.status == http.StatusUnauthorized, n.status == http.StatusForbidden, n.status == http.StatusTooManyRequests,
			n.status == http.StatusServiceUnavailable, n.code == mcp.CodeParams: // arguments, which a model gets wrong
			n.status = http.StatusOK
		}
	}
	return n
}

func (d *Door) denied(c *check, v verdict) *authv3.CheckResponse {
	return d.told(c, v).response(c.id, d.metadata(c, v))
}

// response is the denial on the wire. decision is its id.
func (n denial) response(decision string, meta *structpb.Struct) *authv3.CheckResponse {
	set := []*corev3.HeaderValueOption{
		header("content-type", "application/json"),
		header("cache-control", "no-store"),
	}
	if n.answer.status == http.StatusTooManyRequests {
		set = append(set, header("retry-after", "1"))
	}
	if n.status == http.StatusMethodNotAllowed {
		set = append(set, header("allow", "POST"))
	}
	if challenge := n.challenged(); challenge != "" {
		set = append(set, header("www-authenticate", challenge))
	}
	code := codes.PermissionDenied
	if n.status == http.StatusUnauthorized {
		code = codes.Unauthenticated
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(n.status)},
			Headers: set, Body: string(n.body(decision)) + "\n",
		}},
		DynamicMetadata: meta,
	}
}

// body is the JSON body: what every denial has, in MCP as the data of a JSON-RPC
// error that says which request it answers.
func (n denial) body(decision string) []byte {
	told := struct {
		Error    string `json:"error"`
		Reason   string `json:"reason"`
		Decision string `json:"decision_id"`
		Help     string `json:"help"`
		Advice   string `json:"advice,omitempty"`
	}{n.error, n.why.String(), decision, n.help, n.advice}
	if !n.rpc {
		return marshal(told)
	}
	data := map[string]any{"error": told.Error, "reason": told.Reason, "decision_id": told.Decision, "help": told.Help}
	if told.Advice != "" {
		data["advice"] = told.Advice
	}
	for name, value := range n.data {
		data[name] = value
	}
	type rpcError struct {
		Code    int            `json:"code"`
		Message string         `json:"message"`
		Data    map[string]any `json:"data"`
	}
	return marshal(struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   rpcError        `json:"error"`
	}{"2.0", n.id, rpcError{n.code, told.Reason + ": " + told.Help, data}})
}

// rpcPrefix begins every body of a denial with status 200.
const rpcPrefix = `{"jsonrpc":"2.0","id":`

func marshal(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte(`{"error":"access_denied"}`)
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// challenged is WWW-Authenticate (RFC 6750, Section 3; resource_metadata: RFC
// 9728, Section 5.1); "" for none.
func (n denial) challenged() string {
	out := n.challenge
	if out == "" || n.status == http.StatusOK || n.challenge == insufficientScope && len(n.scopes) == 0 {
		return "" // or no scope would help
	}
	sep := " "
	if strings.Contains(out, "=") {
		sep = ", "
	}
	if n.challenge == insufficientScope {
		out, sep = out+sep+"scope="+quoted(strings.Join(n.scopes, " ")), ", "
	}
	if n.metadata != "" {
		out += sep + "resource_metadata=" + quoted(n.metadata)
	}
	return out
}

// quoted is a quoted-string (RFC 9110, Section 5.6.4) of visible ASCII.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
