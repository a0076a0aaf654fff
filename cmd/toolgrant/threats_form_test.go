package main

import (
	"fmt"
	"strings"
)

// forms1 is R13 in HTTP/1.1: what is no request, or one that can be read in two
// ways.
func (g good) forms1() []attack {
	good := g.head1() + g.length()
	instead := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	line, host := "POST "+g.path+" HTTP/1.1", "Host: "+g.host
	return []attack{
		{name: "R13 as it should be", http1: good, want: "200"},
		{name: "R13 two hosts", http1: instead(host, host+"\r\nHost: evil"), want: mayEnd},
		{name: "R13 no host", http1: instead(host+"\r\n", ""), want: mayEnd},
		{name: "R13 a host that is none", http1: instead(host, "Host: e@vil/../"), want: g.otherHost + " 400 404"},
		{name: "R13 another host", http1: instead(host, "Host: evil.internal"), want: g.otherHost},
		{name: "R13 an absolute URI", http1: instead(g.path, "http://evil.internal"+g.path), want: g.otherHost + " 400 404"},
		{name: "R13 an absolute URI of a tool's upstream", http1: instead(g.path, "http://"+g.upstream+"/archive"), want: "200 400 404"},
		{name: "R13 CONNECT", http1: instead("POST "+g.path, "CONNECT "+g.upstream), want: mayEnd},
		{name: "R13 CONNECT with a path", http1: instead("POST", "CONNECT"), want: mayEnd},
		{name: "R13 a target that is a port", http1: instead(g.path, ":80"), want: mayEnd},
		{name: "R13 bytes beyond ASCII in a value", http1: instead("Connection", "Accept-Language: \x80\xff\r\nConnection"), want: "400"},
		{name: "R13 UTF-8 in a value", http1: instead("Connection", "Accept-Language: dé\r\nConnection"), want: "400"},
		{name: "R13 bytes beyond ASCII in a name", http1: instead("Connection", "Acc\xe9pt: x\r\nConnection"), want: mayEnd},
		{name: "R13 bytes beyond ASCII in the path", http1: instead(g.path, "/\xe9"+g.path[2:]), want: mayEnd},
		{name: "R13 bytes beyond ASCII in the token", http1: instead(g.fields[1], g.fields[1]+"\xe9"), want: "400 401"},
		{name: "R13 a zero in a value", http1: instead("Connection", "Accept-Language: a\x00b\r\nConnection"), want: mayEnd},
		{name: "R13 a zero in the path", http1: instead(g.path, g.path[:3]+"\x00"+g.path[3:]), want: mayEnd},
		{name: "R13 a bare CR", http1: instead("Connection", "Accept-Language: a\rX-Grant-Ctx-Admin: 1\r\nConnection"), want: "200 400 ended"},
		{name: "R13 a bare LF", http1: instead("Connection: close\r\n", "Connection: close\n"), want: "200 400 ended"},
		{name: "R13 a blank before the colon", http1: instead("Connection:", "Connection :"), want: mayEnd},
		{name: "R13 a blank in a name", http1: instead("Connection", "X Evil: x\r\nConnection"), want: mayEnd},
		{name: "R13 a line that goes on", http1: instead(" Bearer", "\r\n Bearer"), want: "200 400 401 ended"},
		{name: "R13 a first line that goes on", http1: instead("\r\nHost", "\r\n Host"), want: mayEnd},
		{name: "R13 no name", http1: instead("Connection", ": evil\r\nConnection"), want: mayEnd},
		{name: "R13 no colon", http1: instead("Connection", "evil\r\nConnection"), want: mayEnd},
		{name: "R13 a pseudo-field", http1: instead("Connection", ":path: /archive\r\nConnection"), want: mayEnd},
		{name: "R13 HTTP|1.0", http1: instead("HTTP/1.1", "HTTP/1.0"), want: "200 400 426"},
		{name: "R13 HTTP|0.9", http1: instead(" HTTP/1.1", ""), want: mayEnd + " 426"},
		{name: "R13 HTTP|2.0 in words", http1: instead("HTTP/1.1", "HTTP/2.0"), want: mayEnd + " 426"},
		{name: "R13 HTTP|1.9", http1: instead("HTTP/1.1", "HTTP/1.9"), want: "200 400 426 505 ended"},
		{name: "R13 two blanks", http1: instead(line, strings.ReplaceAll(line, " ", "  ")), want: "200 400 404 ended"},
		{name: "R13 tabs", http1: instead(line, strings.ReplaceAll(line, " ", "\t")), want: "200 400 ended"},
		{name: "R13 an upgrade to h2c", http1: instead("Connection: close", "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"), want: "200 400 403"},
		{name: "R13 an upgrade to a socket", http1: instead("Connection: close", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), want: "400 403"},
		{name: "R13 an expectation", http1: instead("Connection", "Expect: 200-ok\r\nConnection"), want: "200 400 417"},
	}
}

