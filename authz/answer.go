package authz

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"go.uber.org/zap"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// conclude records the verdict and answers. Every path to an allow leads
// through here, and so does everything that turned out to be none.
func (d *Door) conclude(ctx context.Context, c *check, v verdict) *authv3.CheckResponse {
	d.confirm(ctx, c, &v)
	if c.call.input != nil { // it can be large, and writing can take time
		c.args, c.call.input = d.cfg.Digest(argsText(c.call.input)), nil
	}
	if err := d.cfg.Record(d.record(c, v)); err != nil {
		d.cfg.Logger.Debug("recording a decision", zap.String("decision", c.id), zap.Error(err))
		v.refuse(grants.CannotRecord)
		return d.denied(c, v)
	}
	if !v.allow {
		return d.denied(c, v)
	}
	// Writing took time, in which the grant may have ended. The record that
	// stands says "allow"; a second one says that it did not come to that.
	if d.confirm(ctx, c, &v); !v.allow {
		if err := d.cfg.Record(d.record(c, v)); err != nil {
			d.cfg.Logger.Debug("recording a withdrawal", zap.String("decision", c.id), zap.Error(err))
		}
		return d.denied(c, v)
	}
	return d.allowed(c, v)
}

// confirm refuses what would have been allowed if its token or grant lives no
// more, or if the time for an answer is up.
func (d *Door) confirm(ctx context.Context, c *check, v *verdict) {
	if !v.allow {
		return
	}
	if ctx.Err() != nil {
		v.refuse(grants.Undecided)
		return
	}
	if v.left = c.caller.ends.Sub(d.cfg.Table.Now()); v.left <= 0 {
		v.refuse(grants.ExpiredToken)
		return
	}
	for _, live := range v.rests {
		if why := d.cfg.Table.Still(live); why != grants.None {
			v.refuse(why)
			return
		}
		if v.left = min(v.left, d.cfg.Table.Left(live)); v.left <= 0 {
			v.refuse(grants.Expired)
			return
		}
	}
}

// refuse turns the verdict into a denial and gives back what it spent.
func (v *verdict) refuse(why grants.Reason) {
	v.spent.GiveBack()
	v.allow, v.why = false, why
}

func (d *Door) record(c *check, v verdict) audit.Record {
	r := audit.Record{
		ID: c.id, Kind: "call", Time: c.now, Agent: c.caller.agent.ID(),
		Task: c.caller.task, Source: c.call.source, Args: c.args, Count: 1, Outcome: audit.Deny, Reason: v.why, Status: answers[v.why].status,
		Policies: v.decision.Policies, Revision: v.decision.Revision,
		Rev: d.cfg.Table.Rev().String(), LatencyUS: time.Since(c.began).Microseconds(),
	}
	if r.Status == 0 {
		r.Reason, r.Status = grants.Undecided, answers[grants.Undecided].status
	}
	if c.call.tool != nil {
		r.Tool = c.call.tool.ID
	}
	if v.held {
		g := v.grant.Grant()
		r.Grant, r.Requester, r.Client = g.ID, g.Requester.ID(), g.Client
	} else if c.call.tool != nil {
		r.Grant = c.caller.named(c.call.tool.ID)
		// One that is dead is in the table for a while, and who asked for it is what
		// is looked for first.
		if g, _ := d.cfg.Table.Grant(r.Grant); g != nil && g.Agent.ID() == c.caller.agent.ID() && g.Task == c.caller.task {
			r.Requester, r.Client = g.Requester.ID(), g.Client
		}
	}
	if v.allow {
		r.Outcome, r.Reason, r.Status = audit.Allow, grants.None, 0 // the tool's own is not known yet
		return r
	}
	r.Note = audit.Note(v.detail, facts(c, v))
	return r
}

// facts are what policy may have refused a call for, to who reads the record; ""
// where something else refused it.
func facts(c *check, v verdict) string {
	switch v.why {
	case grants.Policy, grants.PolicyError, grants.PolicyChanged, grants.NoGrant, grants.WrongTool:
	default:
		return ""
	}
	if !v.held {
		return audit.Facts{Groups: c.caller.agent.Groups}.String()
	}
	g := v.grant.Grant()
	return audit.Facts{Kind: v.grant.Task().Kind, TTL: int64(g.Expires.Sub(c.now) / time.Second), Groups: g.Agent.Groups}.String()
}

