package mcp

import (
	"encoding/json"
	"strings"
	"testing"
)

// ordinary are URIs that servers have.
var ordinary = []string{
	"file:///home/a/b.txt", "file:///", "file:///C:/a.txt", "file://nas.example/share/a", "notes://index", "greeting://World", "notes://shelf/a/", "notes:///a", "notes:/a",
	"https://example.com/a/b?q=1#x", "https://example.com/", "http://localhost:8080/a", "https://10.1.2.3/a", "https://[2001:db8::1]:8443/a", "https://a_b.example/~u/x.y-z",
	"test://static-text", "test://template/123/data", "urn:isbn:123", "postgres://db/customers/schema", "postgres://db:5432/a", "a:b", "mailto:a@b.example",
	"notes://caf%C3%A9/%E2%82%AC", "notes://a/50%25", "notes://a/b%20c", "notes://a/b%3Fc%23d", "notes://a/...", "notes://a/.hidden", "notes://a/b..c",
	"git+ssh://host/a", "https://example.com/?next=https://b.example//c", "x://[::1]/a", "x://h:0", "ui://widget/index.html", "notes://a/it's",
}

// odd are URIs that some server reads as another, or that none reads.
var odd = []string{
	"", "x", "/a", "//a", "a", "a:", ":a", "1a:b", "-a:b", "FILE:///x", "Notes://index", " notes://index", "notes://index ", "notes://in\tdex", "notes://index\n", "notes://é/",
	"notes://a/b\\..\\c", "notes://a/{b}", "notes://a/b|c", "notes://a/<b>", "notes://a/\"b\"", "notes://a/b^c", "notes://a/`b`", "notes://a/\x7f", "notes://a/\x00",
	// dot segments and empty ones
	"notes://shelf/public/../private", "notes://shelf/./a", "notes://shelf/..", "notes://../a", "notes://.", "notes:..", "notes:../a", "notes:/.", "notes:/.//a",
	"notes://shelf/public/%2e%2e/private", "notes://shelf/public/%2E%2E/private", "notes://shelf/public/.%2E/private", "notes://shelf/public%2F..%2Fprivate",
	"notes://shelf/public%2fprivate", "notes://a/b%5Cc", "notes://a/b?/../c", "notes://a/b?../c", "notes://a/b#/../c", "notes://a//b", "notes://a/b//", "notes:a//b", "file:////a",
	// escapes
	"notes://book/%73ecret", "notes://book/%7E", "notes://book/%2D", "notes://book/%5F", "notes://book/%39", "notes://a/%c3%a9", "notes://a/%", "notes://a/%4", "notes://a/%zz",
	"notes://a/%C3", "notes://a/%C3%28", "notes://a/%ED%A0%80", "notes://a/%C0%AE", "notes://a/%00", "notes://a/%0A", "notes://a/%7F", "notes://a/%C2%85", "notes://a?%73", "notes://%61/",
	// query and fragment
	"notes://a?", "notes://a#", "notes://a?#b", "notes://a#b#c", "https://a.b/?q='a'",
	// special schemes
	"https:a", "https:/a", "https:///a", "https://a", "https://a?b", "https:////a", "file:a", "file:/a", "file://", "file://a", "file://localhost/x", "file://LOCALHOST/x", "file:///c|/x",
	"file://h/C:", "file://h/c:/x", "file://c:/x", "file://a:1/x", "http://", "https://:1/",
	// hosts
	"https://Example.com/", "https://example.com./", "https://.a/", "https://a..b/", "https://a%2eb/", "https://a%20b/", "https://a!b/", "https://xn--a/", "https://b.xn--bcher-kva/",
	"https://1.2.3/", "https://1/", "https://0x7f000001/", "https://01.2.3.4/", "https://1.2.3.4.5/", "https://256.1.1.1/", "https://a.1/", "https://a.0x/", "https://1.2.3.4./",
	"https://[::0]/", "https://[::FFFF]/", "https://[::ffff:1.2.3.4]/", "https://[::1%25a]/", "https://[::1", "https://[::1]a/", "https://::1/", "https://[1.2.3.4]/", "https://[]/",
	"x://[::0]/", "x://[a]/", "x://a[b]/", "x://[::1]a/", "x://[::1]:/",
	// ports and users
	"https://a:443/", "http://a:80/", "ws://a:80/", "wss://a:443/", "ftp://a:21/", "https://a:/", "https://a:080/", "https://a:65536/", "https://a:+1/", "https://a:1:1/", "https://a:b/",
	"x://a:/b", "x://a:080/", "x://a:65536/", "x://:1/", "x://a:b/", "https://u@a/", "https://u:p@a/", "https://@a/", "x://u@a/", "x://u:p@a/", "x://a@b@c/", "x://@a",
}

