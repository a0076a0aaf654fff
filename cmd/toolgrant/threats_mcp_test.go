package main

import (
	"testing"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// TestThreatsToMCP sends the threat list's requests, each in four ways, through
// real Envoy to MCP servers, with the token of a live grant.
func TestThreatsToMCP(t *testing.T) {
	m := openRPCTarget(t)
	for _, s := range []speaker{m.speaks("notes", mcp.Rev20260728), m.speaks("legacy", mcp.Rev20251125)} {
		for name, group := range map[string]struct {
			rows    []string
			attacks []attack
		}{
			"bodies":   {[]string{"R01", "R02", "R03", "R04", "R05"}, s.bodies()},
			"sizes":    {[]string{"R06"}, s.sizes()},
			"steering": {[]string{"R07"}, s.steering()},
			"contents": {[]string{"R08", "R09"}, s.contents()},
			"framing":  {[]string{"R10"}, s.good().framing()},
			"verbs":    {[]string{"R11"}, s.verbs()},
			"paths":    {[]string{"R12"}, s.paths()},
			"forms":    {[]string{"R13"}, append(s.good().forms1(), s.good().forms2()...)},
			"hosts":    {[]string{"R18"}, s.hosts()},
		} {
			t.Run(s.revision+"/"+name, func(t *testing.T) {
				covers(t, group.attacks, group.rows)
				s.hold(t, group.attacks)
				s.hold(t, []attack{s.write("afterwards")})
			})
		}
	}
}
