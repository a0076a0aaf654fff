package mcp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/strictjson"
)

// PassHeader carries a Pass from the check to the surface. Envoy strips it from
// what clients send, because of its prefix.
const PassHeader = "x-grant-ctx-pass"

// Pass is what the call door tells the surface of a message whose answer has to
// be watched. It is sealed: whoever reaches the surface without one gets
// nothing.
type Pass struct {
	Decision string    `json:"decision"` // decision id; a Pass is good once
	Server   string    `json:"server"`   // catalogue id
	Agent    string    `json:"agent"`    // agent id
	Method   string    `json:"method"`   // of Methods
	Grants   []string  `json:"grants"`   // ids of all grants that it was allowed by, sorted; empty: baseline
	Revision string    `json:"revision"` // of the message
	Ends     time.Time `json:"-"`        // when it is good no more; milliseconds
}

// sealed is a Pass as it is written.
type sealed struct {
	Pass
	Ends int64 `json:"ends"` // milliseconds since 1970
}

// Seal makes Passes and opens them, by a key that the process makes for itself.
// It may be used concurrently.
type Seal struct{ key [32]byte }

// NewSeal makes a key.
func NewSeal() *Seal {
	s := new(Seal)
	rand.Read(s.key[:]) // never fails
	return s
}

// maxSealed bounds the text of a sealed Pass, in bytes.
const maxSealed = 2048

var encoding = base64.RawURLEncoding.Strict()

// Close returns the text of a sealed Pass: visible ASCII, for a header. One that
// would be over 2,048 bytes, which no ids of the catalogue's make, does not open.
func (s *Seal) Close(p Pass) string {
	text, err := json.Marshal(sealed{Pass: p, Ends: p.Ends.UnixMilli()})
	if err != nil {
		return "" // strings and an integer are always written
	}
	body := encoding.EncodeToString(text)
	return body + "." + s.sum(body)
}

// Open returns what Close sealed, if it is still good at the time. (That it is
// good once is the surface's to see.)
func (s *Seal) Open(text string, at time.Time) (Pass, bool) {
	if len(text) > maxSealed {
		return Pass{}, false
	}
	// What is compared is the text, so that it has one spelling: decoders step
	// over line breaks.
	body, sum, ok := strings.Cut(text, ".")
	if !ok || !hmac.Equal([]byte(sum), []byte(s.sum(body))) {
		return Pass{}, false
	}
	raw, err := encoding.DecodeString(body)
	if err != nil {
		return Pass{}, false
	}
	var p sealed
	if err := strictjson.Unmarshal(raw, strictjson.Limits{}, &p); err != nil {
		return Pass{}, false
	}
	p.Pass.Ends = time.UnixMilli(p.Ends)
	return p.Pass, at.Before(p.Pass.Ends)
}

func (s *Seal) sum(body string) string {
	h := hmac.New(sha256.New, s.key[:])
	h.Write([]byte(body))
	return encoding.EncodeToString(h.Sum(nil))
}
