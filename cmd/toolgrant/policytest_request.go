package main

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/strictjson"
)

// wireCall is a request to a tool or MCP server as its client sends it, and what
// Envoy's route adds.
type wireCall struct {
	method, path, host string
	header             map[string]string // lower-case name -> value
	body               []byte
	extensions         map[string]string // context_extensions of the route
}

// request is what Envoy asks about the call: headers raw, the body whole
// (ext_authz with encode_raw_headers, pack_as_bytes).
func (c *wireCall) request() *authv3.CheckRequest {
	headers := &corev3.HeaderMap{}
	add := func(name, value string) {
		headers.Headers = append(headers.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
	}
	add(":authority", c.host)
	add(":method", c.method)
	add(":path", c.path)
	add(":scheme", "http")
	for _, name := range slices.Sorted(maps.Keys(c.header)) {
		add(name, c.header[name])
	}
	if len(c.body) > 0 {
		add("content-type", "application/json")
		add("content-length", strconv.Itoa(len(c.body)))
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: c.extensions,
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: c.method, Path: c.path, HeaderMap: headers, RawBody: c.body,
		}},
	}}
}

// present puts the credential into the header that carries it.
func (c *wireCall) present(header, credential string) {
	if header == "authorization" {
		credential = "Bearer " + credential
	}
	c.header[header] = credential
}

// callOf makes a call of the tool with an input as policy sees it.
func callOf(tool *catalog.Tool, input map[string]any) (*wireCall, error) {
	if tool.Server.MCP != nil {
		method, _ := mcp.Lookup(mcp.ToolsCall, mcp.Request)
		c, err := messageOf(tool.Server, method, newest(tool.Server, method.In), map[string]any{"name": tool.MCPName, "arguments": input})
		if err != nil {
			return nil, err
		}
		return c, repeat(c, tool, input)
	}
	c := &wireCall{
		method: tool.Method, path: tool.Path, host: hostOf(tool.Server), header: map[string]string{},
		extensions: map[string]string{authz.ContextTool: tool.ID, authz.ContextTimeout: strconv.FormatInt(tool.Timeout.Milliseconds(), 10)},
	}
	query, _ := input["query"].(map[string]any)
	separator := "?"
	for _, name := range slices.Sorted(maps.Keys(query)) {
		c.path += separator + escaped(name) + "=" + escaped(plain(query[name]))
		separator = "&"
	}
	header, _ := input["header"].(map[string]any)
	for name, value := range header {
		c.header[name] = plain(value)
	}
	if body, ok := input["body"]; ok {
		var err error
		if c.body, err = strictjson.Canonical(body); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// messageOf makes a message to the MCP server, in the revision (Streamable HTTP).
func messageOf(s *catalog.Server, method *mcp.Method, revision string, params map[string]any) (*wireCall, error) {
	c := &wireCall{
		method: http.MethodPost, path: s.MCP.Path, host: hostOf(s),
		header: map[string]string{
			"accept": "application/json, text/event-stream", "mcp-protocol-version": revision,
		},
		extensions: map[string]string{authz.ContextServer: s.ID, authz.ContextTimeout: strconv.FormatInt(s.MCP.Timeout.Milliseconds(), 10)},
	}
	params = maps.Clone(params)
	if params == nil {
		params = map[string]any{}
	}
	if revision >= mcp.Rev20260728 {
		// "Standard Request Headers", and what each request says of its client.
		c.header["mcp-method"] = method.Name
		for _, name := range []string{"name", "uri", "taskId"} {
			if text, ok := params[name].(string); ok {
				c.header["mcp-name"] = inHeader(text)
			}
		}
		if _, given := params["_meta"]; !given && method.Kind == mcp.Request {
			params["_meta"] = map[string]any{
				"io.modelcontextprotocol/protocolVersion": revision, "io.modelcontextprotocol/clientCapabilities": map[string]any{},
			}
		}
	}
	message := map[string]any{"jsonrpc": "2.0", "method": method.Name, "params": params}
	if method.Kind == mcp.Request {
		message["id"] = strictjson.Number("1")
	}
	var err error
	if c.body, err = strictjson.Canonical(message); err != nil {
		return nil, err
	}
	return c, nil
}

// repeat adds the headers that repeat arguments (MCP 2026-07-28, Streamable HTTP,
// "Custom Headers from Tool Parameters").
func repeat(c *wireCall, tool *catalog.Tool, input map[string]any) error {
	if c.header["mcp-protocol-version"] < mcp.Rev20260728 {
		return nil
	}
	for _, h := range tool.HeaderArguments() {
		var v any = input
		for _, name := range h.Path {
			object, ok := v.(map[string]any)
			if !ok {
				return fmt.Errorf("%s: the argument that mcp-param-%s repeats is inside of what is no object", tool.ID, h.Name)
			}
			v = object[name]
		}
		if v != nil {
			c.header["mcp-param-"+h.Name] = inHeader(plain(v))
		}
	}
	return nil
}

// plain writes a scalar outside of JSON.
func plain(v any) string { return fmt.Sprint(v) }

// escaped writes a text for a query (RFC 3986, Section 3.4), with %20 for a blank.
func escaped(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// inHeader encodes what a header cannot have as it is ("Value Encoding").
func inHeader(text string) string {
	plain := text == strings.TrimSpace(text) && !strings.HasPrefix(text, "=?")
	for _, b := range []byte(text) {
		plain = plain && b >= ' ' && b <= '~'
	}
	if plain {
		return text
	}
	return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(text)) + "?="
}

// hostOf is a host by which the server may be called.
func hostOf(s *catalog.Server) string {
	if hosts := s.Hosts(); len(hosts) > 0 && !strings.Contains(hosts[0], ":") {
		return hosts[0]
	}
	return "localhost"
}
