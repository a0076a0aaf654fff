package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// hostile is what a terminal, a pager or a reader of lines might obey: C0 and C1
// controls, DEL, separators, bidi and other format characters, private and
// unassigned ones, one of them beyond the BMP.
const hostile = "a\x1b[2J\u009b2J\u0085\x7f\u2028\u2029\u202e\u2066\u200b\ufeff\U000e0001\ue000\u0378\r\n\"\\z é世🙂"

// mustPrint fails if something in the log is not one line of JSON each, in
// printable characters.
func mustPrint(t testing.TB, log []byte) (lines []map[string]any) {
	t.Helper()
	if !utf8.Valid(log) {
		t.Errorf("not UTF-8: %q", log)
	}
	for line := range strings.Lines(string(log)) {
		body, whole := strings.CutSuffix(line, "\n")
		if i := strings.IndexFunc(body, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 || !whole {
			t.Errorf("does not print, or does not end: %q", line)
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v in %q", err, line)
		}
		lines = append(lines, fields)
	}
	return lines
}

// TestLogPrints (U01): whatever reaches the program's log, by whichever kind of
// field, shows what it is and does nothing; a parser gets it back whole.
func TestLogPrints(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&out)
	log.Named(hostile).With(zap.String(hostile, hostile)).Info(hostile,
		zap.Strings("list", []string{hostile}), zap.Any("any", map[string]string{hostile: hostile}),
		zap.Error(errors.New(hostile)), zap.ByteString("bytes", []byte(hostile)))
	log.Info("plain, é世🙂")
	lines := mustPrint(t, out.Bytes())
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	first := lines[0]
	for name, got := range map[string]any{
		"message": first["msg"], "field": first[hostile], "list": first["list"].([]any)[0], "any": first["any"].(map[string]any)[hostile],
		"error": first["error"], "bytes": first["bytes"], "logger": first["logger"],
	} {
		if got != hostile {
			t.Errorf("%s: %q came back as %q", name, hostile, got)
		}
	}
	if !strings.Contains(out.String(), "plain, é世🙂") {
		t.Error("what prints was escaped")
	}
	for _, r := range hostile { // alone, and not behind another that is escaped
		out.Reset()
		log.Info(string(r))
		if lines := mustPrint(t, out.Bytes()); len(lines) != 1 || lines[0]["msg"] != string(r) {
			t.Errorf("%q came back as %v", r, lines)
		}
	}
}

// TestSignalsPrint (U01): an agent's id on its way through the signals and the log.
func TestSignalsPrint(t *testing.T) {
	var out bytes.Buffer
	s := audit.NewSignals(audit.SignalsConfig{GrantRequests: 1, Logger: newLogger(&out)})
	for i := range 2 {
		s.Observe([]audit.Record{
			{ID: fmt.Sprint("d_", i), Kind: grants.ActionGrant, Requester: "corp/" + hostile, Agent: "corp/other" + hostile, Tool: hostile, Outcome: audit.Allow},
			{ID: fmt.Sprint("d_", i), Kind: audit.KindCall, Agent: "corp/" + hostile, Tool: hostile, Outcome: audit.Deny, Reason: grants.Expired},
		})
	}
	if lines := mustPrint(t, out.Bytes()); len(lines) != 2 {
		t.Errorf("%d lines: %s", len(lines), out.Bytes())
	}
}

// FuzzLogPrints: any bytes at all.
func FuzzLogPrints(f *testing.F) {
	f.Add(hostile, []byte("\xff\xfe\u202e"))
	f.Add("\xed\xa0\x80", []byte("\U0010ffff"))
	f.Fuzz(func(t *testing.T, text string, raw []byte) {
		var out bytes.Buffer
		newLogger(&out).Info(text, zap.ByteString("raw", raw), zap.Error(errors.New(text)))
		for _, line := range mustPrint(t, out.Bytes()) {
			if utf8.ValidString(text) && line["msg"] != text {
				t.Errorf("%q came back as %q", text, line["msg"])
			}
		}
		// Bytes that are not from zap, and not UTF-8.
		out.Reset()
		quoted := append(append([]byte{'"'}, bytes.Map(func(r rune) rune {
			if r < ' ' || r == '"' || r == '\\' {
				return -1
			}
			return r
		}, raw)...), "\xff\"\n"...)
		if n, err := (printableJSON{&out}).Write(quoted); n != len(quoted) || err != nil {
			t.Errorf("%d of %d bytes, %v", n, len(quoted), err)
		}
		if !utf8.Valid(out.Bytes()) || !json.Valid(out.Bytes()) || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
			t.Errorf("%q became %q", quoted, out.Bytes())
		}
	})
}
