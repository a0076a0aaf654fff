package mcp

import (
	"maps"
	"net/http"
	"testing"
)

// world is the server that the tests speak to.
func world() Server {
	tools := map[string]Tool{
		"echo": {},
		"query": {Headers: []Header{
			{Name: "region", Path: []string{"region"}, Type: "string"},
			{Name: "limit", Path: []string{"page", "limit"}, Type: "integer"},
			{Name: "dry", Path: []string{"dry"}, Type: "boolean"},
		}},
		"job":       {Tasks: true},
		"call_tool": {Inner: &Inner{Tool: []string{"name"}, Arguments: []string{"arguments"}}},
		"deep":      {Inner: &Inner{Tool: []string{"in", "tool"}, Arguments: []string{"in", "with"}}},
		"apart":     {Inner: &Inner{Tool: []string{"what"}, Arguments: []string{"in", "with"}}},
		"start":     {Inner: &Inner{Tool: []string{"what"}}},
	}
	return Server{
		Revisions: Revisions(), Hosts: []string{"mcp.example"}, Origins: []string{"https://inspector.example"},
		Tool: func(name string) (Tool, bool) { t, ok := tools[name]; return t, ok },
	}
}

// post is a message of a revision; "": without the header. headers are pairs; a
// header that is there already comes twice.
func post(revision, body string, headers ...string) HTTPRequest {
	r := HTTPRequest{Verb: http.MethodPost, Body: []byte(body), Header: map[string][]string{
		":authority": {"mcp.example"}, "content-type": {"application/json"}, "accept": {"application/json, text/event-stream"},
	}}
	if revision != "" {
		r.Header[headerRevision] = []string{revision}
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	return r
}

// old is a request of 2025-11-25. params are members, without braces.
func old(method, params string, headers ...string) HTTPRequest {
	return post(Rev20251125, `{"jsonrpc":"2.0","id":7,"method":"`+method+`","params":{`+params+`}}`, headers...)
}

const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}`

// modern is a request of 2026-07-28 with all but Mcp-Name and Mcp-Param-*.
func modern(method, params string, headers ...string) HTTPRequest {
	if params != "" {
		params = "," + params
	}
	return post(Rev20260728, `{"jsonrpc":"2.0","id":7,"method":"`+method+`","params":{`+meta+params+`}}`, append(headers, headerMethod, method)...)
}

// with replaces a header; no value: it is not there.
func with(r HTTPRequest, name string, values ...string) HTTPRequest {
	r.Header = maps.Clone(r.Header)
	r.Header[name] = values
	if len(values) == 0 {
		delete(r.Header, name)
	}
	return r
}

func verb(verb, revision string, headers ...string) HTTPRequest {
	r := post(revision, "", headers...)
	r.Verb = verb
	return r
}

// want is what Read is to say: accepted, or one kind of refusal.
type want struct {
	why    Why
	status int
	code   int
}

var (
	accepted  = want{}
	parse     = want{Malformed, 400, CodeParse}
	invalid   = want{Malformed, 400, CodeInvalid}
	badParams = want{Malformed, 400, CodeParams}
	missed    = want{Mismatch, 400, CodeMismatch}
	tooLarge  = want{TooLarge, 413, CodeInvalid}
	encoded   = want{Encoding, 415, 415}
	badVerb   = want{BadVerb, 405, 405}
	badRev    = want{BadRevision, 400, CodeUnsupported}
	unknown   = want{NoMethod, 403, CodeNoMethod}
	foreign   = want{Foreign, 403, 403}
)

func got(no *Refusal) want {
	if no == nil {
		return accepted
	}
	return want{no.Why, no.Status, no.Code}
}

type rule struct {
	name string
	in   HTTPRequest
	want want
}

func checkRules(t *testing.T, s Server, rules []rule) {
	t.Helper()
	for _, c := range rules {
		t.Run(c.name, func(t *testing.T) {
			m, no := Read(s, c.in)
			if (m == nil) == (no == nil) {
				t.Fatalf("message %v, refusal %v: exactly one is to be set", m, no)
			}
			if got(no) != c.want {
				t.Errorf("got %+v %+v, want %+v", got(no), no, c.want)
			}
			if no != nil && no.Detail == "" {
				t.Error("a refusal without a detail")
			}
		})
	}
}

func mustRead(t *testing.T, s Server, in HTTPRequest) *Message {
	t.Helper()
	m, no := Read(s, in)
	if no != nil {
		t.Fatalf("refused: %+v", no)
	}
	return m
}
