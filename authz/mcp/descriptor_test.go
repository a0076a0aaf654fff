package mcp

import (
	"crypto/sha256"
	"testing"

	"github.com/toolgrant/toolgrant/strictjson"
)

func parsed(t *testing.T, text string) any {
	t.Helper()
	v, err := strictjson.Parse([]byte(text), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDescriptor(t *testing.T) {
	const text = `{"annotations":{"readOnlyHint":true},"description":"d","inputSchema":{"maximum":10,"type":"object"},"name":"n","outputSchema":{"type":"object"}}`
	got, err := Descriptor(parsed(t, `{
		"title": "T", "icons": [], "_meta": {"x": 1},
		"name": "n", "inputSchema": {"type": "object", "maximum": 1e1}, "description": "\u0064",
		"outputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}}`))
	if err != nil || got != sha256.Sum256([]byte(text)) {
		t.Errorf("got %x, %v", got, err)
	}
	got, err = Descriptor(parsed(t, `{"name":"n","inputSchema":{}}`))
	if err != nil || got != sha256.Sum256([]byte(`{"inputSchema":{},"name":"n"}`)) {
		t.Errorf("got %x, %v", got, err)
	}
	for _, wrong := range []string{
		`[]`, `{}`, `{"name":"n"}`, `{"name":"n","inputSchema":true}`, `{"name":"","inputSchema":{}}`, `{"name":1,"inputSchema":{}}`,
		`{"inputSchema":{}}`, `{"name":"n","inputSchema":{"maximum":0.12345678901234567890}}`,
	} {
		if _, err := Descriptor(parsed(t, wrong)); err == nil {
			t.Errorf("%s has a digest", wrong)
		}
	}
}
