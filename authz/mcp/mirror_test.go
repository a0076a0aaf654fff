package mcp

import (
	"encoding/base64"
	"testing"
)

func b64(s string) string { return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?=" }

func TestMethodAndName(t *testing.T) {
	echo := `"name":"echo"`
	note := func(headers ...string) HTTPRequest {
		return post(Rev20260728, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`, headers...)
	}
	checkRules(t, world(), []rule{
		{"all", modern("tools/call", echo, headerName, "echo"), accepted},
		{"no method", with(modern("tools/call", echo, headerName, "echo"), headerMethod), missed},
		{"another method", with(modern("tools/call", echo, headerName, "echo"), headerMethod, "tools/list"), missed},
		{"method in another case", with(modern("tools/call", echo, headerName, "echo"), headerMethod, "Tools/Call"), missed},
		{"encoded method", with(modern("tools/list", ""), headerMethod, b64("tools/list")), missed},
		{"no name", modern("tools/call", echo), missed},
		{"another name", modern("tools/call", echo, headerName, "query"), missed},
		{"name in another case", modern("tools/call", echo, headerName, "Echo"), missed},
		{"padded name", modern("tools/call", echo, headerName, "echo "), missed},
		{"empty name", modern("tools/call", echo, headerName, ""), missed},
		{"uri", modern("resources/read", `"uri":"file:///a"`, headerName, "file:///a"), accepted},
		{"no uri", modern("resources/read", `"uri":"file:///a"`), missed},
		{"prompt", modern("prompts/get", `"name":"p"`, headerName, "p"), accepted},
		{"task", modern("tasks/get", `"taskId":"t"`, headerName, "t"), accepted},
		{"another task", modern("tasks/cancel", `"taskId":"t"`, headerName, "u"), missed},
		{"no task", modern("tasks/update", `"taskId":"t","inputResponses":{}`), missed},
		{"nothing named", modern("tools/list", ""), accepted},
		{"a name of nothing", modern("tools/list", "", headerName, "x"), missed},
		{"an empty name of nothing", modern("tools/list", "", headerName, ""), missed},
		{"a name of a completion", modern("completion/complete", `"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":""}`, headerName, "p"), missed},

		{"encoded", modern("tools/call", echo, headerName, b64("echo")), accepted},
		{"encoded for need", modern("prompts/get", `"name":"ü"`, headerName, b64("ü")), accepted},
		{"another, encoded", modern("tools/call", echo, headerName, b64("query")), missed},
		{"marker in another case", modern("tools/call", echo, headerName, "=?BASE64?ZWNobw==?="), missed},
		{"no padding", modern("tools/call", echo, headerName, "=?base64?ZWNobw?="), missed},
		{"more behind", modern("tools/call", echo, headerName, "=?base64?ZWNobw==x?="), missed},
		{"loose bits", modern("tools/call", echo, headerName, "=?base64?ZWNobx==?="), missed},
		{"base64url", modern("prompts/get", `"name":"~~~"`, headerName, "=?base64?fn5-?="), missed},
		{"not UTF-8", modern("prompts/get", `"name":"�"`, headerName, b64("\xff")), missed},
		{"half a marker", modern("prompts/get", `"name":"=?base64?="`, headerName, "=?base64?="), accepted},
		{"a name like a marker", modern("prompts/get", `"name":"=?base64?YQ==?="`, headerName, "=?base64?YQ==?="), missed},
		{"a name like a marker, encoded", modern("prompts/get", `"name":"=?base64?YQ==?="`, headerName, b64("=?base64?YQ==?=")), accepted},

		{"notification", note(), accepted},
		{"notification with its method", note(headerMethod, "notifications/cancelled"), accepted},
		{"notification with another", note(headerMethod, "notifications/progress"), missed},
		{"notification with a name", note(headerName, "1"), missed},
		{"legacy without", old("tools/call", echo), accepted},
		{"legacy with both", old("tools/call", echo, headerMethod, "tools/call", headerName, "echo"), accepted},
		{"legacy with another method", old("tools/call", echo, headerMethod, "tools/list"), missed},
		{"legacy with another name", old("tools/call", echo, headerName, "query"), missed},
		{"no revision, another name", with(old("tools/call", echo, headerName, "query"), headerRevision), missed},
	})
}

func TestArgumentHeaders(t *testing.T) {
	call := func(arguments string, headers ...string) HTTPRequest {
		return modern("tools/call", `"name":"query","arguments":`+arguments, append(headers, headerName, "query")...)
	}
	before := func(arguments string, headers ...string) HTTPRequest {
		return old("tools/call", `"name":"query","arguments":`+arguments, headers...)
	}
	const region, limit, dry = "mcp-param-region", "mcp-param-limit", "mcp-param-dry"
	checkRules(t, world(), []rule{
		{"none", call(`{}`), accepted},
		{"all", call(`{"region":"eu","page":{"limit":42},"dry":true}`, region, "eu", limit, "42", dry, "true"), accepted},
		{"missing", call(`{"region":"eu"}`), missed},
		{"missing far down", call(`{"page":{"limit":42}}`), missed},
		{"without the argument", call(`{}`, region, "eu"), missed},
		{"without the object that it is in", call(`{"page":5}`, limit, "5"), missed},
		{"null", call(`{"region":null}`), accepted},
		{"null with a header", call(`{"region":null}`, region, "null"), missed},
		{"null with an empty header", call(`{"region":null}`, region, ""), missed},
		{"empty", call(`{"region":""}`, region, ""), accepted},
		{"another", call(`{"region":"eu"}`, region, "us"), missed},
		{"in another case", call(`{"region":"eu"}`, region, "EU"), missed},
		{"encoded", call(`{"region":"Köln"}`, region, b64("Köln")), accepted},
		{"another encoded", call(`{"region":"Köln"}`, region, b64("Koln")), missed},
		{"argument of another type", call(`{"region":5}`, region, "5"), missed},
		{"argument that is an object", call(`{"region":{}}`, region, "{}"), missed},
		{"integer by value", call(`{"page":{"limit":42}}`, limit, "42.0"), accepted},
		{"integer by value in the body", call(`{"page":{"limit":4.2e1}}`, limit, "42"), accepted},
		{"encoded integer", call(`{"page":{"limit":42}}`, limit, b64("42")), accepted},
		{"integer as a text", call(`{"page":{"limit":"42"}}`, limit, "42"), missed},
		{"another integer", call(`{"page":{"limit":42}}`, limit, "43"), missed},
		{"integer as no number", call(`{"page":{"limit":42}}`, limit, "0x2a"), missed},
		{"empty integer", call(`{"page":{"limit":0}}`, limit, ""), missed},
		{"padded integer", call(`{"page":{"limit":42}}`, limit, " 42"), missed},
		{"no integer", call(`{"page":{"limit":4.5}}`, limit, "4.5"), missed},
		{"false", call(`{"dry":false}`, dry, "false"), accepted},
		{"boolean in another case", call(`{"dry":true}`, dry, "True"), missed},
		{"the other boolean", call(`{"dry":false}`, dry, "true"), missed},
		{"boolean as a number", call(`{"dry":true}`, dry, "1"), missed},
		{"not declared", call(`{"x":"1"}`, "mcp-param-x", "1"), missed},
		{"of no tool", modern("tools/call", `"name":"echo"`, headerName, "echo", region, "eu"), missed},
		{"of another method", modern("tools/list", "", region, "eu"), missed},
		{"of an unknown tool", modern("tools/call", `"name":"none"`, headerName, "none", region, "eu"), accepted},
		{"legacy, none", before(`{"region":"eu"}`), accepted},
		{"legacy, the same", before(`{"region":"eu"}`, region, "eu"), accepted},
		{"legacy, another", before(`{"region":"eu"}`, region, "us"), missed},
		{"legacy, without the argument", before(`{}`, region, "us"), missed},
		{"legacy, not declared", before(`{"x":"1"}`, "mcp-param-x", "1"), missed},
	})
}
