package main

import (
	"testing"

	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/token"
)

// What a manifest has of one server must have room in one token.
func TestManifestsFitIntoTokens(t *testing.T) {
	if manifest.MaxTools > token.MaxDetails {
		t.Errorf("a manifest may have %d tools, and a token holds %d grants", manifest.MaxTools, token.MaxDetails)
	}
}
