package main

import (
	"slices"
	"testing"

	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/envoy"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

// TestNamesAgree: what two rooms call by a name of their own, because neither may
// import the other, is one thing.
func TestNamesAgree(t *testing.T) {
	for _, n := range []struct{ what, a, b string }{
		{"the header of a pass", envoy.PassHeader, mcp.PassHeader},
		{"the header of a stream", envoy.StreamHeader, authz.StreamHeader},
		{"the extension with the tool", envoy.ExtensionTool, authz.ContextTool},
		{"the extension with the server", envoy.ExtensionServer, authz.ContextServer},
		{"the extension with the time-out", envoy.ExtensionTimeout, authz.ContextTimeout},
		{"the type of authorization details", envoy.DetailType, token.DetailType},
		{"the prefix of MCP's actions", mcp.ActionPrefix, grants.ActionMCP},
	} {
		if n.a != n.b {
			t.Errorf("%s: %q and %q", n.what, n.a, n.b)
		}
	}
	if !slices.Equal(mcp.Revisions(), catalog.Revisions()) {
		t.Errorf("revisions: %q and %q", mcp.Revisions(), catalog.Revisions())
	}
}
