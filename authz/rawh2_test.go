package authz

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawH2 speaks HTTP/2 by hand, as no careful client does.
type rawH2 struct {
	conn net.Conn
	*http2.Framer
}

func dialRaw(t testing.TB, network, address string) *rawH2 {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &rawH2{conn: conn, Framer: http2.NewFramer(conn, conn)}
	r.AllowIllegalWrites = true
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return r
}

// discard reads what comes, so that the peer never waits for us.
func (r *rawH2) discard(t testing.TB) {
	gone := make(chan struct{})
	go func() { defer close(gone); _, _ = io.Copy(io.Discard, r.conn) }()
	t.Cleanup(func() { r.conn.Close(); <-gone })
}

// block encodes header fields: name, value, …
func block(fields ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer takes all
	}
	return b.Bytes()
}

// status reads until the answer to stream 1 has begun, and gives its :status; ""
// if the stream or the connection was ended instead.
func (r *rawH2) status() string {
	status := ""
	dec := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			status = f.Value
		}
	})
	for {
		frame, err := r.ReadFrame()
		if err != nil {
			return ""
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = r.WriteSettingsAck() // what goes wrong shows at the next read
			}
		case *http2.HeadersFrame:
			_, _ = dec.Write(f.HeaderBlockFragment())
			return status
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return ""
		}
	}
}
