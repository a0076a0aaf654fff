package authz

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// FuzzCheck: whatever is asked, the answer is sound, and yes only to a call that
// its one credential holds a grant for. TOKEN in the headers, which are written as
// lines "name: value", stands for a token with a grant for srv/full.
func FuzzCheck(f *testing.F) {
	w := newWorld(f)
	genuine := w.token(w.grant("srv/full"))
	const good = "authorization: Bearer TOKEN\ncontent-type: application/json"
	f.Add("srv/full", "POST", "/full?format=csv", good, `{"month":"x"}`, "", "")
	f.Add("srv/full", "POST", "/full", good+"\nauthorization: Bearer TOKEN", `{"month":"x"}`, "", "")
	f.Add("srv/full", "POST", "/full", good+"\nx-own-token: TOKEN", `{"month":"x"}`, "spiffe://corp/bot", "")
	f.Add("srv/open", "GET", "/open", "", "", "spiffe://corp/bot", "-----BEGIN CERTIFICATE-----%0A")
	f.Add("srv/passes", "GET", "/passes", good, "", "", "")
	f.Add("", "", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, tool, method, path, lines, body, peer, cert string) {
		var headers []string
		for line := range strings.SplitSeq(strings.ReplaceAll(lines, "TOKEN", genuine), "\n") {
			name, value, _ := strings.Cut(line, ": ")
			headers = append(headers, name, value)
		}
		resp, err := w.door.Check(t.Context(), fromPeer(ask(tool, method, path, body, headers...), peer, cert))
		if err != nil || !sound(resp) {
			t.Fatal(resp, err)
		}
		if reason(resp) == "undecided" {
			t.Fatalf("could not decide: %v", resp)
		}
		ok := resp.GetOkResponse()
		if ok == nil {
			if strings.Contains(resp.GetDeniedResponse().GetBody(), genuine) {
				t.Fatal("a denial repeats the token")
			}
			return
		}
		before, _, _ := strings.Cut(path, "?")
		credentials := 0
		for i := 0; i < len(headers); i += 2 {
			if headers[i] == "authorization" {
				credentials++
			}
		}
		if tool != "srv/full" || method != "POST" || before != "/full" || credentials != 1 || peer != "" && peer != w.bot.Subject {
			t.Fatalf("allowed: %q %q %q %q %q", tool, method, path, lines, peer)
		}
		if removed := strings.Join(ok.GetHeadersToRemove(), " "); !strings.Contains(removed, "authorization") {
			t.Fatalf("the credential reaches the tool; removed are %s", removed)
		}
	})
}

// FuzzMessage: the same of any message that is a CheckRequest at all.
func FuzzMessage(f *testing.F) {
	w := newWorld(f)
	for _, req := range []*authv3.CheckRequest{
		{}, ask("srv/bare", "GET", "/bare", ""), ask("srv/full", "POST", "/full?q=a", `{}`, "authorization", "Bearer x", "content-type", "application/json"),
		fromPeer(ask("srv/open", "GET", "/open", ""), "spiffe://corp/bot", "x"),
	} {
		text, err := proto.Marshal(req)
		w.must(err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var req authv3.CheckRequest
		if proto.Unmarshal(text, &req) != nil {
			return
		}
		resp, err := w.door.Check(t.Context(), &req)
		if err != nil || !sound(resp) || resp.GetOkResponse() != nil || reason(resp) == "undecided" {
			t.Fatal(resp, err)
		}
	})
}

// FuzzHeaders: what is neither declared nor known is removed, and a credential is
// nowhere in what stays.
func FuzzHeaders(f *testing.F) {
	f.Add("authorization: Bearer x\nx-tenant: a\ncookie: b")
	f.Add("x-own-token: x\nauthorization: y\nx-envoy-a: b\naccept: c")
	f.Add("content-length: 1\ncontent-length: 2\n:path: /\nx-tenant: \x85")
	d := testDoor(f, "")
	tool, _ := d.cfg.Catalog.Tool("srv/full")
	f.Fuzz(func(t *testing.T, lines string) {
		var list []*corev3.HeaderValue
		for line := range strings.SplitSeq(lines, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			list = append(list, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
		}
		h := readHeaders(list, wanted{credential: "authorization", all: d.credentials, declared: tool.Header, passAuthorization: tool.PassAuthorization})
		removed := map[string]bool{}
		for _, name := range h.remove {
			removed[name] = true
		}
		credentials, misplaced := 0, false
		for _, hv := range list {
			name, value := hv.GetKey(), string(hv.GetRawValue())
			stays := passed[name] || name == "x-tenant" || strings.HasPrefix(name, ":") || strings.HasPrefix(name, "x-envoy-")
			if stays == removed[name] {
				t.Fatalf("%q: removed is %t", name, removed[name])
			}
			switch {
			case name == "authorization":
				credentials++
			case name == "x-own-token":
				misplaced = true
			case strings.HasPrefix(name, ":") || name == "x-envoy-auth-partial-body":
			case stays && h.bad == "" && strings.ContainsFunc(value, func(r rune) bool { return r > 0x7e || r < ' ' && r != '\t' }):
				t.Fatalf("%q: %q stays", name, value)
			}
		}
		if len(h.credentials) != credentials || (h.misplaced != "") != misplaced {
			t.Fatalf("%d credentials, misplaced %q", len(h.credentials), h.misplaced)
		}
	})
}
