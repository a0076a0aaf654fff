package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestFloodsOfStreams (O09): HTTP/2 by hand at Envoy's port and at the socket
// behind it, while another agent buys and calls.
func TestFloodsOfStreams(t *testing.T) {
	w := layOut(t)
	w.serve()
	w.startEnvoy()
	task := w.task()
	_, socket := w.cfg.Authz.Address()
	call := (&attack{}).fields2("flood")
	check := []string{
		":method", "POST", ":scheme", "http", ":path", "/envoy.service.auth.v3.Authorization/Check", ":authority", "authz",
		"content-type", "application/grpc", "te", "trailers",
	}
	gigabyte := append(binary.BigEndian.AppendUint32([]byte{0}, 1<<30), make([]byte, 8<<10)...) // gRPC's Length-Prefixed-Message
	floods := map[string]func(r *rawH2, fields []string) error{
		"streams that are left open": func(r *rawH2, fields []string) error {
			return each(20_000, func(stream uint32) error { return r.begin(stream, fields) })
		},
		"streams that are reset": func(r *rawH2, fields []string) error { // CVE-2023-44487
			return each(20_000, func(stream uint32) error {
				return errors.Join(r.begin(stream, fields), r.WriteRSTStream(stream, http2.ErrCodeCancel))
			})
		},
		"streams that are ended and reset": func(r *rawH2, fields []string) error {
			return each(20_000, func(stream uint32) error {
				return errors.Join(r.begin(stream, fields), r.WriteData(stream, true, []byte("{}")), r.WriteRSTStream(stream, http2.ErrCodeCancel))
			})
		},
		"headers without an end": func(r *rawH2, fields []string) error { // CVE-2024-27316
			err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: pack(fields)})
			return errors.Join(err, each(10_000, func(uint32) error {
				return r.WriteContinuation(1, false, pack([]string{"x-a", strings.Repeat("a", 1_000)}))
			}))
		},
		"pings and settings": func(r *rawH2, _ []string) error { // CVE-2019-9512, CVE-2019-9515
			return each(20_000, func(uint32) error { return errors.Join(r.WritePing(false, [8]byte{}), r.WriteSettings()) })
		},
		"frames of nothing": func(r *rawH2, fields []string) error { // CVE-2019-9518
			return errors.Join(r.begin(1, fields), each(20_000, func(uint32) error { return r.WriteData(1, false, nil) }))
		},
		"a message of 1 GB": func(r *rawH2, fields []string) error {
			return errors.Join(r.begin(1, fields), r.WriteData(1, false, gigabyte), each(4_000, func(uint32) error { return r.WriteData(1, false, make([]byte, 16<<10)) }))
		},
	}
	for name, flood := range floods {
		for where, at := range map[string]struct {
			network, address string
			fields           []string
		}{
			"Envoy": {"tcp", strings.TrimPrefix(w.front, "http://"), call},
			"authz": {"unix", socket, check},
		} {
			t.Run(name+" at "+where, func(t *testing.T) {
				w := *w
				w.t = t
				var wg sync.WaitGroup
				defer wg.Wait()
				conn, err := net.Dial(at.network, at.address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
				wg.Go(func() { _, _ = io.Copy(io.Discard, conn) })
				r, over := newRawH2(conn), make(chan struct{})
				// An error is what is hoped for: the other side takes no more of it.
				wg.Go(func() { defer close(over); _ = flood(r, at.fields) })
				for done := false; !done && !t.Failed(); {
					w.buyAndCall(task)
					select {
					case <-over:
						done = true
					case <-time.After(50 * time.Millisecond): // an agent may buy 50 times a second
					}
				}
				w.buyAndCall(task)
			})
		}
	}
}

// each makes n streams, in the order of their numbers, until there is an error.
func each(n int, do func(stream uint32) error) error {
	for i := range uint32(n) {
		if err := do(2*i + 1); err != nil {
			return err
		}
	}
	return nil
}

// begin writes a request's headers, and leaves its stream open.
func (r *rawH2) begin(stream uint32, fields []string) error {
	return r.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: pack(fields)})
}
