package identity

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

func TestCertificate(t *testing.T) {
	v, err := New(Config{Certificates: "mesh"})
	if err != nil {
		t.Fatal(err)
	}
	off, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"spiffe://example.org/agent", "https://a.example/x?y=z", "urn:uuid:f81d4fae", "agent-7.example.org", "agent_7", "A", strings.Repeat("a", maxSubject),
	} {
		got, ok := v.Certificate(name)
		if want := (grants.Principal{Issuer: "mesh", Subject: name}); !ok || !cmp.Equal(got, want) {
			t.Errorf("%q: %v, %+v", name, ok, got)
		}
		if got, ok := off.Certificate(name); ok || !cmp.Equal(got, grants.Principal{}) {
			t.Errorf("%q names %+v, and certificates name nobody", name, got)
		}
	}
	for _, name := range []string{
		"", "CN=agent-7", "CN=spiffe://example.org/agent", "CN=agent,O=x", "1.2.3.4=#0c01", "emailAddress=a@b", "agent 7", "a..b", ".a", "a.", "*.example.org",
		"spiffe://a\nb", "spiffe://a\u202eb", "urn:a ", "urn:a\u2028b", "a\x00", "a\xff", ":", "spiffe:", "7:x", "é.example", strings.Repeat("a", maxSubject+1),
	} {
		if got, ok := v.Certificate(name); ok || !cmp.Equal(got, grants.Principal{}) {
			t.Errorf("%q: %+v", name, got)
		}
	}
	for _, alias := range []string{"a/b", "Mesh", "-", "mesh\n", strings.Repeat("a", 32)} {
		if _, err := New(Config{Certificates: alias}); err == nil || !strings.Contains(err.Error(), "certificates") {
			t.Errorf("alias %q: %v", alias, err)
		}
	}
}

// A workload's JWT-SVID and its X.509-SVID can be one agent.
func TestCertificateOfAnIssuersAgent(t *testing.T) {
	key := newTestKey(t, "1")
	v, err := New(Config{
		Issuers:      []Issuer{{Alias: "mesh", URL: corpURL, JWKSFile: writeFile(t, key.jwks()), Audience: "toolgrant"}},
		Certificates: "mesh",
	})
	if err != nil {
		t.Fatal(err)
	}
	const id = "spiffe://example.org/agent"
	byToken, reason := v.Verify(key.sign(key.header(""), payload(t, "sub", `"`+id+`"`)), testNow)
	byCertificate, ok := v.Certificate(id)
	if reason != grants.None || !ok || byToken.Principal.ID() != byCertificate.ID() {
		t.Errorf("%v, %v: %q and %q", reason, ok, byToken.Principal.ID(), byCertificate.ID())
	}
}

func FuzzCertificate(f *testing.F) {
	v, err := New(Config{Certificates: "mesh"})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"spiffe://example.org/agent", "a.example", "CN=a,O=b", "", "a\u202eb"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, ok := v.Certificate(name)
		if !ok {
			return
		}
		before, _, equals := strings.Cut(name, "=")
		if got.ID() != "mesh/"+name || len(name) > maxSubject || strings.ContainsAny(name, "\x00\r\n") || equals && !strings.Contains(before, ":") {
			t.Errorf("%q: %+v", name, got)
		}
	})
}
