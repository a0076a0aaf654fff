package main

import (
	"slices"
	"testing"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// TestThreatsToMCP sends the threat list's requests, each in four ways, through
// real Envoy to MCP servers, with the token of a live grant.
func TestThreatsToMCP(t *testing.T) {
	m := openRPCTarget(t)
	for _, s := range []speaker{m.speaks("notes", mcp.Rev20260728), m.speaks("legacy", mcp.Rev20251125)} {
		t.Run(s.revision, func(t *testing.T) {
			attacks := slices.Concat(s.bodies(), s.sizes(), s.steering(), s.contents(), s.good().framing(), s.verbs(), s.paths(),
				s.good().forms1(), s.good().forms2(), s.hosts())
			covers(t, attacks, []string{"R01", "R02", "R03", "R04", "R05", "R06", "R07", "R08", "R09", "R10", "R11", "R12", "R13", "R18"})
			s.hold(t, attacks)
			s.hold(t, []attack{s.write("afterwards")})
		})
	}
}
