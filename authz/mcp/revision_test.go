package mcp

import (
	"slices"
	"testing"
)

func TestRevision(t *testing.T) {
	meta := func(revision string) string {
		return `"_meta":{"io.modelcontextprotocol/protocolVersion":` + revision + `}`
	}
	note := `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`
	checkRules(t, world(), []rule{
		{"2025-03-26", with(old("ping", ""), headerRevision, Rev20250326), accepted},
		{"2025-06-18", with(old("ping", ""), headerRevision, Rev20250618), accepted},
		{"2026-07-28", modern("tools/list", ""), accepted},
		{"none", with(old("ping", ""), headerRevision), accepted},
		{"empty", with(old("ping", ""), headerRevision, ""), badRev},
		{"2024-11-05", with(old("ping", ""), headerRevision, "2024-11-05"), badRev},
		{"two in one", with(old("ping", ""), headerRevision, "2025-11-25, 2025-11-25"), badRev},
		{"padded", with(old("ping", ""), headerRevision, " 2025-11-25"), badRev},
		{"in the body alone", with(modern("tools/list", ""), headerRevision), missed},
		{"empty in the body alone", with(old("ping", meta(`""`)), headerRevision), missed},
		{"another in the body", with(modern("tools/list", ""), headerRevision, Rev20251125), missed},
		{"another, unknown one in the body", with(modern("tools/list", ""), headerRevision, "2027-01-01"), missed},
		{"legacy in both", old("ping", meta(`"2025-11-25"`)), accepted},
		{"newer in the body", old("ping", meta(`"2026-07-28"`)), missed},
		{"no text in the body", old("ping", meta(`1`)), badParams},
		{"no text and no header", with(old("ping", meta(`null`)), headerRevision), badParams},
		{"not in the body", post(Rev20260728, string(old("tools/list", "").Body), headerMethod, "tools/list"), badParams},
		{"notifications need not have it", post(Rev20260728, note), accepted},
		{"initialize", post("", initialize), accepted},
		{"initialize with the header", post(Rev20251125, initialize), accepted},
		{"initialize of the newest", post(Rev20260728, initialize, headerMethod, "initialize"), badParams},
		{"unsupported comes before what is missing", post("2027-01-01", string(old("tools/list", "").Body)), badRev},
	})
	for in, want := range map[string]string{"": Rev20250326, Rev20250618: Rev20250618} {
		if m := mustRead(t, world(), post(in, initialize)); m.Revision != want {
			t.Errorf("header %q: revision %q, want %q", in, m.Revision, want)
		}
	}
	if m := mustRead(t, world(), modern("tools/list", "")); m.Revision != Rev20260728 || !m.Modern() {
		t.Errorf("revision %q", m.Revision)
	}
}

// TestNarrowServer is one that the catalogue lets be spoken to in two revisions
// of four.
func TestNarrowServer(t *testing.T) {
	s := world()
	s.Revisions = []string{Rev20251125, Rev20260728}
	future := []byte(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2031-01-01","capabilities":{},"clientInfo":{}}}`)
	checkRules(t, s, []rule{
		{"initialize without the header", post("", initialize), accepted},
		{"initialize that offers what nobody knows", post("", string(future)), accepted},
		{"afterwards with the header", old("ping", ""), accepted},
		{"afterwards without it", with(old("ping", ""), headerRevision), missed},
		{"GET without it", verb("GET", ""), missed},
		{"a revision that it has not", with(old("ping", ""), headerRevision, Rev20250618), badRev},
	})
	_, no := Read(s, with(old("ping", ""), headerRevision, Rev20250618))
	if !slices.Equal(no.Supported, s.Revisions) || no.Requested != Rev20250618 {
		t.Errorf("supported %v, requested %q", no.Supported, no.Requested)
	}
	_, no = Read(s, with(old("ping", ""), headerRevision, "a long text of the sender's"))
	if no.Requested != "" {
		t.Errorf("requested %q", no.Requested)
	}
	s.Revisions = []string{Rev20260728}
	if _, no = Read(s, post("", initialize)); got(no) != badRev || no.Requested != Rev20251125 {
		t.Errorf("initialize at a modern server: %+v", no)
	}
}
