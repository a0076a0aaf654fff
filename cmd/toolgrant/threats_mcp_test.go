package main

import (
	"slices"
	"strings"
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
				s.good().forms1(), s.good().forms2(), s.repeated(), s.strangers(), s.sessionsOfOthers(), s.hosts())
			covers(t, attacks, []string{"R01", "R02", "R03", "R04", "R05", "R06", "R07", "R08", "R09", "R10", "R11", "R12", "R13", "R14", "R15", "R16", "R18"})
			s.hold(t, attacks)
			s.hold(t, []attack{s.write("afterwards")})
		})
	}
	// No attack has ended the other agent's session.
	s := m.speaks("legacy", mcp.Rev20251125)
	s.session = m.other
	alive := s.attack("", "tools/list", "")
	alive.fields = s.fields(m.stranger, "tools/list")
	if got := m.one(t, alive, fixedLength); got.status != 200 || !strings.Contains(got.body, "write_note") {
		t.Errorf("another agent's session: %d %s", got.status, got.body)
	}
	t.Run("watched", func(t *testing.T) {
		s := m.speaks("jobs", mcp.Rev20260728)
		s.hold(t, slices.Concat([]attack{s.write("R00 the granted call")}, s.encodings(), s.sizes(), s.steering(), s.contents(), s.good().framing()))
	})
	t.Run("methods", func(t *testing.T) {
		for _, revision := range mcp.Revisions() {
			s := m.speaks("notes", revision)
			s.hold(t, s.methods(t))
		}
	})
	t.Run("told", func(t *testing.T) {
		s := m.speaks("told", mcp.Rev20251125)
		s.hold(t, s.inJSONRPC())
	})
}
