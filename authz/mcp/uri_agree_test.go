package mcp

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestURIReadersAgree: what Read accepts is what the SDKs' parsers make of it, and
// leads nowhere else when it is decoded.
func TestURIReadersAgree(t *testing.T) {
	readers := uriReaders(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	m := mutator{rand.New(rand.NewPCG(seed, 0))}
	uris := append(append([]string{}, ordinary...), odd...)
	for range caseCount(t) {
		uris = append(uris, m.uri())
	}
	bodies, passes, accepted := make([][]byte, len(uris)), make([]bool, len(uris)), 0
	for i, uri := range uris {
		bodies[i] = []byte(uri)
		if _, no := Read(world(), uriPlaces(uri)["read"]); no == nil {
			passes[i] = true
			accepted++
		}
	}
	t.Logf("%d of %d URIs accepted", accepted, len(uris))
	if accepted*10 < len(uris) {
		t.Error("too few to say much")
	}
	for name, reader := range readers {
		moved := 0
		for i, line := range reader(bodies) {
			var theirs *string
			if err := json.Unmarshal([]byte(line), &theirs); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			switch {
			case theirs != nil && *theirs == uris[i]:
			case passes[i]:
				t.Errorf("%s reads %q as %s", name, uris[i], line)
			case theirs != nil:
				moved++
			}
		}
		// That the test sees something: without the rules it would fail.
		if moved == 0 {
			t.Errorf("%s reads all that is refused as it is", name)
		}
	}
}

// uriReaders are Node, and Python with the pydantic of each version of the SDK.
func uriReaders(t *testing.T) map[string]func([][]byte) []string {
	t.Helper()
	python, node := peer(t, "python3"), peer(t, "node")
	readers := map[string]func([][]byte) []string{
		"Node": func(uris [][]byte) []string { return feed(t, nil, uris, node, "testdata/reader.mjs", "uris") },
	}
	paths := []string{os.Getenv("PYTHONPATH")}
	if dir := os.Getenv("TOOLGRANT_MCP_PEERS"); dir != "" {
		paths = []string{filepath.Join(dir, "python/1"), filepath.Join(dir, "python/2")}
	}
	for _, path := range paths {
		env := []string{"PYTHONPATH=" + path}
		probe := exec.CommandContext(t.Context(), python, "-c", "import pydantic")
		probe.Env = append(os.Environ(), env...)
		switch err := probe.Run(); {
		case err != nil && testing.Short():
			t.Skip("no pydantic")
		case err != nil:
			t.Fatalf("no pydantic (%v): run `make mcp`, and set TOOLGRANT_MCP_PEERS to the folder that it prints; or test with -short", err)
		}
		readers["Python "+filepath.Base(path)] = func(uris [][]byte) []string { return feed(t, env, uris, python, "testdata/reader.py", "uris") }
	}
	return readers
}

// uri gives a URI of pieces that parsers are known to change, or an ordinary one
// with such pieces in it.
func (m mutator) uri() string {
	uri := pick(m, ordinary...)
	if m.IntN(2) == 0 {
		uri = pick(m, "http", "https", "ws", "wss", "ftp", "file", "notes", "a", "x+y.z-1", "urn", "postgres", "javascript", "data", "HTTP", "1a", "blob") + ":" +
			pick(m, "", "/", "//", "//", "//", "//", "///") + m.host() + pick(m, "", "", ":", ":0", ":1", ":21", ":80", ":443", ":0443", ":8080", ":65535", ":65536", ":x")
		uri += pick(m, "", "", "", "/C:", "/c:/") // of which file has rules of its own
		for range m.IntN(4) {
			uri += pick(m, "/", "/", "/", "", "//", "?", "#", "\\") + m.segment()
		}
	}
	for range pick(m, 0, 0, 1, 1, 2) {
		at, end := m.IntN(len(uri)+1), 0
		if m.IntN(3) == 0 {
			end = m.IntN(min(3, len(uri)-at+1))
		}
		uri = uri[:at] + pick(m, m.segment(), m.segment(), "", "/", ":", "@", "/../", "[", "]", strings.ToUpper(uri[at:at+end])) + uri[at+end:]
	}
	return uri
}

func (m mutator) host() string {
	return pick(m, "", "h", "a.b", "example.com", "localhost", "Host", "a_b", "-a", "a-", "a--b", "xn--a", "xn--bcher-kva", "a.", ".a", "a..b", "1.2.3.4", "1.2.3", "0x7f.1", "1.2.3.04", "a.1", "0x",
		"4294967295", "9999999999", "1e3", "a.1b", "0xg", "256.1.1.1", "u@h", "u:p@h", "@h", "h%20x", "%68", "h%41", "caf%C3%A9", "ü", "ſ", "h!$&'()*+,;=", "..", "c", "C",
		"[::1]", "[::0]", "[2001:db8::1]", "[2001:db8:0:0:1:0:0:1]", "[2001:DB8::1]", "[::ffff:1.2.3.4]", "[::ffff:102:304]", "[1:0:2:3:4:5:6:7]", "[64:ff9b::1]", "[fe80::1%25a]", "[v1.a]", "[", "]",
		strings.Repeat("a", 64)+".b", strings.Repeat("a.", 140)+"b")
}

func (m mutator) segment() string {
	return pick(m, "", "a", "b.c", "A", "0", ".", "..", "...", "..a", "%2e", "%2E%2e", ".%2E", "%2F", "%2f", "%5C", "%41", "%7e", "%7E", "%C3%A9", "%c3%a9", "%C3", "%E2%80%8B", "%EF%BF%BD", "%ED%A0%80",
		"%00", "%09", "%0D", "%7F", "%C2%80", "%20", "%25", "%252e", "%3A", "%3F", "%23", "%27", "%", "%4", "%GG", "'", " ", "\t", "\n", "\x00", "\x7f", "é", "\u200b", "．．", "／", "\ufeff",
		"|", "c|", "c:", "C:", "\\", "..\\", "\"", "<", ">", "^", "`", "{x}", "~", "!", "$", "&", "(", ")", "*", "+", ",", ";", "=", "@", ":", "[", "]", "q=1", "a;x=1", "..;")
}
