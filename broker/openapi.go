package broker

import (
	_ "embed"
	"net/http"
)

// openAPIText describes the routes in OpenAPI 3.1; a test holds it to them, and
// their answers to it.
//
//go:embed openapi.json
var openAPIText []byte

func (b *Broker) openAPI(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(openAPIText)
}
