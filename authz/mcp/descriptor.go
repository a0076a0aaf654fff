package mcp

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/toolgrant/toolgrant/strictjson"
)

// described are the members of a tool by which a model chooses it and writes its
// arguments: what a grant was given for.
var described = []string{"name", "description", "inputSchema", "outputSchema", "annotations"}

// Descriptor is the digest by which a tool is pinned: the SHA-256 of the RFC
// 8785 text of an object with those of name, description, inputSchema,
// outputSchema and annotations that are there. tool is an entry of a tools/list
// answer, as strictjson.Parse gives it. It is an error if name is no string or
// inputSchema no object, or if a number has no RFC 8785 form of its own value.
func Descriptor(tool any) ([sha256.Size]byte, error) {
	entry, ok := tool.(map[string]any)
	if !ok {
		return [sha256.Size]byte{}, errors.New("the tool is no object")
	}
	if !aName.is(entry["name"]) {
		return [sha256.Size]byte{}, errors.New("the tool has no name")
	}
	if !anObject.is(entry["inputSchema"]) {
		return [sha256.Size]byte{}, errors.New("the tool has no inputSchema that is an object")
	}
	pinned := map[string]any{}
	for _, member := range described {
		if v, there := entry[member]; there {
			pinned[member] = v
		}
	}
	text, err := strictjson.Canonical(pinned)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("the tool's descriptor: %w", err)
	}
	return sha256.Sum256(text), nil
}
