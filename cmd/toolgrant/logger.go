package main

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger writes JSON lines to w: INFO is a change of state. Nothing in them
// drives or reorders a terminal, whoever wrote it.
func newLogger(w io.Writer) *zap.Logger {
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(printableJSON{w})), zapcore.InfoLevel))
}

// printableJSON writes lines of JSON to w, and in them \uXXXX for what does not
// print: C1 controls, DEL, line and paragraph separators, bidi and other format
// characters, which zap leaves as they are. To a parser that is the same text,
// for outside of its strings JSON is printable ASCII (RFC 8259, Section 2; a
// line has no other white space). Bytes that are not UTF-8 become U+FFFD.
//
// A call of Write holds whole lines, as zap makes them. It is safe for concurrent
// use if w is.
type printableJSON struct{ w io.Writer }

func (p printableJSON) Write(b []byte) (int, error) {
	clean := b
	if i := unprintable(b); i < len(b) {
		clean = appendPrintable(append(make([]byte, 0, len(b)+64), b[:i]...), b[i:])
	}
	if _, err := p.w.Write(clean); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Sync gets what was written to the disk, if w is a file.
func (p printableJSON) Sync() error { return zapcore.AddSync(p.w).Sync() }

// unprintable is where the first byte is that needs a look, or len(b).
func unprintable(b []byte) int {
	for i, c := range b {
		if c != '\n' && (c < ' ' || c > '~') {
			return i
		}
	}
	return len(b)
}

func appendPrintable(to, b []byte) []byte {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == '\n' || unicode.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			to = append(to, b[:n]...)
		} else {
			for _, unit := range utf16.AppendRune(nil, r) { // two beyond the BMP: RFC 8259, Section 7
				to = fmt.Appendf(to, `\u%04x`, unit)
			}
		}
		b = b[n:]
	}
	return to
}
