package mcp

import (
	"net/http"
	"testing"

	jsonexp "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"

	"github.com/toolgrant/toolgrant/strictjson"
)

// FuzzRead: whatever comes, Read says one thing; and what it accepts reads the
// same when it is written anew, to a strict library, and to the Go SDK.
func FuzzRead(f *testing.F) {
	for _, in := range []HTTPRequest{
		old("tools/call", `"name":"call_tool","arguments":{"name":"deep","arguments":{"in":{"tool":"echo","with":{"a":[1.5,null]}}}}`),
		modern("tools/call", `"name":"query","arguments":{"region":"eu"},"inputResponses":{"a":{}}`, headerName, "query", "mcp-param-region", "eu"),
		modern("subscriptions/listen", `"notifications":{"taskIds":["t"]}`),
		old("completion/complete", `"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"v"}`),
		old("prompts/get", `"name":"p","arguments":{"a":"b"}`), post("", initialize),
		post(Rev20251125, `{"jsonrpc":"2.0","id":1,"result":{"_meta":{}}}`), verb("GET", Rev20251125),
		post(Rev20251125, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"\u0061"}}`),
		old("tools/call", `"name":"job","task":{"ttl":1}`), modern("resources/read", `"uri":"https://a.b:8/c%20?d#e"`, headerName, "https://a.b:8/c%20?d#e"),
		old("completion/complete", `"ref":{"type":"ref/resource","uri":"a://{b}/c"},"argument":{"name":"a","value":"v"}`),
	} {
		one := func(name string) string { v, _ := (&reader{in: in}).header(name); return v }
		f.Add(in.Verb, one(headerRevision), one(headerMethod), one(headerName), one("mcp-param-region"), in.Body)
	}
	s := world()
	f.Fuzz(func(t *testing.T, verb, revision, method, name, region string, body []byte) {
		in := post("", string(body))
		in.Verb = verb
		for header, v := range map[string]string{headerRevision: revision, headerMethod: method, headerName: name, "mcp-param-region": region} {
			if v != "" {
				in.Header[header] = []string{v}
			}
		}
		m, no := Read(s, in)
		switch {
		case (m == nil) == (no == nil):
			t.Fatalf("message %v, refusal %v", m, no)
		case no != nil:
			if no.Why == 0 || no.Status < 400 || no.Status > 499 || no.Code == 0 || no.Detail == "" {
				t.Errorf("refusal %+v", no)
			}
			return
		case verb != http.MethodPost:
			return
		}
		v, err := strictjson.Parse(body, strictjson.Limits{})
		if err != nil {
			t.Fatalf("accepted, and yet: %v", err)
		}
		if in.Body, err = jsonexp.Marshal(v); err != nil {
			t.Fatal(err)
		}
		again, no := Read(s, in)
		if no != nil {
			t.Fatalf("written anew it is refused: %+v", no)
		}
		if diff := cmp.Diff(m, again, cmp.AllowUnexported(Message{})); diff != "" {
			t.Errorf("written anew it is another: %s", diff)
		}
		want := ours(t, m, body)
		if theirs, err := strictReads(body); err != nil || theirs != want {
			t.Errorf("a strict library reads %v, %v; want %v", theirs, err, want)
		}
		if _, err := jsonrpc.DecodeMessage(body); err != nil {
			t.Errorf("the Go SDK reads no message: %v", err)
		}
		// It may refuse params for reasons of its own, such as the kind of an answer.
		if theirs, err := sdkReads(body); err == nil && theirs != want {
			t.Errorf("the Go SDK reads %v; want %v", theirs, want)
		}
	})
}

// strictReads is how a library reads a message that minds case and duplicates.
func strictReads(body []byte) (reading, error) {
	var m struct {
		Method any            `json:"method"`
		ID     jsontext.Value `json:"id"`
		Params struct {
			Name      any            `json:"name"`
			URI       any            `json:"uri"`
			TaskID    any            `json:"taskId"`
			Arguments jsontext.Value `json:"arguments"`
		} `json:"params"`
	}
	if err := jsonexp.Unmarshal(body, &m); err != nil {
		return reading{}, err
	}
	if m.Params.Arguments == nil {
		m.Params.Arguments = jsontext.Value("{}")
	}
	if m.ID == nil {
		m.ID = jsontext.Value("null")
	}
	picked, err := jsonexp.Marshal([]any{m.Method, m.Params.Name, m.Params.URI, m.Params.TaskID, m.Params.Arguments, m.ID})
	if err != nil {
		return reading{}, err
	}
	whole := jsontext.Value(body).Clone()
	if err := (*jsontext.Value)(&picked).Canonicalize(); err != nil {
		return reading{}, err
	}
	err = whole.Canonicalize()
	return reading{string(picked), string(whole)}, err
}