// argsText is the text of an input that its digest is taken of: RFC 8785, or,
// where a number has no such form (more digits than a double keeps), the same
// members in order with that number as it was written.
func argsText(input map[string]any) []byte {
	text, err := strictjson.Canonical(input)
	if err != nil {
		text, err = json.Marshal(input) // sorts names; a strictjson.Number is written as it was
	}
	if err != nil {
		return nil
	}
	return text
}

// contextPrefix begins the headers that an allow sets. A client's are replaced
// or removed here, and stripped by the printed configuration before that.
const contextPrefix = "x-grant-ctx-"

// allowed lets the request through: the credential and all undeclared headers
// removed, the context set, and the response cut off when the window ends.
func (d *Door) allowed(c *check, v verdict) *authv3.CheckResponse {
	set := []*corev3.HeaderValueOption{
		header(contextPrefix+"agent", headerSafe(c.caller.agent.ID())),
		header(contextPrefix+"tool", c.call.tool.ID),
	}
	remove := slices.Clone(c.call.headers.remove)
	if v.held {
		g := v.grant.Grant()
		// Envoy takes the header even where it is longer than the route's own
		// time-out, so the shorter is sent; "0" would mean none.
		cut := v.left
		if c.call.timeout > 0 {
			cut = min(cut, c.call.timeout)
		}
		set = append(set,
			header(contextPrefix+"task", g.Task),
			header(contextPrefix+"grant", g.ID),
			header("x-envoy-upstream-rq-timeout-ms", strconv.FormatInt(max(1, cut.Milliseconds()), 10)),
		)
	}
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

func (d *Door) denied(c *check, v verdict) *authv3.CheckResponse {
	return deniedResponse(v.why, c.id, v.detail, d.metadata(c, v))
}

// deniedResponse is a denial as the agent sees it: never which policy, never a
// value of its own request.
func deniedResponse(why grants.Reason, id, detail string, meta *structpb.Struct) *authv3.CheckResponse {
	a := answers[why]
	if a.status == 0 { // not of the closed set: still a denial, and never status 0
		a, why = answers[grants.Undecided], grants.Undecided
	}
	help := a.help
	if detail != "" {
		help = detail
	}
	body, err := json.Marshal(struct {
		Error    string `json:"error"`
		Reason   string `json:"reason"`
		Decision string `json:"decision_id"`
		Help     string `json:"help"`
	}{a.error, why.String(), id, help})
	if err != nil {
		body = []byte(`{"error":"access_denied"}`)
	}
	set := []*corev3.HeaderValueOption{
		header("content-type", "application/json"),
		header("cache-control", "no-store"),
	}
	if a.status == http.StatusTooManyRequests {
		set = append(set, header("retry-after", "1"))
	}
	if a.challenge != "" {
		set = append(set, header("www-authenticate", a.challenge))
	}
	code := codes.PermissionDenied
	if a.status == http.StatusUnauthorized {
		code = codes.Unauthenticated
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(a.status)},
			Headers: set, Body: string(body) + "\n",
		}},
		DynamicMetadata: meta,
	}
}

// metadata goes to Envoy's access log, under envoy.filters.http.ext_authz.
func (d *Door) metadata(c *check, v verdict) *structpb.Struct {
	m := map[string]*structpb.Value{
		"decision_id": structpb.NewStringValue(c.id),
		"outcome":     structpb.NewStringValue("deny"),
		"reason":      structpb.NewStringValue(v.why.String()),
		"agent":       structpb.NewStringValue(c.caller.agent.ID()),
		"task":        structpb.NewStringValue(c.caller.task),
	}
	if v.allow {
		m["outcome"], m["reason"] = structpb.NewStringValue("allow"), structpb.NewStringValue("")
	}
	if c.call.tool != nil {
		m["tool"] = structpb.NewStringValue(c.call.tool.ID)
	}
	if v.held {
		m["grant"] = structpb.NewStringValue(v.grant.Grant().ID)
	} else if c.call.tool != nil {
		if id := c.caller.named(c.call.tool.ID); id != "" {
			m["grant"] = structpb.NewStringValue(id)
		}
	}
	return &structpb.Struct{Fields: m}
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
