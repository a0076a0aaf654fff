package grants

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"strings"

	"github.com/toolgrant/toolgrant/strictjson"
)

// OnceDigest is what a one-time grant is bound to: the SHA-256 over the RFC 8785
// text of a call's input, as strictjson gives it, without what the pointers (RFC
// 6901, through objects alone) lead to. What is left out that is not there
// changes nothing. The error is of an input without a canonical text, which no
// grant can be bound to.
func OnceDigest(input any, leaveOut []string) (Digest, error) {
	for _, ptr := range leaveOut {
		input = without(input, strings.Split(strings.TrimPrefix(ptr, "/"), "/"))
	}
	text, err := strictjson.Canonical(input)
	if err != nil {
		return Digest{}, fmt.Errorf("input of a one-time grant: %w", err)
	}
	return sha256.Sum256(text), nil
}

// without is a copy of v that lacks what the path leads to.
func without(v any, path []string) any {
	object, ok := v.(map[string]any)
	if !ok {
		return v
	}
	name := strings.ReplaceAll(strings.ReplaceAll(path[0], "~1", "/"), "~0", "~")
	child, ok := object[name]
	if !ok {
		return v
	}
	rest := maps.Clone(object)
	if len(path) == 1 {
		delete(rest, name)
	} else {
		rest[name] = without(child, path[1:])
	}
	return rest
}
