package main

import (
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/catalog"
)

// What a server says of itself is shown to people up to here.
const (
	maxShown = 100 // letters of a description
	maxNotes = 8   // of one tool
)

// YAML is a whole catalogue with this server alone.
func (i *importedServer) YAML() []byte { return []byte(i.head() + "servers:\n" + i.entry()) }

// Entry is the server as an item of a catalogue's "servers".
func (i *importedServer) Entry() []byte { return []byte(i.head() + i.entry()) }

func (i *importedServer) head() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What %s offers, by \"toolgrant catalogue import\".\n", shown(i.url, maxShown))
	b.WriteString(`# What a comment says that "it says" are the server's own words: they decide nothing.
# Before use: read what each tool is, and put it into sets that your policies know.
# Arguments that are not declared here are refused, and so is null. Those under
# "opaque" go through without policy seeing them: give them a type, or mind them.
`)
	return b.String()
}

func (i *importedServer) entry() string {
	w := yamlWriter{}
	w.line(0, "- id: %s", yamlText(i.id))
	if i.resourceMadeUp {
		w.line(2, "# The URL by which clients will call it, through Envoy (RFC 9728): change the host")
		w.line(2, "# to yours. Tokens for this server have it as their audience.")
	}
	w.line(2, "resource: %s", yamlAddress(i.resource))
	if i.tls {
		w.line(2, "# It speaks TLS: give its cluster a transport_socket in Envoy's configuration.")
	}
	w.line(2, "upstream: %s", yamlAddress(i.upstream))
	w.line(2, "mcp:")
	w.line(4, "path: %s", i.path)
	w.line(4, "upstream_path: %s", i.upstreamPath)
	w.line(4, "revisions: [%s]", yamlTexts(i.revisions))
	if len(i.tools) == 0 {
		w.line(2, "tools: []")
		return w.String()
	}
	w.line(2, "tools:")
	for n, t := range i.tools {
		if n > 0 {
			w.WriteByte('\n')
		}
		w.tool(t)
	}
	return w.String()
}

// yamlWriter writes the part of YAML that the catalogue reads.
type yamlWriter struct{ strings.Builder }

func (w *yamlWriter) line(indent int, format string, args ...any) {
	fmt.Fprintf(w, strings.Repeat(" ", indent)+format+"\n", args...)
}

func (w *yamlWriter) tool(t *importedTool) {
	if t.Description != "" {
		w.line(2, "# It says: %s", shown(t.Description, maxShown))
	}
	w.line(2, "- tool: %s", yamlText(t.id))
	if t.id != t.Name {
		w.line(4, "name: %s", yamlText(t.Name))
	}
	w.line(4, "pin: sha256:%s", hex.EncodeToString(t.Pin[:]))
	w.line(4, "# sets: []   # yours to say%s", t.hints())
	for n, note := range t.mapped.notes {
		if n == maxNotes {
			w.line(4, "# NOTE: and %d more", len(t.mapped.notes)-n)
			break
		}
		w.line(4, "# NOTE: %s", note)
	}
	if name, arguments, may := t.mayCallOthers(); may {
		w.line(4, "# NOTE: if it calls other tools by their names, say so: without this line, whoever may")
		w.line(4, "# call it may call all of them, with any arguments. The line takes the place of %q in opaque.", arguments)
		w.line(4, "# meta: {tool: %s, arguments: %s}", yamlText(name), yamlText(arguments))
	}
	if len(t.mapped.opaque) > 0 {
		w.line(4, "opaque:")
		for _, o := range t.mapped.opaque {
			w.line(4, "- %s # %s", yamlText(o.pointer), o.why)
		}
	}
	if len(t.mapped.input.Properties) > 0 {
		w.schema(4, "input", t.mapped.input)
	}
}

// schema writes scalars on one line and the rest as blocks.
func (w *yamlWriter) schema(indent int, key string, s *catalog.Schema) {
	if s.Type != "object" && s.Type != "array" {
		words := "type: " + s.Type
		if len(s.Enum) > 0 {
			words += ", enum: [" + yamlTexts(s.Enum) + "]"
		}
		if s.Header != "" {
			words += ", header: " + yamlText(s.Header)
		}
		if s.Nullable {
			words += ", nullable: true"
		}
		w.line(indent, "%s: {%s}", key, words)
		return
	}
	w.line(indent, "%s:", key)
	w.line(indent+2, "type: %s", s.Type)
	if s.Items != nil {
		w.schema(indent+2, "items", s.Items)
	}
	if len(s.Properties) > 0 {
		w.line(indent+2, "properties:")
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			w.schema(indent+4, yamlText(name), s.Properties[name])
		}
	}
	if len(s.Required) > 0 {
		w.line(indent+2, "required: [%s]", yamlTexts(s.Required))
	}
}

var (
	yamlPlain = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]{0,127}$`)
	// Plain words that some reader of YAML takes for something else than a text.
	yamlWords = []string{"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
)

// yamlText writes a text so that every reader of YAML takes it for that text:
// in quotes, unless it is plain without a doubt.
func yamlText(s string) string {
	if yamlPlain.MatchString(s) && !slices.Contains(yamlWords, strings.ToLower(s)) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"', r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unicode.IsPrint(r): // of white space, the blank alone
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

var plainAddress = regexp.MustCompile(`^(https?://)?[a-z0-9-]*[a-z.][a-z0-9.-]*(:[0-9]+)?(/[A-Za-z0-9._~-]+)*/?$`)

// yamlAddress is yamlText for a URL, or a host and port.
func yamlAddress(s string) string {
	if plainAddress.MatchString(s) {
		return s
	}
	return yamlText(s)
}

func yamlTexts(all []string) string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = yamlText(s)
	}
	return strings.Join(out, ", ")
}

// shown makes a text of somebody else fit for a line of a comment or of a
// terminal: at most so many letters.
func shown(s string, letters int) string {
	s = printable(strings.Join(strings.Fields(s), " "))
	if utf8.RuneCountInString(s) > letters {
		s = string([]rune(s)[:letters-1]) + "…"
	}
	return s
}