// forms2 is R13 in HTTP/2.
func (g good) forms2() []attack {
	good := g.fields2()
	plus := func(fields ...string) []string { return append(good[:len(good):len(good)], fields...) }
	// set gives a field another value, or with none takes it away.
	set := func(name string, value ...string) []string {
		var fields []string
		for i := 0; i < len(good); i += 2 {
			if good[i] != name {
				fields = append(fields, good[i], good[i+1])
			} else if len(value) > 0 {
				fields = append(fields, name, value[0])
			}
		}
		return fields
	}
	attacks := []attack{
		{name: "R13 as it should be", http2: good, want: "200"},
		{name: "R13 no :path", http2: set(":path"), want: mayEnd},
		{name: "R13 an empty :path", http2: set(":path", ""), want: mayEnd},
		{name: "R13 no :method", http2: set(":method"), want: mayEnd},
		{name: "R13 no :scheme", http2: set(":scheme"), want: mayEnd},
		{name: "R13 another :scheme", http2: set(":scheme", "evil"), want: "200 400 404 ended"},
		{name: "R13 two :path", http2: append([]string{":path", "/archive"}, good...), want: mayEnd},
		{name: "R13 two :path, the good one first", http2: append(good[:8:8], append([]string{":path", "/archive"}, good[8:]...)...), want: mayEnd},
		{name: "R13 two :method", http2: append([]string{":method", "DELETE"}, good...), want: mayEnd},
		{name: "R13 two :authority", http2: append([]string{":authority", "evil"}, good...), want: mayEnd},
		{name: "R13 two :scheme", http2: append([]string{":scheme", "https"}, good...), want: mayEnd},
		{name: "R13 host differs from :authority", http2: plus("host", "evil.internal"), want: g.otherHost + " 200 400 ended"},
		{name: "R13 host and no :authority", http2: append(set(":authority"), "host", "evil.internal"), want: g.otherHost + " 400 ended"},
		{name: "R13 two hosts", http2: plus("host", g.host, "host", "evil"), want: g.otherHost + " 200 400 ended"},
		{name: "R13 neither host nor :authority", http2: set(":authority"), want: mayEnd},
		{name: "R13 a user in :authority", http2: set(":authority", "evil@"+g.host), want: g.otherHost + " 400 404 ended"},
		{name: "R13 a pseudo-field behind", http2: append(set(":path"), ":path", g.path), want: mayEnd},
		{name: "R13 an unknown pseudo-field", http2: append([]string{":evil", "1"}, good...), want: mayEnd},
		{name: "R13 a name in capitals", http2: plus("X-Evil", "1"), want: mayEnd},
		{name: "R13 the credential's name in capitals", http2: append(set("authorization"), "Authorization", g.fields[1]), want: mayEnd},
		{name: "R13 CONNECT", http2: []string{":method", "CONNECT", ":authority", g.upstream, "authorization", g.fields[1]}, want: mayEnd},
		{name: "R13 CONNECT with a path", http2: set(":method", "CONNECT"), want: mayEnd},
		{name: "R13 CONNECT for a protocol", http2: append([]string{":protocol", "websocket"}, set(":method", "CONNECT")...), want: mayEnd},
		{name: "R13 an absolute URI", http2: set(":path", "http://evil.internal"+g.path), want: mayEnd},
		{name: "R13 an absolute URI of a tool's upstream", http2: set(":path", "http://"+g.upstream+"/archive"), want: mayEnd},
		{name: "R13 connection", http2: plus("connection", "authorization"), want: mayEnd},
		{name: "R13 keep-alive", http2: plus("keep-alive", "1"), want: "200 400 ended"},
		{name: "R13 upgrade", http2: plus("upgrade", "websocket"), want: mayEnd},
		{name: "R13 te that is not trailers", http2: plus("te", "gzip"), want: "200 400 ended"},
		{name: "R13 an empty name", http2: plus("", "evil"), want: mayEnd},
		{name: "R13 a name that begins with a colon", http2: plus(":authority", "evil"), want: mayEnd},
		{name: "R13 a blank in a name", http2: plus("x evil", "1"), want: mayEnd},
		{name: "R13 a line end in a name", http2: plus("x\r\nevil", "1"), want: mayEnd},
		{name: "R13 bytes beyond ASCII in a name", http2: plus("acc\xe9pt", "1"), want: mayEnd},
		{name: "R13 bytes beyond ASCII in the path", http2: set(":path", "/\xe9"+g.path[2:]), want: mayEnd},
		{name: "R13 bytes beyond ASCII in the query", http2: set(":path", g.path+"?\xff=1"), want: mayEnd},
		{name: "R13 bytes beyond ASCII in :method", http2: set(":method", "PO\xffST"), want: mayEnd},
		{name: "R13 bytes beyond ASCII in :authority", http2: set(":authority", "\xff"), want: mayEnd + " " + g.otherHost},
		{name: "R13 bytes beyond ASCII in the token", http2: set("authorization", g.fields[1]+"\x80"), want: "400 401 ended"},
		{name: "R13 a line end in a value", http2: plus("accept", "a\r\nx-grant-ctx-agent: evil"), want: mayEnd},
		{name: "R13 a bare LF in a value", http2: plus("accept", "a\nx-grant-ctx-agent: evil"), want: mayEnd},
		{name: "R13 a bare CR in a value", http2: plus("accept", "a\rx-evil: b"), want: mayEnd},
		{name: "R13 a zero in a value", http2: plus("accept", "a\x00b"), want: mayEnd},
		{name: "R13 a line end in the path", http2: set(":path", g.path+"\r\nx-grant-ctx-agent: evil"), want: mayEnd},
		{name: "R13 a request in the path", http2: set(":path", g.path+" HTTP/1.1\r\nHost: a\r\n\r\nDELETE /archive HTTP/1.1"), want: mayEnd},
		{name: "R13 a blank in the path", http2: set(":path", g.path+" x"), want: mayEnd},
		{name: "R13 blanks round a value", http2: set("authorization", " "+g.fields[1]+" "), want: "200 400 401 ended"},
	}
	for _, b := range []string{"\x80", "\x9f", "\xa0", "\xc3\xa9", "\xff"} {
		attacks = append(attacks, attack{name: fmt.Sprintf("R13 bytes %x", b), http2: plus("accept-language", "a"+b+"b"), want: "400 ended"})
	}
	for i := range attacks {
		attacks[i].body = g.body
	}
	return attacks
}