// uriPlaces are where a message has a URI.
func uriPlaces(uri string) map[string]HTTPRequest {
	text, _ := json.Marshal(uri)
	q := string(text)
	return map[string]HTTPRequest{
		"read":        old("resources/read", `"uri":`+q),
		"subscribe":   old("resources/subscribe", `"uri":`+q),
		"unsubscribe": old("resources/unsubscribe", `"uri":`+q),
		"complete":    old("completion/complete", `"ref":{"type":"ref/resource","uri":`+q+`},"argument":{"name":"a","value":"v"}`),
		"listen":      modern("subscriptions/listen", `"notifications":{"resourceSubscriptions":["a:b",`+q+`]}`),
	}
}

func TestURIs(t *testing.T) {
	for want, uris := range map[want][]string{accepted: ordinary, badParams: odd} {
		for _, uri := range uris {
			for place, in := range uriPlaces(uri) {
				if _, no := Read(world(), in); got(no) != want {
					// A template has braces.
					if place == "complete" && uri == "notes://a/{b}" && no == nil {
						continue
					}
					t.Errorf("%s %q: %+v, want %+v", place, uri, no, want)
				}
			}
		}
	}
}

// TestURIDetails: the refusal says what to write, in words of its own.
func TestURIDetails(t *testing.T) {
	for uri, want := range map[string]string{
		"x://u:p@a/": "leave away what is before the @", "https://a:443/": "leave it away with its colon", "http://a": "a path that begins with /",
		"file://localhost/x": "write file:///", "notes://a/%73": "write them as they are", "notes://a/%": "write %25", "notes://a/../b": "write the path that they lead to",
	} {
		if _, no := Read(world(), uriPlaces(uri)["read"]); no == nil || !strings.HasPrefix(no.Detail, "params.uri ") || !strings.Contains(no.Detail, want) {
			t.Errorf("%q: %+v; want %q in it", uri, no, want)
		}
	}
}

func TestTemplates(t *testing.T) {
	for uri, want := range map[string]want{
		"notes://note/{name}": accepted, "file:///{+path}": accepted, "file://{+path}": accepted, "https://{host}:{port}/a{/b*}{?c,d:3}{#e}": accepted,
		"{scheme}://a": accepted, "{+base}/a": badParams, "notes://{a": badParams, "notes://a}": badParams, "notes://{}": badParams, "notes://{{a}}": badParams, "notes://{a b}": badParams,
		"notes://{a}/../b": badParams, "notes://{a}/%2E%2E/b": badParams, "notes://{a}/%73": badParams, "NOTES://{a}": badParams, " notes://{a}": badParams, "notes://{é}": badParams,
		"notes://{a}//b": badParams,
	} {
		if _, no := Read(world(), uriPlaces(uri)["complete"]); got(no) != want {
			t.Errorf("%q: %+v, want %+v", uri, no, want)
		}
	}
	// A prompt's name is no URI.
	mustRead(t, world(), old("completion/complete", `"ref":{"type":"ref/prompt","name":"../a b"},"argument":{"name":"a","value":"v"}`))
}
